"""The order of items that a silo never sold: its own rows say little of them, everybody's more.

They keep the places that the mix gave to items never sold, and change them among themselves, so
that nothing a silo did sell moves.
"""

import numpy as np
from numpy.typing import NDArray

from fondaco.shared.fusion.base import Plane

from .tuning import Judge, averaging_weights

UNSOLD_GRID = np.array([0.0, 0.25, 0.5, 1.0, 2.0, 4.0])
"""Weights tried for everybody's model beside the silo's own scores; all alike beforehand."""
UNSOLD_SHARPNESS = 3.0


def reorder(scores: Plane, wanted: Plane, items: NDArray[np.bool_]) -> Plane:
    """Return `scores` with those of `items` exchanged so that they stand in the order `wanted`.

    Args:
        scores: (n_users, n_items).
        wanted: (n_users, n_items), read at `items` alone.
        items: (n_items,) which may change places.
    """
    nums = np.flatnonzero(items)
    places = np.argsort(np.argsort(wanted[:, nums], axis=1, kind="stable"), axis=1)
    changed = scores.copy()
    changed[:, nums] = np.take_along_axis(np.sort(scores[:, nums], axis=1), places, axis=1)
    return changed


def unsold_weight(
    scores: Plane, everybodys: Plane, items: NDArray[np.bool_], judge: Judge
) -> float:
    """Return the weight of `everybodys` in the order of `items`, from who took one since.

    Args:
        scores: (n_users, n_items) of the mix.
        everybodys: (n_users, n_items) prepared for fusion.
        items: (n_items,) that nobody took in training.
        judge: validation customers.
    """
    nums = np.flatnonzero(items)
    rows = np.flatnonzero(judge.targets[:, nums].any(axis=1))
    values = np.zeros((len(UNSOLD_GRID), len(rows)))
    if len(rows):
        among = judge.among(rows, nums)
        own, beside = scores[np.ix_(rows, nums)], everybodys[np.ix_(rows, nums)]
        values = np.stack([among(own + np.float32(w) * beside) for w in UNSOLD_GRID])
    chance = averaging_weights(values, UNSOLD_SHARPNESS)
    return float(np.expm1(chance @ np.log1p(4.0 * UNSOLD_GRID)) / 4.0)
