"""Quality of what needs nothing but releases: everybody's model, whole, imitated, or one part."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from fondaco.client.dataset import SiloDataset, as_timelines
from fondaco.shared.catalogue import Catalogue
from fondaco.shared.metrics import bootstrap_means, evaluate, rank_topk
from fondaco.shared.models import PublicFacts, Timelines
from fondaco.shared.models.published import GlobalParts, never_ranked
from fondaco.shared.models.terms import PlannedModels, day_of
from fondaco.shared.privacy.plan import RunPlan
from fondaco.shared.records import GlobalModel

from .rankings import LIST_LENGTH, batches
from .scenario import Scenario

Values = NDArray[np.float64]
Score = Callable[[Timelines, NDArray[np.bool_]], NDArray[np.float32]]
"""(customers, what is never ranked) -> scores."""


def customers(
    silos: Sequence[SiloDataset], scenario: Scenario, fold: str = "test"
) -> Iterator[tuple[Timelines, NDArray[np.bool_], csr_matrix]]:
    """Yield a fold's customers with what is known of them, what is never ranked, their targets."""
    now, repeats = day_of(getattr(scenario.dataset, f"{fold}_from")), scenario.dataset.keep_repeats
    for silo in silos:
        for some in batches(getattr(silo, fold)):
            timelines = as_timelines(silo, some.user_nums, some.history, now)
            mask = never_ranked(timelines, repeats=repeats)
            yield timelines, mask, some.target_matrix(silo.n_items)


def customer_values(
    silos: Sequence[SiloDataset], score: Score, scenario: Scenario, fold: str = "test"
) -> Values:
    """Return (n_eval,) the headline metric of every customer of a fold."""
    metric = scenario.evaluation.headline
    values = []
    for timelines, mask, targets in customers(silos, scenario, fold):
        ranking = rank_topk(score(timelines, mask), csr_matrix(mask), LIST_LENGTH)
        nobody = np.ones(timelines.n_items)
        values.append(evaluate(ranking, targets, (metric,), popularity=nobody)[metric])
    return np.concatenate(values)


def worth_of_parts(
    silos: Sequence[SiloDataset], parts: GlobalParts, alone: GlobalParts, scenario: Scenario
) -> dict[str, Any]:
    """Return what all parts together reach beside one that has the whole budget to itself.

    Args:
        silos: with test customers.
        parts: everybody's model.
        alone: the model whose only part got all that the others of `parts` cost.
        scenario: headline metric, bootstrap and seed.
    """
    together = customer_values(silos, parts.fused, scenario)
    single = customer_values(silos, alone.fused, scenario)
    rng = np.random.default_rng(scenario.seed)
    gain = bootstrap_means((together - single)[:, None], rng, scenario.evaluation.bootstrap)
    mean, low, high = (float(value) for value in gain.ravel())
    return {
        "part": alone.names[0],
        "alone": float(single.mean()),
        "together": float(together.mean()),
        "gain": {"mean": mean, "low": low, "high": high, "n": len(single)},
    }


def parts_of(plan: RunPlan, model: GlobalModel, catalogue: Catalogue) -> GlobalParts:
    """Return the scorer of a global model."""
    facts = PublicFacts(catalogue=catalogue, model=model)
    return GlobalParts(PlannedModels.of_plan(plan), facts)
