"""A small learned combiner: weights by listwise softmax, held near a prior.

With few validation customers the prior decides, with many the data do. Source: Cao et al. 2007
(ListNet's top-one probability).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from .base import Plane, standardise, weighted_sum

PRIOR_STRENGTH = 1.0
MAX_STEPS = 60


class Stacked:
    """Weighted sum of z-scores whose weights are fitted together."""

    def prepare(self, scores: Plane, mask: NDArray[np.bool_]) -> Plane:
        """Return z-scores per customer."""
        return standardise(scores, mask)

    def fuse(self, planes: Sequence[Plane], weights: NDArray[np.float64]) -> Plane:
        """Return the weighted sum."""
        return weighted_sum(planes, weights)


def fit_listwise(
    planes: Sequence[Plane],
    mask: NDArray[np.bool_],
    targets: NDArray[np.bool_],
    prior: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return weights (n_planes,) >= 0 that make the targets likely.

    Minimises the mean over customers of -log softmax at their targets, plus
    PRIOR_STRENGTH / n_users times the squared distance to `prior`: strictly convex.

    Args:
        planes: (n_users, n_items) each, prepared.
        mask: (n_users, n_items) items out of the running.
        targets: (n_users, n_items) what was taken, at least one per customer.
        prior: (n_planes,) weights without any evidence.
    """
    n_users = len(mask)
    if not n_users:
        return prior.copy()
    share = targets / np.maximum(targets.sum(axis=1, keepdims=True), 1) / n_users
    reward = np.array([float(np.vdot(share, plane)) for plane in planes])

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scores = np.where(mask, -np.inf, weighted_sum(planes, weights))
        top = scores.max(axis=1, keepdims=True)
        odds = np.exp(scores - top)
        total = odds.sum(axis=1, keepdims=True)
        away = weights - prior
        value = float((top + np.log(total)).mean() - reward @ weights)
        chance = odds / total / n_users
        slope = np.array([float(np.vdot(chance, plane)) for plane in planes]) - reward
        strength = PRIOR_STRENGTH / n_users
        return value + strength * float(away @ away), slope + 2 * strength * away

    found = minimize(
        loss,
        prior,
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, None)] * len(planes),
        options={"maxiter": MAX_STEPS},
    )
    return np.asarray(found.x, dtype=np.float64)
