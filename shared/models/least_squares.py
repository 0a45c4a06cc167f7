"""Small non-negative least squares, from normal equations."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

ROUNDING = 1e-9
"""Share of a part's energy below which a difference is taken for rounding."""


def nonnegative_fit(
    normal: NDArray[np.float64], target: NDArray[np.float64], energy: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return w >= 0 (k,) that minimises w' normal w - 2 w' target.

    A part of which nothing but rounding is left off the diagonal gets 0: its best weight would
    be a ratio of two rounding errors.

    Args:
        normal: (k, k) symmetric and positive semi-definite.
        target: (k,).
        energy: (k,) squared norm of each part before its diagonal was taken out.
    """
    weights = np.zeros(len(target))
    told = np.diag(normal) > ROUNDING * energy
    if told.any():
        weights[told] = _scaled_fit(normal[np.ix_(told, told)], target[told])
    return weights


def _scaled_fit(normal: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    scale = 1.0 / np.sqrt(np.diag(normal))
    values, vectors = np.linalg.eigh(normal * scale[:, None] * scale)
    root = np.sqrt(np.maximum(values, values[-1] * 1e-10))
    weights: NDArray[np.float64] = nnls(
        root[:, None] * vectors.T, (vectors.T @ (target * scale)) / root
    )[0]
    return weights * scale
