"""Small non-negative least squares, from normal equations."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls


def nonnegative_fit(
    normal: NDArray[np.float64], target: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return w >= 0 (k,) that minimises w' normal w - 2 w' target.

    Args:
        normal: (k, k) symmetric and positive semi-definite.
        target: (k,).
    """
    scale = 1.0 / np.sqrt(np.maximum(np.diag(normal), 1e-30))
    values, vectors = np.linalg.eigh(normal * scale[:, None] * scale)
    root = np.sqrt(np.maximum(values, max(float(values[-1]), 1e-30) * 1e-10))
    weights: NDArray[np.float64] = nnls(
        root[:, None] * vectors.T, (vectors.T @ (target * scale)) / root
    )[0]
    return weights * scale
