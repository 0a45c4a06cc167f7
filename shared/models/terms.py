"""What a plan says about its models: their typed terms, their sizes, the parts of the fusion."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import numpy as np

from fondaco.shared.chain.canonical import canonical_json
from fondaco.shared.errors import ConfigError
from fondaco.shared.privacy.plan import RunPlan

from . import MODELS
from .base import Array32, IterativeModel, NetworkModel, RoundTerms, Sizes, Terms

POPULARITY = "popularity"
FUSION = "fusion"
BUCKET_EDGES = (5, 20, 60)
"""A customer's activity bucket is how many of these the history's items reach."""
FUSION_CLIP = 0.5
"""Bound on the l2 norm of a customer's gains over all settings [metric]."""
FUSION_WEIGHTS = (0.25, 0.5, 1.0, 2.0)
"""Weights tried for a part beside the reference part, which weighs 1. No more than 2: right after
training a part that follows the moment looks best alone, and no longer weeks later."""


@dataclass(frozen=True, kw_only=True)
class PlannedModels:
    """The models of a plan, in the order of MODELS.

    Attributes:
        terms: model -> typed terms.
        sizes: public lengths.
    """

    terms: Mapping[str, Terms]
    sizes: Sizes

    @classmethod
    def of_plan(cls, plan: RunPlan) -> "PlannedModels":
        """Return the models of `plan`.

        Raises:
            ConfigError: it names a model or a term that this code does not know.
        """
        return _planned(canonical_json(plan.models), plan.n_items, plan.head)

    @property
    def iterative(self) -> tuple[str, ...]:
        """Models that are learned over several rounds."""
        return tuple(name for name in self.terms if isinstance(MODELS[name], IterativeModel))

    @property
    def parts(self) -> tuple[str, ...]:
        """What the global model can score with; the first is the reference of the fusion."""
        return (*self.terms, POPULARITY)

    @property
    def n_parameters(self) -> dict[str, int]:
        """Iterative model -> its parameters."""
        return {n: MODELS[n].n_parameters(self.terms[n], self.sizes) for n in self.iterative}

    @property
    def fusion_shape(self) -> tuple[int, int]:
        """Buckets and parts of the fusion weights."""
        return len(BUCKET_EDGES) + 1, len(self.parts)

    @property
    def fusion_dim(self) -> int:
        """Numbers of the fusion statistic: buckets times settings."""
        return self.fusion_shape[0] * len(FUSION_WEIGHTS) * (len(self.parts) - 1)

    def model(self, name: str) -> tuple[IterativeModel[Any], RoundTerms]:
        """Return an iterative model and its terms.

        Raises:
            ConfigError: `name` is no iterative model of the plan.
        """
        model, terms = MODELS.get(name), self.terms.get(name)
        if not isinstance(model, IterativeModel) or not isinstance(terms, RoundTerms):
            raise ConfigError(f"{name!r} is no iterative model of the plan")
        return model, terms

    def split(self, parameters: Array32) -> dict[str, Array32]:
        """Return every iterative model's part of `GlobalModel.parameters`."""
        sizes = self.n_parameters
        ends = np.cumsum([0, *sizes.values()])
        return {
            name: parameters[start:stop]
            for name, start, stop in zip(sizes, ends[:-1], ends[1:], strict=True)
        }


def trains_locally(plan: RunPlan, kind: str) -> bool:
    """Return whether silos take local steps for `kind` and release how far they moved."""
    planned = PlannedModels.of_plan(plan)
    return (
        plan.trust == "silo"
        and kind in planned.iterative
        and isinstance(planned.model(kind)[0], NetworkModel)
    )


def combiner_of(plan: RunPlan, kind: str) -> str:
    """Return how the silos' releases of `kind` are joined: `sum`, or a model's combiner."""
    if not trains_locally(plan, kind):
        return "sum"
    return PlannedModels.of_plan(plan).model(kind)[1].combiner


def needs_model(plan: RunPlan) -> set[str]:
    """Return the kinds of release that build upon a global model."""
    return {FUSION, *PlannedModels.of_plan(plan).iterative}


def training_ends(plan: RunPlan) -> float:
    """Return the public moment at which training ends [days]; infinite without a clock."""
    return day_of(plan.public.get("valid_from", ""))


def day_of(text: str) -> float:
    """Return an ISO date or time as days since 1970-01-01; infinite for no text.

    Raises:
        ConfigError: it is no date.
    """
    if not text:
        return math.inf
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} must be a date such as 2017-11-01") from error
    return (moment - datetime(1970, 1, 1, tzinfo=moment.tzinfo)).total_seconds() / 86400.0


def in_order(terms: Mapping[str, Terms]) -> dict[str, Terms]:
    """Return `terms` in the order of MODELS."""
    return {name: terms[name] for name in MODELS if name in terms}


@lru_cache(maxsize=16)
def _planned(models: str, n_items: int, head: int) -> PlannedModels:
    named: dict[str, dict[str, str]] = json.loads(models)
    unknown = sorted(set(named) - set(MODELS))
    if unknown:
        raise ConfigError(f"the plan names models {unknown}; known: {sorted(MODELS)}")
    terms = {name: MODELS[name].terms.from_text(texts) for name, texts in named.items()}
    return PlannedModels(terms=in_order(terms), sizes=Sizes(n_items=n_items, head=head))
