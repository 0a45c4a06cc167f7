"""Computes each planned statistic on a silo's training rows: rows -> clipped sum."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fondaco.shared.errors import ConfigError
from fondaco.shared.models import MODELS, FactorModel, NetworkModel, PublicFacts, Timelines
from fondaco.shared.models.base import Array32, RoundTerms
from fondaco.shared.models.published import GlobalParts
from fondaco.shared.models.terms import FUSION, PlannedModels
from fondaco.shared.privacy.clipping import ClippedSum, gram_sum, popularity_sum
from fondaco.shared.privacy.contribution import Histories
from fondaco.shared.privacy.gradients import GradientSum
from fondaco.shared.privacy.noise import Sample
from fondaco.shared.privacy.plan import RunPlan

from .dataset import SiloDataset
from .fusion_gains import fusion_gains

Array = NDArray[np.float64]
FACTORS_AT_ONCE = 1024


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """What a statistic is computed from.

    Attributes:
        histories: distinct training items of each customer.
        timelines: the same customers' training rows in order.
        head: (n_head,) items of the Gram; (0,) for other statistics.
        facts: the global model that an iterative model builds upon, None before there is one.
    """

    plan: RunPlan
    dataset: SiloDataset
    histories: Histories
    timelines: Timelines
    head: NDArray[np.int64]
    facts: PublicFacts | None

    @property
    def ready(self) -> PublicFacts:
        """The facts.

        Raises:
            ConfigError: there is none (the agent checks this first).
        """
        if self.facts is None:
            raise ConfigError("the global model has not arrived yet")
        return self.facts


Statistic = Callable[[Task, Sample], ClippedSum]


def _popularity(task: Task, sample: Sample) -> ClippedSum:
    del sample  # everybody, always
    return popularity_sum(task.histories, task.plan.grid)


def _gram(task: Task, sample: Sample) -> ClippedSum:
    del sample
    return gram_sum(task.histories.restrict(task.head), task.plan.grid)


def _fusion(task: Task, sample: Sample) -> ClippedSum:
    planned = PlannedModels.of_plan(task.plan)
    parts = GlobalParts(planned, task.ready)
    return fusion_gains(task.dataset, task.plan, parts, task.timelines.now, sample)


STATISTICS: Mapping[str, Statistic] = {
    "popularity": _popularity,
    "gram": _gram,
    FUSION: _fusion,
}
"""Sums that are released once; iterative models have gradients instead."""


def computable(plan: RunPlan) -> set[str]:
    """Return the kinds of release that this code can compute for `plan`."""
    return set(STATISTICS) | set(PlannedModels.of_plan(plan).iterative)


def clipped_sum(task: Task, kind: str, parameters: Array32, sample: Sample) -> ClippedSum:
    """Return the clipped sum of the sampled customers for release `kind`.

    Args:
        task: what it is computed from.
        kind: a statistic, or an iterative model of the plan.
        parameters: (n_parameters,) of that model; (0,) for a statistic.
        sample: who takes part.
    """
    if kind in STATISTICS:
        return STATISTICS[kind](task, sample)
    model, terms = PlannedModels.of_plan(task.plan).model(kind)
    event = next(event for event in task.plan.releases if event.kind == kind)
    total = GradientSum(event.dim, terms.clip_norm, task.plan.grid, sample)
    if isinstance(model, NetworkModel):
        from .dpsgd import clipped_gradient  # noqa: PLC0415  (torch takes two seconds to import)

        network = _network(kind, terms, task.ready)
        return clipped_gradient(network, parameters, task.timelines, total, sample.user_nums)
    if not isinstance(model, FactorModel):
        raise ConfigError(f"{kind} has neither a network nor factors")
    for start in range(0, len(sample.user_nums), FACTORS_AT_ONCE):
        users = sample.user_nums[start : start + FACTORS_AT_ONCE]
        some = task.timelines.take(users)
        total.add(users, model.factors(terms, task.ready, parameters, some))
    return total.total()


def local_mover(task: Task, kind: str) -> Callable[[Array, Array], Array]:
    """Return what moves parameters along noisy sums in a silo's local steps; sees no data."""
    from .dpsgd import LocalSteps  # noqa: PLC0415

    _, terms = PlannedModels.of_plan(task.plan).model(kind)
    declared = float(task.plan.public["declared_users"]) / task.plan.cohort.n_silos
    network = _network(kind, terms, task.ready)
    return LocalSteps(network, terms.local_rate, declared * terms.sampling_rate).move


@lru_cache(maxsize=8)
def _network(kind: str, terms: RoundTerms, facts: PublicFacts) -> Any:  # noqa: ANN401  (torch type)
    """The network, checked; shared by all silos of one process, which take turns."""
    from .dpsgd import check_network  # noqa: PLC0415

    model = MODELS[kind]
    if not isinstance(model, NetworkModel):
        raise ConfigError(f"{kind} has no network")
    network = model.network(terms, facts)
    check_network(network)
    return network
