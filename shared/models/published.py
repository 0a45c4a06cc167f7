"""Everybody's model, scored: each part of it, and their fusion with the learned weights."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from fondaco.shared.fusion import FUSERS
from fondaco.shared.records import GlobalModel

from .base import PublicFacts, Timelines
from .terms import BUCKET_EDGES, POPULARITY, PlannedModels

Array32 = NDArray[np.float32]


class Published:
    """The Gram part as it was published: item factors, no own statistics."""

    def __init__(self, model: GlobalModel) -> None:
        self._model = model

    def score(self, history: csr_matrix) -> Array32:
        """Return (n_users, n_items) scores; by popularity for a customer without head items."""
        known = history[:, self._model.head]
        scores = np.asarray((known @ self._model.item_in) @ self._model.item_out.T)
        scores[np.diff(known.tocsr().indptr) == 0] = self._model.popularity
        return scores.astype(np.float32)


class GlobalParts:
    """Scores customers with every part of everybody's model.

    Args:
        planned: the models of the plan.
        facts: the catalogue and the global model.
    """

    def __init__(self, planned: PlannedModels, facts: PublicFacts) -> None:
        self._planned = planned
        self._facts = facts
        self._parameters = planned.split(facts.model.parameters)

    @property
    def model(self) -> GlobalModel:
        """The global model."""
        return self._facts.model

    @property
    def has_gram(self) -> bool:
        """Whether a Gram was released, with which own statistics can be joined."""
        return bool(self.model.gram_factors.shape[1])

    @property
    def names(self) -> tuple[str, ...]:
        """The parts, the reference first."""
        return self._planned.parts

    def score(self, name: str, timelines: Timelines) -> Array32:
        """Return (n_users, n_items) scores of one part; NaN where it cannot tell."""
        if name == POPULARITY:
            floor = max(float(self._facts.model.popularity.max()) * 1e-3, 1e-9)
            chance = np.log(np.maximum(self._facts.model.popularity, floor))
            return np.tile(chance.astype(np.float32), (timelines.n_users, 1))
        if name not in self._planned.iterative:
            return Published(self._facts.model).score(timelines.incidence())
        model, terms = self._planned.model(name)
        return model.scores(terms, self._facts, self._parameters[name], timelines)

    def fused(self, timelines: Timelines, mask: NDArray[np.bool_]) -> Array32:
        """Return (n_users, n_items) scores of all parts, weighed by the customers' activity.

        Args:
            timelines: customers and what is known of them.
            mask: (n_users, n_items) items that are never ranked; they set no scale.
        """
        return self._weighed(self.names, timelines, mask)

    def beside_reference(self, timelines: Timelines, mask: NDArray[np.bool_]) -> Array32 | None:
        """Return what the models beside the reference say; None if none of them has a weight."""
        others = self.names[1:-1]
        if not self.model.fusion[:, 1:-1].any():
            return None
        return self._weighed(others, timelines, mask)

    def _weighed(
        self, names: Sequence[str], timelines: Timelines, mask: NDArray[np.bool_]
    ) -> Array32:
        weights = self.model.fusion[activity_buckets(timelines)]
        total = np.zeros((timelines.n_users, timelines.n_items), dtype=np.float32)
        for name in names:
            mine = weights[:, self.names.index(name), None]
            if mine.any():
                total += mine * FUSERS["weighted"].prepare(self.score(name, timelines), mask)
        return total


def activity_buckets(timelines: Timelines) -> NDArray[np.int64]:
    """Return (n_users,) how many of BUCKET_EDGES the history's distinct items reach."""
    distinct = np.diff(timelines.incidence().indptr)
    return np.asarray(np.searchsorted(np.array(BUCKET_EDGES), distinct, side="right"))


def never_ranked(timelines: Timelines, *, repeats: bool) -> NDArray[np.bool_]:
    """Return (n_users, n_items): what the silo does not sell and, unless it may, what they have."""
    shape = timelines.n_users, timelines.n_items
    mask = np.zeros(shape, dtype=np.bool_) if repeats else timelines.incidence().toarray() > 0
    return mask if timelines.assortment is None else mask | ~timelines.assortment
