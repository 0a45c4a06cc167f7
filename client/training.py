"""Fits each planned statistic on local data: histories -> clipped sum."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from fondaco.shared.privacy.clipping import ClippedSum, gram_sum, popularity_sum
from fondaco.shared.privacy.contribution import Histories

Statistic = Callable[[Histories, NDArray[np.int64], int], ClippedSum]


def _popularity(histories: Histories, head: NDArray[np.int64], grid: int) -> ClippedSum:
    del head  # the whole catalogue, always
    return popularity_sum(histories, grid)


def _gram(histories: Histories, head: NDArray[np.int64], grid: int) -> ClippedSum:
    return gram_sum(histories.restrict(head), grid)


STATISTICS: Mapping[str, Statistic] = {"popularity": _popularity, "gram": _gram}
