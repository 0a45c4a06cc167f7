"""What every fuser promises."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]

ROUNDING = 1e-6
"""Spread over mean of equal float32 numbers, at most."""


class Fuser(Protocol):
    """Combines score planes.

    Contract: monotone in each input with positive weight; NaN (an item that a scorer does not
    know) adds nothing; equal inputs give equal outputs.
    """

    def prepare(self, scores: Plane, mask: NDArray[np.bool_]) -> Plane:
        """Return (n_users, n_items) scores on this fuser's common scale, masked items at 0."""

    def fuse(self, planes: Sequence[Plane], weights: NDArray[np.float64]) -> Plane:
        """Return (n_users, n_items) of prepared `planes` with one weight >= 0 each."""


def standardise(scores: Plane, mask: NDArray[np.bool_]) -> Plane:
    """Return z-scores per customer over the items not masked; NaN and masked become 0.

    A customer whose scores are all equal gets zeros.
    """
    known = ~mask & np.isfinite(scores)
    counts = np.maximum(known.sum(axis=1, keepdims=True), 1)
    centred = np.where(known, scores, np.float32(0.0)).astype(np.float32, copy=False)
    mean = centred.sum(axis=1, keepdims=True, dtype=np.float64) / counts
    centred -= mean.astype(np.float32)
    centred *= known
    spread = np.sqrt(np.einsum("ij,ij->i", centred, centred)[:, None] / counts)
    told = spread > ROUNDING * np.abs(mean)
    centred /= np.where(told, spread, np.inf).astype(np.float32)
    return np.asarray(centred)


def weighted_sum(planes: Sequence[Plane], weights: NDArray[np.float64]) -> Plane:
    """Return the (n_users, n_items) sum of `planes`, one weight each."""
    total = np.zeros_like(planes[0])
    for plane, weight in zip(planes, weights, strict=True):
        if weight:
            total += np.float32(weight) * plane
    return total
