"""Clips customers' gradients and adds them up: what neural models and factor models release.

The very numbers that are added up are measured and clipped here, in float64, and the sum is
rounded once; what rounding can add is kept free below the bound. How the gradients came about
need not be trusted, only that a customer's part was computed from that customer's rows: a model
that couples customers (batch normalisation, in-batch negatives) is refused where it is built.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, PrivacyError
from .clipping import ClippedSum
from .noise import Sample
from .plan import MAX_GRID

MAX_USERS = 150_000
FLOAT_SLACK = 1e-3
"""Part of the bound kept free for float64's errors. A block of _ROWS rows and a sum of n blocks
err by at most (_ROWS + n) eps times what was added up without its signs, which is at most
100 C per customer (see `squared_norms`): for both of two neighbouring sums of MAX_USERS
customers, each a block, that is 8e-4 C (Higham 2002, section 4.2); norms and weights err by
less than 1e-9."""
_ROWS = 1 << 16
_CELLS = 1 << 19
"""Numbers of a layer worked on at once, so that they stay in the processor's cache."""
_CANCELLED, _TINY = 1e-4, 1e-100


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Factors:
    """One parameter's gradient per customer, as sum_t outer(deltas[u, t], inputs[u, t]).

    Attributes:
        deltas: (n_users, n_positions, n_out).
        inputs: (n_users, n_positions, n_in).
    """

    deltas: NDArray[np.floating]
    inputs: NDArray[np.floating]

    @property
    def dim(self) -> int:
        """Numbers of the parameter: n_out * n_in."""
        return int(self.deltas.shape[2] * self.inputs.shape[2])

    def rows(self, users: slice | NDArray[np.bool_]) -> "Factors":
        """Return the gradients of some customers."""
        return Factors(deltas=self.deltas[users], inputs=self.inputs[users])

    def in_float64(self) -> "Factors":
        """Return the numbers that are measured and added up: rounded to float32, wide as float64.

        Their squares then neither overflow nor vanish.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            deltas, inputs = (
                np.asarray(part, dtype=np.float32).astype(np.float64)
                for part in (self.deltas, self.inputs)
            )
        return Factors(deltas=deltas, inputs=inputs)

    def squared_norms(self) -> NDArray[np.float64]:
        """Return (n_users,) squared Frobenius norms, never too small.

        |sum_t d_t a_t^T|^2 is summed from the matrix itself or as sum_st (d_s . d_t)(a_s . a_t).
        Where positions cancel, little is left beside what rounding leaves: the norm counts as
        at least a hundredth of sum_t |d_t| |a_t|.
        """
        deltas, inputs = self.deltas, self.inputs
        n_positions = deltas.shape[1]
        lengths = np.einsum("uto,uto->ut", deltas, deltas) * np.einsum(
            "uti,uti->ut", inputs, inputs
        )
        if n_positions == 1:
            return np.asarray(lengths[:, 0])
        if self.dim <= n_positions * (deltas.shape[2] + inputs.shape[2]):
            whole = np.matmul(deltas.transpose(0, 2, 1), inputs)
            squares = np.einsum("uoi,uoi->u", whole, whole)
        else:
            alike = np.matmul(deltas, deltas.transpose(0, 2, 1))
            alike *= np.matmul(inputs, inputs.transpose(0, 2, 1))
            squares = np.maximum(alike.sum(axis=(1, 2)), 0.0)
        return np.asarray(squares + _CANCELLED * np.sqrt(lengths).sum(axis=1) ** 2)

    def add_to(self, total: NDArray[np.float64], weights: NDArray[np.float64]) -> None:
        """Add sum_u weights[u] * gradient[u], row by row, to the (dim,) `total`."""
        deltas, inputs = self.deltas, self.inputs
        if deltas.shape[2] < inputs.shape[2]:
            deltas = deltas * weights[:, None, None]
        else:
            inputs = inputs * weights[:, None, None]
        deltas, inputs = (part.reshape(-1, part.shape[2]) for part in (deltas, inputs))
        for start in range(0, len(deltas), _ROWS):
            total += (deltas[start : start + _ROWS].T @ inputs[start : start + _ROWS]).ravel()


class GradientSum:
    """Adds up customers' gradients, each clipped to an l2 norm of `clip_norm`.

    Formal guarantee: whatever is passed to `add`, one customer (one row of all its arrays)
    moves `total().values` by at most `grid` in l2 norm; a gradient with a number that is not
    finite counts as zeros.

    Args:
        dim: numbers released.
        clip_norm: C > _TINY [model units]; it becomes `grid` grid units.
        grid: grid units per C.
        sample: the customers that may be added, each once.

    Raises:
        ConfigError: an argument is out of range, or `dim` leaves no room for rounding.

    Source: Abadi et al. 2016, Algorithm 1; norms by Goodfellow 2015 and Li et al. 2022.
    """

    def __init__(self, dim: int, clip_norm: float, grid: int, sample: Sample) -> None:
        # Rounding moves each of the two neighbouring sums by at most 1/2 per number.
        bound = grid * (1.0 - FLOAT_SLACK) - math.sqrt(dim)
        if not (0 < grid <= MAX_GRID and bound > grid / 2 and _TINY < clip_norm < math.inf):
            raise ConfigError(f"{clip_norm=} or {grid=} is out of range for {dim} numbers")
        if len(sample.user_nums) > MAX_USERS:
            raise ConfigError(f"more than {MAX_USERS} customers of one silo in one sum")
        self._sum = np.zeros(dim, dtype=np.float64)
        self._bound = bound
        self._clip_norm = clip_norm
        self._grid = grid
        self._sample = sample
        self._left = sample.user_nums.copy()

    def add(self, user_nums: NDArray[np.int64], gradients: Sequence[Factors]) -> None:
        """Add a batch of customers.

        Args:
            user_nums: (n_users,) whose rows these are.
            gradients: of all parameters, in order.

        Raises:
            PrivacyError: the lengths do not fit, or a customer was not sampled or came before.
        """
        if any(type(layer) is not Factors for layer in gradients):
            raise PrivacyError("gradients must be Factors, whose norms are measured here")
        shapes = [(layer.deltas.shape[:2], layer.inputs.shape[:2]) for layer in gradients]
        if any(mine != other or mine[0] != len(user_nums) for mine, other in shapes):
            raise PrivacyError("parameters differ in their number of customers or positions")
        if sum(layer.dim for layer in gradients) != len(self._sum):
            raise PrivacyError("the gradients are not as long as the planned sum")
        if len(np.setdiff1d(user_nums, self._left)) or len(np.unique(user_nums)) < len(user_nums):
            raise PrivacyError("a customer was not sampled, or was added before")
        self._left = np.setdiff1d(self._left, user_nums)
        widest = max(max(x.deltas[:1].size, x.inputs[:1].size) for x in gradients)
        step = max(1, _CELLS // max(1, widest))
        for start in range(0, len(user_nums), step):
            some = slice(start, start + step)
            self._add([layer.rows(some).in_float64() for layer in gradients])

    def _add(self, layers: Sequence[Factors]) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            squares = np.sum([layer.squared_norms() for layer in layers], axis=0)
        sound = np.isfinite(squares)
        if not sound.all():
            layers, squares = [layer.rows(sound) for layer in layers], squares[sound]
        weights = self._bound / np.maximum(np.sqrt(squares), self._clip_norm)
        start = 0
        for layer in layers:
            layer.add_to(self._sum[start : start + layer.dim], weights)
            start += layer.dim

    def total(self) -> ClippedSum:
        """Return the sum of all that was added."""
        values = np.rint(self._sum).astype(np.int64)
        return ClippedSum(values=values, sens_grid=self._grid, sample=self._sample)
