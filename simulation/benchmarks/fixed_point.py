"""What does the integer grid cost in quality, against float sums under the same noise?

`python -m fondaco.simulation.benchmarks.fixed_point`: the releases of a scenario are made once
from float64 contributions and float64 noise, and once for each of several grids, rounded and
added up in a ring as silos do. The draws of the noise are the same in all of them, those of the
run itself, so a difference is what rounding has done; the model and its ranking follow from the
sums alone.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

import numpy as np
import typer
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from fondaco.server.checkpoint import RoundResult
from fondaco.server.global_model import build_base, choose_head
from fondaco.shared.console import Bars
from fondaco.shared.errors import ConfigError
from fondaco.shared.privacy.clipping import gram_sum, popularity_sum
from fondaco.shared.privacy.contribution import Histories, bound_contributions
from fondaco.shared.privacy.events import PrivacyEvent
from fondaco.shared.privacy.noise import NoiseStream
from fondaco.shared.privacy.plan import MAX_STDDEV_GRID
from fondaco.shared.records import GlobalModel
from fondaco.shared.secagg.masks import from_ring, to_ring

from ..library import load_scenario
from ..run import Prepared, prepare
from .common import Row, record
from .runs import parse_seeds, published_quality, spread

GRIDS = (2**12, 2**16, 2**20, 2**24)
WIDE_RING = 64
SYSTEMS = ("global", "dp_popularity")
UNITS = {
    "epsilon": "1",
    "ring": "bits",
    "headroom": "1",
    "moved": "stddev",
}
HEADLINE = ("mean", "spread", "difference", "difference_spread", "by_seed")
"""Columns in units of the scenario's headline."""

Array = NDArray[np.float64]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """How sums are held: in steps of 1 / `per_unit`, modulo 2^`ring_bits`; 0 are floats."""

    per_unit: int
    ring_bits: int

    @classmethod
    def all_of(cls, prepared: Prepared, per_units: tuple[int, ...] = GRIDS) -> list["Grid"]:
        """Return floats first, then the grids, that of the plan with the plan's ring."""
        plan = prepared.plan
        own = {per_unit: WIDE_RING for per_unit in per_units}
        own[plan.grid] = plan.ring_bits or WIDE_RING
        return [cls(per_unit=0, ring_bits=0)] + [
            cls(per_unit=per_unit, ring_bits=own[per_unit]) for per_unit in sorted(own)
        ]


@dataclass(frozen=True, kw_only=True, eq=False)
class Released:
    """The noisy sums over silos of one round.

    Attributes:
        total: (dim,) [units of a customer's contribution].
        headroom: largest sum that the ring holds over the largest that is there [1].
    """

    total: Array
    headroom: float


def histories_of(prepared: Prepared) -> list[Histories]:
    """Return each silo's customers as their releases read them."""
    return [
        bound_contributions(
            silo.train.user_nums, silo.train.item_nums, silo.n_users, prepared.plan.n_items
        )
        for silo in prepared.silos
    ]


def float_popularity(histories: Histories) -> Array:
    """Return (n_items,) sum_u x_u / sqrt(n_u), nothing rounded."""
    weights = np.repeat(1.0 / np.sqrt(np.maximum(histories.lengths, 1)), histories.lengths)
    values = np.zeros(histories.n_items)
    np.add.at(values, histories.item_nums, weights)
    return values


def float_gram(histories: Histories) -> Array:
    """Return z of sum_u x_u x_u^T / n_u, ordered as `gram_sum` does, nothing rounded."""
    rows = np.zeros((histories.n_users, histories.n_items))
    rows[histories.user_nums(), histories.item_nums] = 1.0
    weights = 1.0 / np.maximum(histories.lengths, 1)
    gram = (rows * weights[:, None]).T @ rows
    upper = gram[np.triu_indices(histories.n_items, 1)]
    return np.concatenate([np.diag(gram), math.sqrt(2.0) * upper])


def released(
    prepared: Prepared, event: PrivacyEvent, parts: list[Histories], grid: Grid, seed: int
) -> Released:
    """Return the noisy sum over silos of `event`, each silo's noise drawn as in the run."""
    streams = [_noise(silo_id, event, seed) for silo_id in prepared.silo_ids]
    stddev = event.silo_stddev_grid / prepared.plan.grid
    if not grid.per_unit:
        of = {"popularity": float_popularity, "gram": float_gram}[event.kind]
        silos = [
            of(part) + stddev * (stream.gaussian(event.dim, MAX_STDDEV_GRID) / MAX_STDDEV_GRID)
            for part, stream in zip(parts, streams, strict=True)
        ]
        return Released(total=np.sum(silos, axis=0), headroom=math.inf)
    exact = {"popularity": popularity_sum, "gram": gram_sum}[event.kind]
    steps = math.ceil(stddev * grid.per_unit)
    sums = [
        exact(part, grid.per_unit).values + stream.gaussian(event.dim, steps)
        for part, stream in zip(parts, streams, strict=True)
    ]
    words = to_ring(sums[0], grid.ring_bits)
    for each in sums[1:]:
        words += to_ring(each, grid.ring_bits)
    largest = float(np.abs(np.sum(sums, axis=0)).max())
    return Released(
        total=from_ring(words, grid.ring_bits) / grid.per_unit,
        headroom=2.0 ** (grid.ring_bits - 1) / max(largest, 1.0),
    )


def model_of(
    prepared: Prepared, histories: list[Histories], grid: Grid, seed: int
) -> tuple[GlobalModel, list[Released]]:
    """Return the global model of the sums on `grid`, and the sums.

    Raises:
        ConfigError: the plan has other releases than popularity and Gram.
    """
    plan = prepared.plan
    if [event.kind for event in plan.releases] != ["popularity", "gram"]:
        raise ConfigError("only a scenario whose one model is the Gram can be measured")
    first, second = plan.releases
    popularity = released(prepared, first, histories, grid, seed)
    head = choose_head(plan, _result(prepared, first, popularity).total)
    gram = released(prepared, second, [each.restrict(head) for each in histories], grid, seed)
    model = build_base(
        plan,
        prepared.market.catalogue,
        _result(prepared, first, popularity),
        _result(prepared, second, gram),
    )
    return model, [popularity, gram]


def measure_grids(
    prepared: Prepared, grids: list[Grid], seeds: list[int], progress: Progress
) -> list[Row]:
    """Return one row per grid and system; differences are to `grids[0]`, seed by seed."""
    histories = histories_of(prepared)
    quality: dict[Grid, list[dict[str, float]]] = {grid: [] for grid in grids}
    headroom: dict[Grid, float] = dict.fromkeys(grids, math.inf)
    moved: dict[Grid, float] = dict.fromkeys(grids, 0.0)
    for num, seed in enumerate(seeds):
        reference: Array | None = None
        for place, grid in enumerate(grids):
            progress("grids", num * len(grids) + place, len(seeds) * len(grids))
            model, sums = model_of(prepared, histories, grid, seed)
            quality[grid].append(published_quality(prepared, model))
            headroom[grid] = min(headroom[grid], *(each.headroom for each in sums))
            reference = sums[0].total if reference is None else reference
            moved[grid] = max(moved[grid], _moved(prepared, sums[0].total - reference))
        progress("grids", (num + 1) * len(grids), len(seeds) * len(grids))
    rows: list[Row] = []
    for system in SYSTEMS:
        reference_values = [each[system] for each in quality[grids[0]]]
        for grid in grids:
            values = [each[system] for each in quality[grid]]
            facts = {"headroom": headroom[grid], "moved": moved[grid]}
            rows.append({**_row(prepared, grid, system, values, reference_values), **facts})
    return rows


def _row(
    prepared: Prepared, grid: Grid, system: str, values: list[float], reference: list[float]
) -> dict[str, str | int | float | bool]:
    above = np.array(values) - np.array(reference)
    return {
        "scenario": prepared.scenario.name,
        "epsilon": prepared.scenario.privacy.epsilon,
        "system": system,
        "sums": f"2^{round(math.log2(grid.per_unit))}" if grid.per_unit else "float64",
        "planned": "yes" if grid.per_unit == prepared.plan.grid else "",
        "ring": grid.ring_bits,
        "mean": float(np.mean(values)),
        "spread": spread(values),
        "difference": float(above.mean()),
        "difference_spread": spread(above),
        "by_seed": " ".join(f"{value:.6f}" for value in values),
    }


def _result(prepared: Prepared, event: PrivacyEvent, sums: Released) -> RoundResult:
    """The same as the coordinator keeps it; sums of other grids are no integers in the plan's."""
    return RoundResult(
        kind=event.kind,
        round_num=event.round_num,
        total=cast("NDArray[np.int64]", sums.total * prepared.plan.grid),
        present=tuple(prepared.silo_ids),
        dropped=(),
    )


def _noise(silo_id: str, event: PrivacyEvent, seed: int) -> NoiseStream:
    return NoiseStream.seeded(seed, silo_id, event.kind, str(event.round_num), "1")


def _moved(prepared: Prepared, difference: Array) -> float:
    """Return the largest change of a popularity sum, in stddevs of its noise."""
    event = prepared.plan.releases[0]
    stddev = event.silo_stddev_grid * math.sqrt(len(prepared.silos)) / prepared.plan.grid
    return float(np.abs(difference).max()) / stddev


def main(
    *,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
    scenario: Annotated[str, typer.Option(help="Its one model is the Gram.")] = "movielens-100k",
    data_dir: Annotated[str, typer.Option(help="Folder of its data, if it needs one.")] = "",
    epsilon: Annotated[float, typer.Option(help="Budget.")] = 4.0,
    seeds: Annotated[str, typer.Option(help="Noise seeds; the split stays at seed 0.")] = "0,1,2",
) -> None:
    """Measure how far rounding onto a grid moves the headline."""
    settings = [f"privacy.epsilon={epsilon}"] + ([f"dataset.data_dir={data_dir}"] * bool(data_dir))
    prepared = prepare(load_scenario(scenario, settings))
    noise_seeds = parse_seeds(seeds)
    with threadpool_limits(1), Bars() as progress:
        rows = measure_grids(prepared, Grid.all_of(prepared), noise_seeds, progress)
    headline = prepared.scenario.evaluation.headline
    units = UNITS | dict.fromkeys(HEADLINE, headline)
    record("fixed_point", rows, out, seed=prepared.scenario.seed, units=units)


if __name__ == "__main__":
    typer.run(main)
