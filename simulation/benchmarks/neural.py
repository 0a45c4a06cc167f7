"""Does everybody's model with neural parts beat the Gram alone at the same total epsilon?

Both spend the same budget on the same customers: the Gram alone all of it, the fused model a
part of it on each of its models and on what they are worth to each other. A budget so large that
hardly any noise is left tells a weak model from a noisy one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from fondaco.shared.errors import ConfigError
from fondaco.shared.metrics import bootstrap_means
from fondaco.shared.models.published import GlobalParts

from ..global_quality import Score, Values, customer_values, parts_of
from ..library import load_scenario
from ..run import Prepared, parse_epsilons, prepare
from .common import Row, record
from .runs import at_epsilon, federate, parse_seeds

JOBS: Mapping[str, Sequence[str]] = {
    "online-retail-ii": ("gram", "sequence"),
    "complete-journey": ("gram", "sequence"),
}
"""Scenario -> models of its fused model; the first is also run alone."""
NO_NOISE = 100.0
"""Budget that leaves hardly any noise [1]; far larger ones take minutes to plan."""
NO_NOISE_HEAD = 1500
"""Items of the Gram there: as many as real budgets have, not what the rule would allow."""
BOOTSTRAP = 1000
UNITS = {
    "epsilon": "1",
    "mean": "headline",
    "above": "%",
    "low": "%",
    "high": "%",
    "share": "1",
    "weight": "1",
}
ALL_SEEDS = "all"


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """One noise seed at one budget.

    Attributes:
        values: system -> (n_test,) headline metric of each test customer; the first system is
            the Gram alone with the whole budget.
        weights: system -> mean weight over activity buckets in the fused model.
    """

    values: Mapping[str, Values]
    weights: Mapping[str, float]


def measure_seed(alone: Prepared, fused: Prepared, seed: int) -> Measured:
    """Return every system's values with the noise of `seed`.

    Raises:
        ConfigError: `alone` has more models than one.
    """
    if len(alone.scenario.models) != 1:
        raise ConfigError(f"models={list(alone.scenario.models)} must be one model, alone")
    single, parts = _federated(alone, seed), _federated(fused, seed)
    values = {
        f"{single.names[0]} alone": customer_values(alone.silos, single.fused, alone.scenario)
    }
    weights = {}
    for num, name in enumerate(parts.names[:-1]):
        system = f"{name} in it"
        weights[system] = float(parts.model.fusion[:, num].mean())
        values[system] = customer_values(fused.silos, _scorer(parts, name), fused.scenario)
    values["fused"] = customer_values(fused.silos, parts.fused, fused.scenario)
    return Measured(values=values, weights=weights)


def rows_of(fused: Prepared, seed: int | str, found: Sequence[Measured]) -> list[Row]:
    """Return one row per system: its mean, and how far it lies above the Gram alone.

    Paired by customer, averaged over `found` first, then bootstrapped over customers: the 95 %
    interval, relative to the Gram alone.
    """
    systems = list(found[0].values)
    values = {name: np.mean([one.values[name] for one in found], axis=0) for name in systems}
    alone = values[systems[0]]
    above = np.column_stack([values[name] - alone for name in systems])
    rng = np.random.default_rng(fused.scenario.seed)
    intervals = 100.0 * bootstrap_means(above, rng, BOOTSTRAP) / alone.mean()
    shares = _shares(fused)
    return [
        {
            "scenario": fused.scenario.name,
            "headline": fused.scenario.evaluation.headline,
            "epsilon": fused.scenario.privacy.epsilon,
            "seed": seed,
            "system": name,
            "mean": float(values[name].mean()),
            "above": mean,
            "low": low,
            "high": high,
            "share": shares.get(name.removesuffix(" in it"), 1.0),
            "weight": float(np.mean([one.weights.get(name, 1.0) for one in found])),
            "n_test": len(alone),
        }
        for name, (mean, low, high) in zip(systems, intervals.tolist(), strict=True)
    ]


def measure_job(
    name: str, models: Sequence[str], settings: Sequence[str], seeds: Sequence[int]
) -> list[Row]:
    """Return the rows of one scenario at its budget: each seed's, and over all seeds.

    Args:
        name: scenario.
        models: of the fused model; the first is also run alone.
        settings: of both.
        seeds: of the noise.
    """
    alone = prepare(load_scenario(name, [*settings, f'models=["{models[0]}"]']))
    listed = ",".join(f'"{model}"' for model in models)
    scenario = load_scenario(name, [*settings, f"models=[{listed}]"])
    fused = at_epsilon(replace(alone, scenario=scenario), scenario.privacy.epsilon)
    found = [measure_seed(alone, fused, seed) for seed in seeds]
    rows = [
        row for seed, one in zip(seeds, found, strict=True) for row in rows_of(fused, seed, [one])
    ]
    return rows + rows_of(fused, ALL_SEEDS, found)


def _federated(prepared: Prepared, seed: int) -> GlobalParts:
    model = federate(prepared, seed).model
    return parts_of(prepared.plan, model, prepared.market.catalogue)


def _scorer(parts: GlobalParts, name: str) -> Score:
    """Score with one part alone."""
    return lambda timelines, _: parts.score(name, timelines)


def _shares(prepared: Prepared) -> dict[str, float]:
    """Kind of release -> its part of the budget."""
    shares: dict[str, float] = {}
    for event in prepared.plan.releases:
        spent = prepared.plan.cost(event) / prepared.plan.budget_units
        shares[event.kind] = shares.get(event.kind, 0.0) + spent
    return shares


def main(
    *,
    data_dir: Annotated[str, typer.Option(help="Folder that holds the data sets.")],
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
    seeds: Annotated[str, typer.Option(help="Noise seeds; the split stays at seed 0.")] = "0,1,2",
    epsilons: Annotated[str, typer.Option(help="Budgets.")] = f"4,8,{NO_NOISE:g}",
    scenarios: Annotated[str, typer.Option(help="Which scenarios.")] = ",".join(JOBS),
) -> None:
    """Hold fused models with neural parts against the Gram alone, with and without noise."""
    names = scenarios.split(",")
    if unknown := sorted(set(names) - set(JOBS)):
        raise ConfigError(f"--scenarios {unknown} must be among {sorted(JOBS)}")
    rows: list[Row] = []
    for name in names:
        for epsilon in parse_epsilons(epsilons):
            settings = [f"dataset.data_dir={data_dir}", f"privacy.epsilon={epsilon}"]
            drawn = parse_seeds(seeds)
            if epsilon >= NO_NOISE:
                settings, drawn = [*settings, f"privacy.head={NO_NOISE_HEAD}"], drawn[:1]
            rows += measure_job(name, JOBS[name], settings, drawn)
    record("neural", rows, out, seed=0, units=UNITS)


if __name__ == "__main__":
    typer.run(main)
