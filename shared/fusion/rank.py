"""Reciprocal rank fusion: only the order of each plane counts.

Source: Cormack, Clarke & Buettcher 2009.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .base import Plane, standardise, weighted_sum

OFFSET = 20.0


class ReciprocalRank:
    """Adds z-scores of 1 / (OFFSET + rank); what a plane does not know gets nothing from it."""

    def prepare(self, scores: Plane, mask: NDArray[np.bool_]) -> Plane:
        """Return z-scores of 1 / (OFFSET + rank); equal scores share the better rank."""
        known = ~mask & np.isfinite(scores)
        held = np.where(known, scores, -np.inf)
        order = np.argsort(-held, axis=1, kind="stable")
        best_first = np.take_along_axis(held, order, axis=1)
        position = np.arange(scores.shape[1])
        fresh = np.concatenate(
            [np.ones((len(scores), 1), bool), best_first[:, 1:] != best_first[:, :-1]], axis=1
        )
        ranks_in_order = np.maximum.accumulate(np.where(fresh, position, 0), axis=1)
        ranks = np.empty_like(ranks_in_order)
        np.put_along_axis(ranks, order, ranks_in_order, axis=1)
        return standardise((1.0 / (OFFSET + ranks)).astype(np.float32), ~known)

    def fuse(self, planes: Sequence[Plane], weights: NDArray[np.float64]) -> Plane:
        """Return the weighted sum of reciprocal ranks."""
        return weighted_sum(planes, weights)
