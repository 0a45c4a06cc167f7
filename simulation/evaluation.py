"""Ranks the whole catalogue for every test customer, system by system, and adds up.

Exact per-silo figures exist only here, in a simulation that owns every silo; nothing of them
crosses the wire.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from fondaco.client.dataset import Fold, SiloDataset
from fondaco.client.serving import Recommender, fit_recommender
from fondaco.shared.catalogue import Catalogue
from fondaco.shared.config import FusionConfig, unknown_name
from fondaco.shared.errors import ConfigError
from fondaco.shared.metrics import (
    DEFAULT_METRICS,
    bootstrap_means,
    coverage,
    evaluate,
    parse_metric,
)
from fondaco.shared.models import PublicFacts
from fondaco.shared.models.published import GlobalParts
from fondaco.shared.models.terms import PlannedModels
from fondaco.shared.privacy.plan import RunPlan
from fondaco.shared.records import GlobalModel

from .baselines import BASELINES
from .rankings import LIST_LENGTH, EvalSet, Rankings, batches, pool, pool_training, rank_published
from .scenario import Scenario

COLD_METRICS = ("ndcg@20", "recall@20")


PERSONAL = ("content_alone", "own_cf", "silo_alone", "fused")
"""What a silo can do: public facts of what a customer took; own statistics; both; both with
everybody's model. `silo_alone` is tuned exactly as `fused` is, only without the global part."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """Every system's quality, as `result.json` holds it.

    Attributes:
        headline: system -> (n_test,) headline metric of each test customer, paired over systems.
        cold_ndcg: system -> (n_cold,) NDCG@20 of cold items, ranked among themselves, for the
            customers who took one.
        silo_nums: (n_test,) position of each test customer's silo.
        cold_rows: (n_cold,) their places among the test customers.
        no_history: (n_test,) customers without any history.
    """

    headline: Mapping[str, NDArray[np.float64]]
    cold_ndcg: Mapping[str, NDArray[np.float64]]
    silo_nums: NDArray[np.int64]
    cold_rows: NDArray[np.int64]
    no_history: NDArray[np.bool_]
    quality: Mapping[str, Mapping[str, Mapping[str, float]]]
    per_silo: Sequence[Mapping[str, Any]]
    cold: Mapping[str, Mapping[str, Any]]
    mix: Mapping[str, Mapping[str, float]]
    timings_s: Mapping[str, float]


def check_evaluation(scenario: Scenario) -> None:
    """Refuse, before anything is spent, what could not be measured afterwards.

    Raises:
        ConfigError: a baseline or metric is unknown, or a number is out of range.
    """
    for name in scenario.baselines:
        if name not in BASELINES:
            raise ConfigError(unknown_name(name, sorted(BASELINES), "baseline"))
    headline = parse_metric(scenario.evaluation.headline)
    if headline.kind == "coverage" or headline.k > LIST_LENGTH:
        raise ConfigError(
            f"evaluation.headline={str(headline)!r} must be a metric per customer of at most "
            f"{LIST_LENGTH} items"
        )
    for name, least in (("bootstrap", 1), ("silos", 0)):
        if getattr(scenario.evaluation, name) < least:
            value = getattr(scenario.evaluation, name)
            raise ConfigError(f"evaluation.{name}={value} must be at least {least}")
    if scenario.seed < 0:
        raise ConfigError(f"seed={scenario.seed} must be at least 0")


def measure(
    silos: Sequence[SiloDataset],
    model: GlobalModel,
    plan: RunPlan,
    catalogue: Catalogue,
    *,
    scenario: Scenario,
    progress: Progress,
) -> Measured:
    """Rank for every test customer with every system and add up.

    Args:
        silos: all silos, in order.
        model: what the federation learned.
        plan: under which it did.
        catalogue: the public items.
        scenario: baselines, fusion and evaluation knobs.
        progress: told per system and per silo.

    Raises:
        ConfigError: there is no test customer.
    """
    chosen = _chosen_silos(silos, scenario)
    test = pool(chosen, "test", keep_repeats=scenario.dataset.keep_repeats)
    if not test.targets.shape[0]:
        raise ConfigError("no silo has a test customer; check the split in [dataset]")
    train = pool_training(silos)
    rankings = Rankings(test, train)
    _rank_baselines(rankings, silos, train, scenario, progress)
    facts = PublicFacts(catalogue=catalogue, model=model)
    parts = GlobalParts(PlannedModels.of_plan(plan), facts)
    rank_published(rankings, chosen, parts, scenario)
    mix = _rank_personal(rankings, chosen, parts, catalogue, scenario=scenario, progress=progress)
    return _summarise(rankings, chosen, scenario, mix)


def _chosen_silos(silos: Sequence[SiloDataset], scenario: Scenario) -> list[SiloDataset]:
    """All silos, or as many as `evaluation.silos` says, drawn with the seed."""
    wanted = scenario.evaluation.silos
    if not 0 < wanted < len(silos):
        return list(silos)
    rng = np.random.default_rng(scenario.seed)
    return [silos[num] for num in sorted(rng.choice(len(silos), size=wanted, replace=False))]


def _rank_baselines(
    rankings: Rankings,
    silos: Sequence[SiloDataset],
    train: csr_matrix,
    scenario: Scenario,
    progress: Progress,
) -> None:
    valid = pool(silos, "valid", keep_repeats=False)
    for done, name in enumerate(scenario.baselines):
        progress("baselines", done, len(scenario.baselines))
        rng = np.random.default_rng(scenario.seed)
        with rankings.timed(name):
            scorer = BASELINES[name](
                train, valid.history, valid.targets, scenario.evaluation.headline, rng
            )
            rankings.rank(name, scorer)
    progress("baselines", len(scenario.baselines), len(scenario.baselines))


def _rank_personal(
    rankings: Rankings,
    silos: Sequence[SiloDataset],
    parts: GlobalParts,
    catalogue: Catalogue,
    *,
    scenario: Scenario,
    progress: Progress,
) -> dict[str, dict[str, float]]:
    """Rank with what each silo can do alone and together; return each silo's mix."""
    mixes: dict[str, dict[str, float]] = {}
    start = 0
    for done, silo in enumerate(silos):
        progress("personal models", done, len(silos))
        with rankings.timed("personal models"):
            score, mixes[silo.silo_id] = _fit_personal(silo, parts, catalogue, scenario)
            for fold in batches(silo.test):
                for system, scores in score(fold).items():
                    rankings.rank_silo(system, scores, start)
                start += len(fold.user_nums)
    progress("personal models", len(silos), len(silos))
    return mixes


def _fit_personal(
    silo: SiloDataset, parts: GlobalParts, catalogue: Catalogue, scenario: Scenario
) -> tuple[Callable[[Fold], dict[str, NDArray[np.float32]]], dict[str, float]]:
    """What scores a fold's customers by system of PERSONAL, and the mix of `fused`."""

    def fitted(everybody: GlobalParts | None, fusion: FusionConfig) -> Recommender:
        return fit_recommender(
            silo,
            catalogue,
            everybody,
            fusion,
            metric=scenario.evaluation.headline,
            declared_users=scenario.dataset.declared_users,
            repeats=scenario.dataset.keep_repeats,
        )

    together = fitted(parts, scenario.fusion)
    own = fitted(None, replace(scenario.fusion, content=False))
    apart = together if scenario.fusion.personal == "own" else fitted(None, scenario.fusion)

    def score(fold: Fold) -> dict[str, NDArray[np.float32]]:
        fused = together.score(fold, silo.known)
        alone = apart.score(fold, silo.known).scores if fused.alone is None else fused.alone
        own_cf = own.score(fold, silo.known).scores
        content = together.content(fold, silo.known)
        systems = (content, own_cf, alone, fused.scores)
        return dict(zip(PERSONAL, systems, strict=True))

    return score, together.mix


def _summarise(
    rankings: Rankings,
    silos: Sequence[SiloDataset],
    scenario: Scenario,
    mix: Mapping[str, Mapping[str, float]],
) -> Measured:
    test, popularity = rankings.test, rankings.popularity
    names = tuple(dict.fromkeys((*DEFAULT_METRICS, scenario.evaluation.headline)))
    values = {
        system: evaluate(ranking, test.targets, names, popularity=popularity)
        for system, ranking in rankings.by_system.items()
    }
    quality = _with_intervals(values, scenario)
    for system, ranking in rankings.by_system.items():
        share = coverage(ranking, len(popularity), 10)
        quality[system]["coverage@10"] = {"mean": share, "low": share, "high": share, "n": 1}
    headline = scenario.evaluation.headline
    cold = _cold_values(rankings)
    return Measured(
        headline={system: metrics[headline] for system, metrics in values.items()},
        cold_ndcg={system: metrics[COLD_METRICS[0]] for system, metrics in cold.items()},
        silo_nums=test.silo_nums,
        cold_rows=rankings.cold_rows,
        no_history=np.diff(test.history.indptr) == 0,
        quality=quality,
        per_silo=_per_silo(values, test, silos),
        cold={
            "customers": _cold_customers(values, test),
            "items": _cold_items(rankings, cold),
        },
        mix=mix,
        timings_s=rankings.timings_s,
    )


def _with_intervals(
    values: Mapping[str, Mapping[str, NDArray[np.float64]]], scenario: Scenario
) -> dict[str, dict[str, dict[str, float]]]:
    keys = [(system, metric) for system, metrics in values.items() for metric in metrics]
    columns = np.column_stack([values[system][metric] for system, metric in keys])
    rng = np.random.default_rng(scenario.seed)
    estimates = bootstrap_means(columns, rng, scenario.evaluation.bootstrap)
    quality: dict[str, dict[str, dict[str, float]]] = {system: {} for system in values}
    for (system, metric), (mean, low, high) in zip(keys, estimates.tolist(), strict=True):
        quality[system][metric] = {"mean": mean, "low": low, "high": high, "n": len(columns)}
    return quality


def _per_silo(
    values: Mapping[str, Mapping[str, NDArray[np.float64]]],
    test: EvalSet,
    silos: Sequence[SiloDataset],
) -> list[dict[str, Any]]:
    """Means per silo; exact, hence of the simulation only."""
    rows = []
    for num, silo in enumerate(silos):
        mine = test.silo_nums == num
        row: dict[str, Any] = {
            "silo_id": silo.silo_id,
            "n_customers": silo.n_users,
            "n_test": int(mine.sum()),
        }
        if mine.any():
            for system, metrics in values.items():
                row[system] = {m: float(v[mine].mean()) for m, v in metrics.items()}
        rows.append(row)
    return rows


def _cold_customers(
    values: Mapping[str, Mapping[str, NDArray[np.float64]]], test: EvalSet
) -> dict[str, Any]:
    """Test customers without any history."""
    cold = np.diff(test.history.indptr) == 0
    part: dict[str, Any] = {"n": int(cold.sum())}
    if cold.any():
        for system, metrics in values.items():
            part[system] = {
                name: {"mean": float(metrics[name][cold].mean())} for name in COLD_METRICS
            }
    return part


def _cold_values(rankings: Rankings) -> dict[str, Mapping[str, NDArray[np.float64]]]:
    """Return system -> metric -> (n_cold,) for the customers who took a cold item."""
    targets, popularity = rankings.cold_targets, rankings.popularity
    return {
        system: evaluate(ranking, targets, COLD_METRICS, popularity=popularity)
        for system, ranking in rankings.cold_by_system.items()
    }


def _cold_items(
    rankings: Rankings, values: Mapping[str, Mapping[str, NDArray[np.float64]]]
) -> dict[str, Any]:
    """Items that nobody had taken at a silo, ranked among themselves for those who then did."""
    part: dict[str, Any] = {
        "n": int(rankings.test.cold.any(axis=0).sum()),
        "customers who took one": len(rankings.cold_rows),
    }
    if len(rankings.cold_rows):
        for system, metrics in values.items():
            part[system] = {name: {"mean": float(metrics[name].mean())} for name in COLD_METRICS}
    return part
