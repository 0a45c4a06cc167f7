"""What does masking add to a round, ledgers, witnesses and all?

`python -m fondaco.simulation.benchmarks.masked_round`: the same scenario is federated in this
process with its sums masked and in the clear, in turns, so that both see the same load. Every
silo's work is done one after another here; between machines it is done at once.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from threadpoolctl import threadpool_limits

from fondaco.server.app import Outcome
from fondaco.shared.console import Bars
from fondaco.shared.privacy.plan import MASKED

from ..library import load_scenario
from ..run import Prepared, Stopwatch, prepare, prepare_silos
from .common import Row, record
from .runs import federate

KINDS = (MASKED, "simulated")
UNITS = {"masked": "s", "plain": "s", "masked_median": "s", "plain_median": "s"}

Progress = Callable[[str, int, int], None]


def measure(scenario: str, settings: Sequence[str], repeats: int, progress: Progress) -> list[Row]:
    """Return a row per kind of release and one for everything, each over `repeats` runs.

    Args:
        scenario: its name.
        settings: as `--set` takes them.
        repeats: runs of each way, in turns.
        progress: told after each.
    """
    prepared = _both(scenario, settings)
    seen: dict[str, dict[str, list[float]]] = {kind: {} for kind in KINDS}
    for num in range(repeats):
        for place, kind in enumerate(KINDS):
            for stage, seconds in _timed(prepared[kind]).items():
                seen[kind].setdefault(stage, []).append(seconds)
            progress("federate", 2 * num + place + 1, 2 * repeats)
    plan = prepared[MASKED].plan
    dims = {event.kind: event.dim for event in plan.releases}
    return [
        _row(
            {
                "scenario": scenario,
                "silos": plan.cohort.n_silos,
                "ring": plan.ring_bits,
                "stage": stage,
                "numbers": dims.get(stage, sum(dims.values())),
            },
            *(seen[kind][stage] for kind in KINDS),
        )
        for stage in seen[MASKED]
    ]


def _both(scenario: str, settings: Sequence[str]) -> dict[str, Prepared]:
    """Return the scenario under both plans; the data are loaded and cut once."""
    first = prepare(load_scenario(scenario, settings))
    plans = {}
    for kind in KINDS:
        chosen = load_scenario(scenario, [*settings, f"privacy.secure_aggregation={kind}"])
        plans[kind] = prepare_silos(chosen, first.market, first.silos, Stopwatch())
    return plans


def _timed(prepared: Prepared) -> dict[str, float]:
    """Return the wall time of each kind of release, of all of them and of the whole run [s]."""
    start = time.perf_counter()
    with threadpool_limits(1):
        outcome: Outcome = federate(prepared, prepared.scenario.seed)
    whole = time.perf_counter() - start
    rounds = dict(outcome.seconds)
    return {**rounds, "all rounds": sum(rounds.values()), "whole run": whole}


def _row(facts: Row, masked: Sequence[float], plain: Sequence[float]) -> Row:
    return {
        **facts,
        "masked": round(min(masked), 3),
        "plain": round(min(plain), 3),
        "ratio": round(min(masked) / min(plain), 2),
        "masked_median": round(statistics.median(masked), 3),
        "plain_median": round(statistics.median(plain), 3),
        "ratio_median": round(statistics.median(masked) / statistics.median(plain), 2),
        "repeats": len(masked),
    }


def main(
    *,
    scenario: Annotated[str, typer.Option(help="Scenario whose rounds are timed.")] = (
        "movielens-1m"
    ),
    data_dir: Annotated[str, typer.Option(help="Folder that holds its data.")] = "",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Knob of the scenario, a.b=value.")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Runs of each way.", min=1)] = 5,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
) -> None:
    """Time rounds with masks and without, in turns in one process."""
    knobs = [f"dataset.data_dir={data_dir}"] if data_dir else []
    with Bars() as progress:
        rows = measure(scenario, [*knobs, *(settings or [])], repeats, progress)
    record("masked_round", rows, out, seed=0, units=UNITS)


if __name__ == "__main__":
    typer.run(main)
