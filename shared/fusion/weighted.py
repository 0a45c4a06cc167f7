"""Weighted sum of z-scores."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .base import Plane, standardise, weighted_sum


class Weighted:
    """Puts every plane on one scale by its mean and spread per customer, then adds."""

    def prepare(self, scores: Plane, mask: NDArray[np.bool_]) -> Plane:
        """Return z-scores per customer."""
        return standardise(scores, mask)

    def fuse(self, planes: Sequence[Plane], weights: NDArray[np.float64]) -> Plane:
        """Return the weighted sum."""
        return weighted_sum(planes, weights)
