"""Bounds what one customer can change, exactly, in integers.

Formal guarantee, for every input: adding or removing one customer moves the `values` of a
`ClippedSum` by at most `sens_grid` in l2 norm, rounding included.

The sums of this module are counts. A customer's weight depends on the number of items alone, is
rounded toward zero onto the grid, and its squares are added up in exact integers and held
against the bound before anything is summed. No float of a customer enters, so NaN and infinity
cannot; a customer without items adds zeros; a customer with the whole catalogue adds no more
than one with a single item. Gradients are clipped in `gradients`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, PrivacyError
from .contribution import Histories
from .noise import Sample
from .plan import MAX_GRID

_BATCH = 4096


@dataclass(frozen=True, kw_only=True)
class ClippedSum:
    """A sum over customers, each bounded. Made here and in `gradients` only; still private.

    Attributes:
        values: (dim,) int64 [grid units].
        sens_grid: l2 sensitivity under adding or removing one customer [grid units].
        sample: who took part; None for everybody.
    """

    values: NDArray[np.int64]
    sens_grid: int
    sample: Sample | None = None


def popularity_sum(histories: Histories, grid: int) -> ClippedSum:
    """Return p = sum_u x_u / sqrt(n_u) over the whole catalogue; sensitivity `grid`.

    Each of a customer's n_u items gets floor(grid / sqrt(n_u)) = isqrt(grid^2 // n_u), so the
    squares add up to at most grid^2.

    Raises:
        ConfigError: `grid` is out of range.
    """

    def weights(n: int) -> tuple[int, int]:
        weight = math.isqrt(grid**2 // n)
        return weight, n * weight**2

    per_user = _weights_by_length(histories.lengths, weights, grid)
    values = np.zeros(histories.n_items, dtype=np.int64)
    np.add.at(values, histories.item_nums, np.repeat(per_user, histories.lengths))
    return ClippedSum(values=values, sens_grid=grid)


def gram_sum(histories: Histories, grid: int) -> ClippedSum:
    """Return z of G = sum_u x_u x_u^T / n_u; sensitivity `grid`.

    z is the diagonal of G, then sqrt(2) times its strict upper triangle row by row, so that
    one customer's z has norm 1. In grid units a customer with n items adds
    d = floor(grid / n) to n diagonal entries and o = floor(sqrt(2) grid / n) to n (n - 1) / 2
    others: n d^2 + n (n - 1) / 2 o^2 <= grid^2 / n + (n - 1) grid^2 / n = grid^2. The weight
    1/n_u is the bound itself: no row is dropped.

    Args:
        histories: over the head only (`Histories.restrict`); n_items is its length.
        grid: grid units per unit.

    Raises:
        ConfigError: `grid` is out of range.
    """

    def off_weights(n: int) -> tuple[int, int]:
        off = math.isqrt(2 * grid**2 // n**2)
        return off, n * (grid // n) ** 2 + n * (n - 1) // 2 * off**2

    n_head = histories.n_items
    diagonal_weight = grid // np.maximum(histories.lengths, 1)
    off_weight = _weights_by_length(histories.lengths, off_weights, grid)
    diagonal = np.zeros(n_head, dtype=np.int64)
    np.add.at(diagonal, histories.item_nums, np.repeat(diagonal_weight, histories.lengths))
    pairs = np.zeros((n_head, n_head), dtype=np.int64)
    for start in range(0, histories.n_users, _BATCH):
        stop = min(start + _BATCH, histories.n_users)
        rows = _dense(histories, start, stop)
        # BLAS multiplies floats only; a batch adds up to integers below 2^53, hence exactly.
        pairs += ((rows * off_weight[start:stop, None]).T @ rows).astype(np.int64)
    upper = pairs[np.triu_indices(n_head, 1)]
    return ClippedSum(values=np.concatenate([diagonal, upper]), sens_grid=grid)


def gram_dim(n_head: int) -> int:
    """Return the length of `gram_sum`'s z."""
    return n_head * (n_head + 1) // 2


def _weights_by_length(
    lengths: NDArray[np.int64], weigh: Callable[[int], tuple[int, int]], grid: int
) -> NDArray[np.int64]:
    """(n_users,) weight of each customer: `weigh(n)` gives weight and squared norm, exactly."""
    if not 1 <= grid <= MAX_GRID:
        raise ConfigError(f"{grid=} must lie between 1 and {MAX_GRID}")
    distinct, position = np.unique(lengths, return_inverse=True)
    table = np.zeros(len(distinct), dtype=np.int64)
    for row, n in enumerate(distinct.tolist()):
        weight, squared_norm = weigh(n) if n else (0, 0)
        if squared_norm > grid**2:
            raise PrivacyError(f"a contribution exceeds the bound {grid}")
        table[row] = weight
    return table[position]


def _dense(histories: Histories, start: int, stop: int) -> NDArray[np.float64]:
    """(stop - start, n_items) 0/1 rows of the customers in [start, stop)."""
    pairs = slice(histories.indptr[start], histories.indptr[stop])
    rows = np.zeros((stop - start, histories.n_items), dtype=np.float64)
    users = np.repeat(np.arange(stop - start), histories.lengths[start:stop])
    rows[users, histories.item_nums[pairs]] = 1.0
    return rows
