"""Merchants that share no item: what do they learn from each other, case by case?"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from fondaco.shared.errors import ConfigError
from fondaco.shared.metrics import bootstrap_means

from ..evaluation import Measured, measure
from ..library import load_scenario
from ..run import Prepared, parse_epsilons, prepare, quiet
from .common import Row, record
from .runs import at_epsilon, federate, parse_seeds, spread

SCENARIOS = ("disjoint-merchants", "disjoint-makers")
RIVALS = ("silo_alone", "content_alone")
SMALL = 100
"""A silo with fewer customers is small."""
BOOTSTRAP = 1000
UNITS = {
    "epsilon": "1",
    "mean": "ndcg@20",
    "spread": "ndcg@20",
    **{f"above_{rival}": "ndcg@20" for rival in RIVALS},
    **{f"{end}_{rival}": "ndcg@20" for rival in RIVALS for end in ("low", "high")},
}

Values = Mapping[str, NDArray[np.float64]]
"""system -> (n_seeds, n_customers) NDCG@20."""


def measure_seeds(prepared: Prepared, seeds: Sequence[int]) -> list[Measured]:
    """Return every system's quality at one budget, for each noise seed."""
    return [
        measure(
            prepared.silos,
            federate(prepared, seed).model,
            prepared.plan,
            prepared.market.catalogue,
            scenario=prepared.scenario,
            progress=quiet,
        )
        for seed in seeds
    ]


def cases(prepared: Prepared, found: Sequence[Measured]) -> Iterator[tuple[str, Values]]:
    """Yield each case with the values of its customers; a case without customers is left out.

    Cold items are those that nobody had taken at the silo, ranked among themselves; a cold
    customer has no history; a small silo has fewer than SMALL customers.
    """
    first = found[0]
    sizes = np.array([silo.n_users for silo in prepared.silos])
    small = sizes[first.silo_nums] < SMALL
    everybody = {s: np.stack([one.headline[s] for one in found]) for s in first.headline}
    cold = {s: np.stack([one.cold_ndcg[s] for one in found]) for s in first.cold_ndcg}
    for name, values, chosen in (
        ("all", everybody, np.ones(len(small), dtype=np.bool_)),
        ("small silos", everybody, small),
        ("cold customers", everybody, first.no_history),
        ("cold items", cold, np.ones(len(first.cold_rows), dtype=np.bool_)),
        ("cold items, small silos", cold, small[first.cold_rows]),
    ):
        if chosen.any():
            yield name, {system: seeds[:, chosen] for system, seeds in values.items()}


def rows_of(prepared: Prepared, case: str, values: Values) -> list[Row]:
    """Return one row per system: mean, spread over seeds, and paired differences to the rivals.

    A difference is averaged over seeds for each customer, then bootstrapped over customers:
    its 95 % interval.
    """
    by_customer = {system: seeds.mean(axis=0) for system, seeds in values.items()}
    rng = np.random.default_rng(prepared.scenario.seed)
    rows: list[Row] = []
    for system, seeds in values.items():
        above = np.column_stack([by_customer[system] - by_customer[rival] for rival in RIVALS])
        intervals = bootstrap_means(above, rng, BOOTSTRAP).tolist()
        row: dict[str, str | int | float | bool] = {
            "scenario": prepared.scenario.name,
            "silos": len(prepared.silos),
            "epsilon": prepared.scenario.privacy.epsilon,
            "case": case,
            "system": system,
            "mean": float(seeds.mean()),
            "spread": spread(seeds.mean(axis=1)),
        }
        for rival, (mean, low, high) in zip(RIVALS, intervals, strict=True):
            row |= {f"above_{rival}": mean, f"low_{rival}": low, f"high_{rival}": high}
        rows.append({**row, "n_test": seeds.shape[1], "n_seeds": seeds.shape[0]})
    return rows


def measure_job(
    name: str, settings: Sequence[str], epsilons: Sequence[float], seeds: Sequence[int]
) -> list[Row]:
    """Return the rows of one scenario."""
    first = prepare(load_scenario(name, ["evaluation.headline=ndcg@20", *settings]))
    rows: list[Row] = []
    for epsilon in epsilons:
        prepared = at_epsilon(first, epsilon)
        found = measure_seeds(prepared, seeds)
        for case, values in cases(prepared, found):
            rows += rows_of(prepared, case, values)
    return rows


def main(
    *,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
    seeds: Annotated[str, typer.Option(help="Noise seeds; the data stay at seed 0.")] = "0,1,2",
    epsilons: Annotated[str, typer.Option(help="Budgets.")] = "4,8",
    scenarios: Annotated[str, typer.Option(help="Which scenarios.")] = ",".join(SCENARIOS),
) -> None:
    """Measure what merchants with catalogues of their own gain from a common content tower."""
    names = scenarios.split(",")
    if unknown := sorted(set(names) - set(SCENARIOS)):
        raise ConfigError(f"--scenarios {unknown} must be among {list(SCENARIOS)}")
    rows: list[Row] = []
    with threadpool_limits(1):  # threads of BLAS spin against each other on busy cores
        for name in names:
            rows += measure_job(name, (), parse_epsilons(epsilons), parse_seeds(seeds))
    record("merchants", rows, out, seed=0, units=UNITS)


if __name__ == "__main__":
    typer.run(main)
