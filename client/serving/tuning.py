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

SIDE_GRID = np.array([0.0, 0.1, 0.25, 0.6, 1.5, 4.0, 10.0])
"""Weights tried for a plane beside a base of weight 1; averaged on a log scale."""
SIDE_START = 0.1
PASSES = 2
BASE_SHARPNESS = 6.0
SIDE_SHARPNESS = 4.0
TRUST_SHARPNESS = 3.0
TRUST_GRID = np.array([0.0, 0.3, 0.6, 1.0])
TRUST_SPREAD = 0.3
"""Width of the prior over TRUST_GRID."""
EVEN_SIGNAL = 0.2
"""Squared signal of everybody's model over the silo's own at which both count the same."""


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
        self._length = k
        self._k = min(k, targets.shape[1])
        self._discount = 1.0 / np.log2(np.arange(2, self._k + 2))
        ideal = np.concatenate([[0.0], np.cumsum(self._discount)])
        counts = np.minimum(targets.sum(axis=1), self._k)
        self._ideal = np.maximum(ideal[counts], 1e-12)

    @property
    def n_users(self) -> int:
        """Number of validation customers."""
        return len(self.mask)

    def among(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> "Judge":
        """Return the judge of these customers, each with a target, over these items alone."""
        chosen = np.ix_(users, items)
        return Judge(self.mask[chosen], self.targets[chosen], self._length)

    def __call__(self, plane: Plane) -> Array:
        """Return (n_users,) NDCG@k."""
        negated = np.where(self.mask, np.float32(np.inf), -plane)
        top = np.argpartition(negated, self._k - 1, axis=1)[:, : self._k]
        order = np.argsort(np.take_along_axis(negated, top, axis=1), axis=1, kind="stable")
        ranked = np.take_along_axis(top, order, axis=1)
        found = np.take_along_axis(self.targets, ranked, axis=1)
        return np.asarray((found * self._discount).sum(axis=1) / self._ideal)


def averaging_weights(values: Array, sharpness: float, prior: Array | None = None) -> Array:
    """Return (n_settings,) weights that sum to 1.

    With d the mean difference to the best setting over paired customers and se its standard
    error, a setting weighs prior * exp(-sharpness / 2 (d / se)^2).

    Args:
        values: (n_settings, n_users) quality of each setting for each customer.
        sharpness: 0 keeps the prior, large takes the best.
        prior: (n_settings,) weights without evidence; equal by default.
    """
    n_settings, n_users = values.shape
    prior = np.full(n_settings, 1.0 / n_settings) if prior is None else prior / prior.sum()
    if n_users <= 1:
        return prior
    behind = values[int(np.argmax(values.mean(axis=1)))] - values
    error = np.maximum(behind.std(axis=1) / np.sqrt(n_users), 1e-6)
    distance = np.minimum(behind.mean(axis=1) / error, 30.0)
    weights = prior * np.exp(-0.5 * sharpness * distance**2)
    return np.asarray(weights / weights.sum())


def tune_sides(base: Plane, sides: Sequence[Plane], judge: Judge, fuser: Fuser) -> Array:
    """Return (n_sides,) weights of `sides` beside a `base` of weight 1, one at a time."""
    weights = np.full(len(sides), SIDE_START)
    for _ in range(PASSES if judge.n_users else 0):
        for num, side in enumerate(sides):
            others = np.where(np.arange(len(sides)) == num, 0.0, weights)
            rest = fuser.fuse([base, *sides], np.array([1.0, *others]))
            values = np.stack([judge(rest + np.float32(x) * side) for x in SIDE_GRID])
            chance = averaging_weights(values, SIDE_SHARPNESS)
            weights[num] = np.expm1(chance @ np.log1p(4.0 * SIDE_GRID)) / 4.0
    return weights


def trust_prior(signal: float) -> Array:
    """Return (n_trust,) prior weights over TRUST_GRID, from public facts and the silo's own size.

    Args:
        signal: customers behind everybody's model per unit of its noise edge, over the silo's
            own customers [1].
    """
    centre = signal**2 / (signal**2 + EVEN_SIGNAL)
    return np.asarray(np.exp(-0.5 * ((TRUST_GRID - centre) / TRUST_SPREAD) ** 2))
