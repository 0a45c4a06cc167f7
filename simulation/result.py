"""What a run leaves behind: `result.json`, schema 2."""

import json
import os
import platform
import resource
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

from fondaco.server.app import Outcome
from fondaco.server.global_model import model_digest
from fondaco.server.plan_view import release_facts
from fondaco.shared.calibration import epsilon_in_silos
from fondaco.shared.errors import ConfigError
from fondaco.shared.models import MODELS
from fondaco.shared.models.terms import BUCKET_EDGES, PlannedModels
from fondaco.shared.privacy.plan import MASKED, RunPlan

from .evaluation import Measured
from .marketplace import Marketplace
from .partition import partition_notes
from .scenario import Scenario

SCHEMA = 2
_VERSIONS = (
    "fondaco",
    "flwr",
    "numpy",
    "scipy",
    "scikit-learn",
    "torch",
    "opacus",
    "dp-accounting",
    "cryptography",
)


_HIDDEN = {
    "simulated": "secure aggregation is simulated: sums are taken in the clear, so against this "
    "coordinator only the epsilon of clear shares would hold",
    MASKED: "secure aggregation is masked-sum: every vector that leaves a silo is under masks that "
    "only the sum over the silos loses, but the keys by which silos know each other follow from "
    "the seed, so nothing is claimed of this run",
}
"""What a reader of a result must know of how its shares were hidden."""


def build_result(
    scenario: Scenario,
    market: Marketplace,
    plan: RunPlan,
    *,
    outcome: Outcome,
    measured: Measured,
    about_global: Mapping[str, Any],
    timings_s: Mapping[str, float],
) -> dict[str, Any]:
    """Return what `result.json` holds (schema 2).

    Args:
        scenario: what was asked for.
        market: the data.
        plan: what was promised.
        outcome: what the federation gave.
        measured: how good it is.
        about_global: `models` (see `model_facts`), `students` that imitate the global model,
            and `worth` of all its parts beside the first alone.
        timings_s: stage -> wall time [s].
    """
    fewest = {
        kind: min(len(result.present) for result in group)
        for kind, group in groupby(outcome.rounds, key=lambda result: result.kind)
    }
    return {
        "schema": SCHEMA,
        "scenario": scenario.name,
        "title": scenario.title or scenario.name,
        "seed": scenario.seed,
        "code_digest": plan.code_digest,
        "model_digest": model_digest(outcome.model),
        "machine": _machine(),
        "versions": {"python": platform.python_version()} | {n: version(n) for n in _VERSIONS},
        "dataset": {
            "name": market.name,
            **asdict(market.sizes),
            "n_silos": plan.cohort.n_silos,
            "split": dict(plan.public),
        },
        "privacy": {
            **privacy_facts(plan),
            "releases": [
                {**release, "n_silos": fewest[release["kind"]]} for release in release_facts(plan)
            ],
        },
        "activity_edges": list(BUCKET_EDGES),
        **about_global,
        "headline": scenario.evaluation.headline,
        "quality": measured.quality,
        "per_silo": measured.per_silo,
        "cold": measured.cold,
        "mix": measured.mix,
        "epsilons": _epsilons(plan),
        "plan": plan_facts(plan),
        **_federation_facts(outcome),
        "notes": _notes(scenario, market, plan),
        "timings_s": dict(timings_s),
        "peak_rss_bytes": peak_rss_bytes(),
    }


def _federation_facts(outcome: Outcome) -> dict[str, Any]:
    return {
        "spectrum": {
            "eigenvalues": [round(float(v), 4) for v in outcome.model.spectrum],
            "noise_edge": round(float(outcome.model.noise_edge), 4),
        },
        "dropped": [
            {"silo_id": d.silo_id, "round": d.round_num, "reason": d.reason}
            for d in outcome.dropped
        ],
    }


def privacy_facts(plan: RunPlan) -> dict[str, Any]:
    """Return what `plan` promises a customer."""
    epsilons = plan.epsilons()
    return {
        "unit": plan.unit,
        "adjacency": plan.adjacency,
        "target_delta": float(plan.target_delta),
        "epsilon": epsilons["epsilon"],
        "epsilon_rdp": epsilons["epsilon_rdp"],
        "trust": plan.trust,
        "secure_aggregation": plan.secure_aggregation,
        "claims": "none (simulation, seeded noise)",
    }


def model_facts(
    plan: RunPlan, outcome: Outcome, step_ratios: Mapping[str, float]
) -> dict[str, dict[str, Any]]:
    """Return what each part of the global model is, costs and weighs.

    Args:
        plan: shares and sizes.
        outcome: learned weights and times.
        step_ratios: model -> time of a private step over the same step without privacy [1].
    """
    planned = PlannedModels.of_plan(plan)
    costs: Counter[str] = Counter()
    for event in plan.releases:
        costs[event.kind] += plan.cost(event)
    weights = dict(zip(planned.parts, outcome.model.fusion.T.tolist(), strict=True))
    return {
        name: {
            "n_params": planned.n_parameters.get(name, MODELS[name].dim(terms, planned.sizes)),
            "epsilon_share": costs[name] / plan.budget_units,
            "fusion_weight": [round(float(weight), 4) for weight in weights[name]],
            "train_s": round(outcome.seconds.get(name, 0.0), 3),
            "step_ratio": round(step_ratios[name], 3) if name in step_ratios else None,
        }
        for name, terms in planned.terms.items()
    }


def _epsilons(plan: RunPlan) -> dict[str, Any]:
    epsilons = plan.epsilons()
    return {
        "server_and_colluders": epsilons["epsilon"],
        "all_honest": epsilons["all_honest"],
        "masking_broken": epsilons["clear_shares"],
        "silos": {str(k): epsilon_in_silos(plan, k) for k in (1, 2, 3)},
    }


def plan_facts(plan: RunPlan) -> dict[str, Any]:
    """Return the public facts of `plan` that are not about a release."""
    return {
        "digest": plan.digest,
        "n_silos": plan.cohort.n_silos,
        "n_min": plan.cohort.n_min,
        "t_collude": plan.cohort.t_collude,
        "head": plan.head,
        "grid": plan.grid,
        "key_agreement": plan.key_agreement,
        "ring_bits": plan.ring_bits,
        "order": plan.order,
        "budget_units": plan.budget_units,
    }


def _notes(scenario: Scenario, market: Marketplace, plan: RunPlan) -> list[str]:
    notes = [*market.notes, *partition_notes(market, scenario.silos)]
    if plan.secure_aggregation in _HIDDEN:
        notes.append(_HIDDEN[plan.secure_aggregation])
    if scenario.tuned_on:
        notes.append(f"knobs of this scenario were tuned on: {scenario.tuned_on}")
    notes.append("noise is seeded for reproducibility: this run itself protects nobody")
    notes.append("exact figures per silo exist in the simulation only; none crosses the wire")
    return notes


def _machine() -> dict[str, Any]:
    return {
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
    }


def peak_rss_bytes() -> int:
    """Return the most memory that this process has held [bytes]."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def write_result(result: Mapping[str, Any], folder: Path) -> Path:
    """Write `result.json` into `folder`, whole or not at all, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "result.json"
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(result, indent=1, ensure_ascii=False), encoding="utf-8")
    partial.replace(path)
    return path


def read_result(path: Path) -> dict[str, Any]:
    """Return the result at `path`.

    Raises:
        ConfigError: it is missing or no result of this schema.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as a result: {error}") from error
    if not isinstance(result, dict) or result.get("schema") != SCHEMA:
        raise ConfigError(f"{path} is no result of schema {SCHEMA}")
    return result
