"""Averages of silos' parameters, for `trust = "silo"` where every update is private by itself."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from .base import Array

TRIM = 0.1
"""Part of the updates that a trimmed mean leaves out at each end."""


class Mean:
    """The average with public weights, in constant memory. Source: McMahan et al. 2017."""

    needs_each_update: ClassVar[bool] = False

    def __init__(self, dim: int) -> None:
        self._total = np.zeros(dim, dtype=np.float64)
        self._weight = 0.0

    def add(self, values: NDArray[np.int64], weight: float = 1.0) -> None:
        """Take in one silo's (dim,) update [grid units] and its public weight."""
        self._total += weight * values
        self._weight += weight

    def result(self) -> Array:
        """Return the (dim,) weighted mean [grid units]."""
        return self._total / max(self._weight, 1e-300)


class _Sorted:
    """Keeps every update; equal weights, because one silo must not outweigh the others."""

    needs_each_update: ClassVar[bool] = True

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self._updates: list[NDArray[np.int64]] = []

    def add(self, values: NDArray[np.int64], weight: float = 1.0) -> None:
        """Take in one silo's (dim,) update [grid units]."""
        del weight
        self._updates.append(np.broadcast_to(values, self._dim))

    def _sorted(self) -> NDArray[np.int64]:
        """(n_silos, dim) ascending in every column."""
        return np.sort(np.stack(self._updates), axis=0)


class TrimmedMean(_Sorted):
    """The mean without each coordinate's extremes. Source: Yin et al. 2018."""

    def result(self) -> Array:
        """Return (dim,) [grid units]."""
        n_silos = len(self._updates)
        cut = min(int(np.ceil(TRIM * n_silos)), (n_silos - 1) // 2)
        return np.asarray(self._sorted()[cut : n_silos - cut].mean(axis=0))


class Median(_Sorted):
    """Each coordinate's median. Source: Yin et al. 2018."""

    def result(self) -> Array:
        """Return (dim,) [grid units]."""
        return np.asarray(np.median(self._sorted(), axis=0))
