"""What does privacy cost in time and memory, step for step, beside Opacus' own ways?

`python -m fondaco.simulation.benchmarks.steps`: the same step with and without privacy, on
invented customers and catalogues of three sizes, with the largest head that a plan may have;
medians of processor time, taken in turns.
Every figure of memory comes from a process of its own.
"""

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import typer
from threadpoolctl import threadpool_limits

from fondaco.client import dpsgd
from fondaco.shared.catalogue import Catalogue
from fondaco.shared.models import MODELS, NetworkModel, PublicFacts, Sizes, Timelines
from fondaco.shared.models.base import RoundTerms, Terms
from fondaco.shared.models.gram import MAX_HEAD
from fondaco.shared.models.networks.base import Network
from fondaco.shared.models.terms import PlannedModels
from fondaco.shared.records import GlobalModel
from fondaco.shared.vocabulary import Vocabulary

from ..result import peak_rss_bytes
from ..step_cost import steps_of, take_turns
from .common import Row, record

TARGETS: dict[tuple[str, int], float] = {
    ("mf", 3_600): 1.1,
    ("mf", 20_000): 2.0,
    ("mf", 100_000): 3.0,
    **{("autoencoder", n): 1.3 for n in (3_600, 20_000, 100_000)},
    **{("sequence", n): 2.5 for n in (3_600, 20_000, 100_000)},
}
ITEMS = (3_600, 20_000, 100_000)
HISTORY = 200
RANK = 64
MOST_ROWS_BYTES = 5e8
"""Opacus' hooks hold a gradient per customer and number: left out where that is too much."""
UNITS = {
    "plain": "ms",
    "private": "x plain",
    "target": "x plain",
    "ghost": "x plain",
    "hooks": "x plain",
    "memory": "x plain",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Setting:
    """One model on one catalogue."""

    name: str
    planned: PlannedModels
    facts: PublicFacts
    timelines: Timelines
    parameters: np.ndarray[tuple[int], np.dtype[np.float32]]

    def actions(self) -> dict[str, Callable[[], None]]:
        """Return what is timed: plain, private and, for networks, Opacus' ghost and hooks."""
        steps = steps_of(self.name, self.planned, self.facts, self.parameters, self.timelines)
        found = {"plain": steps.plain, "private": steps.private}
        model, terms = self.planned.model(self.name)
        if not isinstance(model, NetworkModel):
            return found
        network = model.network(terms, self.facts)
        batch = network.encode(self.timelines)

        def opacus(mode: str) -> Callable[[], None]:
            step = dpsgd.opacus_step(_own_copy(network), mode)
            return lambda: step(batch)

        found["ghost"] = opacus("ghost")
        if 4.0 * len(self.parameters) * self.timelines.n_users < MOST_ROWS_BYTES:
            found["hooks"] = opacus("hooks")
        return found


def setting_of(name: str, terms: Terms, n_items: int, n_users: int) -> Setting:
    """Return a model over invented customers: HISTORY items each, popular ones more often."""
    rng = np.random.default_rng(0)
    chance = 1.0 / np.arange(10.0, 10.0 + n_items)
    chance /= chance.sum()
    size = min(HISTORY, n_items // 2)
    rows = [
        np.sort(rng.choice(n_items, size=size, replace=False, p=chance)) for _ in range(n_users)
    ]
    facts = PublicFacts(catalogue=_catalogue(n_items), model=_model(chance, rng))
    sizes = Sizes(n_items=n_items, head=min(n_items, MAX_HEAD))
    if isinstance(terms, RoundTerms):
        terms = MODELS[name].resolve(terms, 1.0, 10_000)
    planned = PlannedModels(terms={name: terms}, sizes=sizes)
    model, resolved = planned.model(name)
    return Setting(
        name=name,
        planned=planned,
        facts=facts,
        timelines=Timelines(
            indptr=np.arange(n_users + 1, dtype=np.int64) * size,
            item_nums=np.concatenate(rows).astype(np.int64),
            times=np.sort(rng.uniform(0.0, 360.0, (n_users, size)), axis=1).ravel(),
            now=365.0,
            n_items=n_items,
        ),
        parameters=model.initial(resolved, facts),
    )


def measure_costs(names: list[str], items: list[int], n_users: int, *, memory: bool) -> list[Row]:
    """Return one row per model and catalogue."""
    rows: list[Row] = []
    for name in names:
        for n_items in items:
            with threadpool_limits(1):
                actions = setting_of(name, terms_of(name), n_items, n_users).actions()
                seconds = dict(zip(actions, take_turns(list(actions.values())), strict=True))
            plain = seconds["plain"]
            target = TARGETS.get((name, n_items), float("nan"))
            row: Row = {
                "model": name,
                "items": n_items,
                "customers": n_users,
                "plain": 1e3 * plain,
                "private": seconds["private"] / plain,
                "target": target,
                "reached": seconds["private"] / plain <= target,
                "ghost": seconds.get("ghost", float("nan")) / plain,
                "hooks": seconds.get("hooks", float("nan")) / plain,
            }
            ratio = _memory_ratio(name, n_items, n_users) if memory else float("nan")
            rows.append({**row, "memory": ratio})
    return rows


def terms_of(name: str) -> Terms:
    """Return the terms under which a model is measured: tables over the largest head."""
    knobs: dict[str, dict[str, Any]] = {
        "mf": {"solver": "sgd", "width": RANK},
        "autoencoder": {"items": MAX_HEAD},
    }
    return cast("Terms", MODELS[name].terms(**knobs.get(name, {})))


def peak_bytes(name: str, n_items: int, n_users: int, action: str) -> int:
    """Return this process' peak memory after one action [bytes]; run it in a new process."""
    with threadpool_limits(1):
        setting_of(name, terms_of(name), n_items, n_users).actions()[action]()
    return peak_rss_bytes()


def _memory_ratio(name: str, n_items: int, n_users: int) -> float:
    """Peak memory of a process that takes private steps over one that takes plain ones."""
    peaks = []
    for action in ("private", "plain"):
        only = json.dumps([name, n_items, n_users, action])
        command = [sys.executable, "-m", __spec__.name if __spec__ else __name__, "--only", only]
        done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
        peaks.append(int(done.stdout))
    return peaks[0] / peaks[1]


def _own_copy(network: Network) -> Network:
    return copy.deepcopy(network)


def _catalogue(n_items: int) -> Catalogue:
    blank = ("",) * n_items
    return Catalogue(
        items=Vocabulary(tuple(f"{num:06d}" for num in range(n_items))),
        texts=blank,
        categories=blank,
        brands=blank,
        prices=np.full(n_items, np.nan),
    )


def _model(
    chance: np.ndarray[tuple[int], np.dtype[np.float64]], rng: np.random.Generator
) -> GlobalModel:
    n_items, head = len(chance), min(len(chance), MAX_HEAD)
    popularity = (1e4 * chance).astype(np.float32)
    nothing = np.zeros(0, dtype=np.float32)
    return GlobalModel(
        plan_digest="",
        catalogue_digest="",
        after_round=2,
        noisy_popularity=popularity,
        popularity=popularity,
        head=np.arange(head),
        head_popularity=popularity[:head],
        gram_factors=rng.normal(size=(head, RANK)).astype(np.float32),
        gram_diagonal=popularity[:head],
        gram_top=popularity[:head],
        kernel_weights=nothing,
        item_in=rng.normal(size=(head, RANK)).astype(np.float32),
        item_out=rng.normal(size=(n_items, RANK)).astype(np.float32),
        spectrum=popularity[:head],
        noise_edge=np.array(1.0, dtype=np.float32),
        parameters=nothing,
        fusion=np.ones((1, 1), dtype=np.float32),
    )


def main(
    *,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
    models: Annotated[str, typer.Option(help="Models.")] = "mf,autoencoder,sequence",
    items: Annotated[str, typer.Option(help="Catalogue sizes.")] = "3600,20000,100000",
    customers: Annotated[int, typer.Option(help="Customers in a step.")] = 128,
    memory: Annotated[bool, typer.Option(help="Measure memory too.")] = True,
    only: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Time private steps against plain ones."""
    if only:
        print(peak_bytes(*json.loads(only)))  # noqa: T201  (read by the parent process)
        return
    sizes = [int(size) for size in items.split(",")]
    rows = measure_costs(models.split(","), sizes, customers, memory=memory)
    record("steps", rows, out, seed=0, units=UNITS)


if __name__ == "__main__":
    typer.run(main)
