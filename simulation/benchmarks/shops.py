"""Silos of shops: every system by budget, and what the others' model adds to a silo's own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from fondaco.shared.errors import ConfigError
from fondaco.shared.metrics import bootstrap_means

from ..evaluation import measure
from ..library import load_scenario
from ..run import Prepared, parse_epsilons, prepare, quiet
from .common import Row, record
from .runs import at_epsilon, federate, parse_seeds, spread

JOBS: Mapping[str, Sequence[str]] = {
    "complete-journey": (),
    "online-retail-ii": (),
    "movielens-1m": ("silos.count=50", "silos.min_present=50", "silos.t_collude=5"),
}
"""Scenario -> its settings: stores as they are, and two data sets in 50 silos."""
BOOTSTRAP = 1000
PRIVATE = ("dp_popularity", "global", "fused")
"""Systems that depend on the budget and on the noise."""
UNITS = {
    "epsilon": "1",
    "mean": "headline",
    "spread": "headline",
    "above_alone": "headline",
    "low": "headline",
    "high": "headline",
    "above_alone_percent": "%",
    "above_own_cf_percent": "%",
}

Values = Mapping[str, NDArray[np.float64]]
"""system -> (n_seeds, n_test) headline metric of each test customer."""


def measure_seeds(prepared: Prepared, seeds: Sequence[int]) -> Values:
    """Return every system's values at one budget, with one row per noise seed."""
    runs: list[Mapping[str, NDArray[np.float64]]] = []
    for seed in seeds:
        scenario = prepared.scenario if not runs else replace(prepared.scenario, baselines=())
        model = federate(prepared, seed).model
        runs.append(
            measure(
                prepared.silos,
                model,
                prepared.plan,
                prepared.market.catalogue,
                scenario=scenario,
                progress=quiet,
            ).headline
        )
    return {system: np.stack([run[system] for run in runs if system in run]) for system in runs[0]}


def rows_of(prepared: Prepared, values: Values) -> list[Row]:
    """Return one row per system: mean and spread over seeds, and the paired difference.

    The difference to `silo_alone` is averaged over seeds for each customer, then bootstrapped
    over customers: its 95 % interval.
    """
    by_customer = {system: found.mean(axis=0) for system, found in values.items()}
    alone, own = by_customer["silo_alone"], by_customer["own_cf"]
    above = np.column_stack([found - alone for found in by_customer.values()])
    rng = np.random.default_rng(prepared.scenario.seed)
    rows: list[Row] = []
    intervals = bootstrap_means(above, rng, BOOTSTRAP).tolist()
    for (system, found), (mean, low, high) in zip(values.items(), intervals, strict=True):
        rows.append(
            {
                "scenario": prepared.scenario.name,
                "headline": prepared.scenario.evaluation.headline,
                "silos": len(prepared.silos),
                "epsilon": prepared.scenario.privacy.epsilon,
                "system": system,
                "mean": float(found.mean()),
                "spread": spread(found.mean(axis=1)),
                "above_alone": mean,
                "low": low,
                "high": high,
                "above_alone_percent": 100.0 * mean / float(alone.mean()),
                "above_own_cf_percent": 100.0 * (float(found.mean()) / float(own.mean()) - 1.0),
                "n_test": found.shape[1],
                "n_seeds": found.shape[0],
            }
        )
    return rows


def measure_job(
    name: str, settings: Sequence[str], epsilons: Sequence[float], seeds: Sequence[int]
) -> list[Row]:
    """Return the rows of one scenario; what depends on no budget is measured at the first."""
    first = prepare(load_scenario(name, ['models=["gram"]', *settings]))
    rows: list[Row] = []
    everywhere: Values = {}
    for epsilon in epsilons:
        prepared = at_epsilon(first, epsilon)
        if everywhere:
            bare = replace(prepared.scenario, baselines=())
            prepared = replace(prepared, scenario=bare)
        found = measure_seeds(prepared, seeds)
        everywhere = everywhere or {s: v[:1] for s, v in found.items() if s not in PRIVATE}
        rows += rows_of(prepared, {**found, **everywhere})
    return rows


def main(
    *,
    data_dir: Annotated[str, typer.Option(help="Folder that holds the data sets.")],
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
    seeds: Annotated[str, typer.Option(help="Noise seeds; the split stays at seed 0.")] = "0,1,2",
    epsilons: Annotated[str, typer.Option(help="Budgets.")] = "1,2,4,8",
    scenarios: Annotated[str, typer.Option(help="Which scenarios.")] = ",".join(JOBS),
) -> None:
    """Measure every system in stores and shops at several budgets."""
    names = scenarios.split(",")
    if unknown := sorted(set(names) - set(JOBS)):
        raise ConfigError(f"--scenarios {unknown} must be among {sorted(JOBS)}")
    rows: list[Row] = []
    for name in names:
        settings = [f"dataset.data_dir={data_dir}", *JOBS[name]]
        rows += measure_job(name, settings, parse_epsilons(epsilons), parse_seeds(seeds))
    record("shops", rows, out, seed=0, units=UNITS)


if __name__ == "__main__":
    typer.run(main)
