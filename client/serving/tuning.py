"""Chooses a silo's mix on its own validation rows: averages over settings, never a bare argmax.

A silo may have twenty validation customers. Settings that they cannot tell apart keep their
prior weight, so few rows move the mix little and noise is not mistaken for skill.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fondaco.shared.fusion import Fuser
from fondaco.shared.fusion.base import Plane

Array = NDArray[np.float64]

SIDE_GRID = np.array([0.0, 0.1, 0.25, 0.6, 1.2, 2.5])
SIDE_START = 0.1
PASSES = 2
SHARPNESS = 3.0
SHRINK_USERS = 2.0


class Judge:
    """NDCG@k per validation customer for many planes of the same customers.

    Args:
        mask: (n_users, n_items) items never shown.
        targets: (n_users, n_items) what was taken, at least one per customer.
        k: list length.
    """

    def __init__(self, mask: NDArray[np.bool_], targets: NDArray[np.bool_], k: int) -> None:
        self.mask = mask
        self.targets = targets
        self._k = min(k, targets.shape[1])
        self._discount = 1.0 / np.log2(np.arange(2, self._k + 2))
        ideal = np.concatenate([[0.0], np.cumsum(self._discount)])
        counts = np.minimum(targets.sum(axis=1), self._k)
        self._ideal = np.maximum(ideal[counts], 1e-12)

    @property
    def n_users(self) -> int:
        """Number of validation customers."""
        return len(self.mask)

    def __call__(self, plane: Plane) -> Array:
        """Return (n_users,) NDCG@k."""
        negated = np.where(self.mask, np.float32(np.inf), -plane)
        top = np.argpartition(negated, self._k - 1, axis=1)[:, : self._k]
        order = np.argsort(np.take_along_axis(negated, top, axis=1), axis=1, kind="stable")
        ranked = np.take_along_axis(top, order, axis=1)
        found = np.take_along_axis(self.targets, ranked, axis=1)
        return np.asarray((found * self._discount).sum(axis=1) / self._ideal)


def averaging_weights(values: Array, prior: Array | None = None) -> Array:
    """Return (n_settings,) weights that sum to 1.

    With d the mean difference to the best setting over paired customers and se its standard
    error, a setting weighs prior * exp(-SHARPNESS / 2 (d / se)^2).

    Args:
        values: (n_settings, n_users) quality of each setting for each customer.
        prior: (n_settings,) weights without evidence; equal by default.
    """
    n_settings, n_users = values.shape
    prior = np.full(n_settings, 1.0 / n_settings) if prior is None else prior / prior.sum()
    if n_users <= 1:
        return prior
    behind = values[int(np.argmax(values.mean(axis=1)))] - values
    gap = behind.mean(axis=1) * n_users / (n_users + SHRINK_USERS)
    error = np.maximum(behind.std(axis=1) / np.sqrt(n_users), 1e-6)
    weights = prior * np.exp(-0.5 * SHARPNESS * np.minimum(gap / error, 30.0) ** 2)
    return np.asarray(weights / weights.sum())


def tune_sides(base: Plane, sides: Sequence[Plane], judge: Judge, fuser: Fuser) -> Array:
    """Return (n_sides,) weights of `sides` beside a `base` of weight 1, one at a time."""
    weights = np.full(len(sides), SIDE_START)
    for _ in range(PASSES if judge.n_users else 0):
        for num, side in enumerate(sides):
            others = np.where(np.arange(len(sides)) == num, 0.0, weights)
            rest = fuser.fuse([base, *sides], np.array([1.0, *others]))
            values = np.stack([judge(rest + np.float32(x) * side) for x in SIDE_GRID])
            weights[num] = averaging_weights(values) @ SIDE_GRID
    return weights
