"""Noisy popularity -> de-noised popularity: post-processing of the first release."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import LinearOperator, cg

from fondaco.shared.features import ItemFeatures

from .least_squares import nonnegative_fit

Array = NDArray[np.float64]

PRIOR_POINTS = 150
PRIOR_STEPS = 300
PRIOR_REACH = 24.0
"""Values further up are left as they are: there the prior's points lie wider apart than the
noise is wide, which is a twentieth of the value at most [noise stddev]."""


def denoise_popularity(noisy: Array, noise_stddev: float, features: ItemFeatures) -> Array:
    """Return the posterior mean popularity (n_items,), >= 0.

    With public features: a Gaussian process over items whose variance components are fitted by
    moments (least squares of r_i r_j on the kernels, i != j). Without: empirical Bayes.

    Args:
        noisy: (n_items,) sums of 1 / sqrt(n_u) plus noise.
        noise_stddev: of that noise.
        features: public item features.
    """
    if not features.blocks:
        return empirical_bayes_mean(noisy, noise_stddev)
    mean = float(noisy.mean())
    centred = noisy - mean
    weights = _variance_components(centred, features.blocks)
    shared = sum(
        (w * _row_squares(b).mean() for w, b in zip(weights, features.blocks, strict=True)), 0.0
    )
    own = max(float(centred @ centred) / len(noisy) - noise_stddev**2 - shared, 0.0)

    def smooth(values: Array) -> Array:
        total = np.zeros(len(values))
        for weight, block in zip(weights, features.blocks, strict=True):
            total += weight * (block @ (block.T @ values))
        return total

    covariance = LinearOperator(
        (len(noisy), len(noisy)), matvec=lambda v: smooth(v) + (own + noise_stddev**2) * v
    )
    solved = cg(covariance, centred, rtol=1e-4, maxiter=200)[0]
    posterior: Array = np.maximum(mean + smooth(solved) + own * solved, 0.0)
    return posterior


def empirical_bayes_mean(noisy: Array, noise_stddev: float) -> Array:
    """Return posterior means (n_items,) of non-negative values seen with Gaussian noise.

    The prior is the non-parametric maximum likelihood one on a grid, by expectation
    maximisation. Source: Kiefer & Wolfowitz 1956; Jiang & Zhang 2009.
    """
    reach = PRIOR_REACH * noise_stddev
    near = noisy[noisy <= reach]
    if not len(near):
        return noisy.copy()
    top = max(float(near.max()) * 1.05, noise_stddev)
    grid = np.concatenate([[0.0], np.geomspace(noise_stddev / 20, top, PRIOR_POINTS)])
    # Values are binned first: a catalogue of 100,000 items costs no more than one of 2,000.
    edges = np.linspace(near.min(), near.max() + 1e-9, 2001)
    counts = np.histogram(near, edges)[0].astype(np.float64)
    centres = 0.5 * (edges[1:] + edges[:-1])
    likelihood = np.exp(-0.5 * ((centres[:, None] - grid) / noise_stddev) ** 2) + 1e-300
    prior = np.full(len(grid), 1.0 / len(grid))
    for _ in range(PRIOR_STEPS):
        prior *= likelihood.T @ (counts / (likelihood @ prior)) / len(near)
    posterior = likelihood * prior
    means = (posterior @ grid) / posterior.sum(axis=1)
    smoothed: Array = np.interp(noisy, centres, means)
    # Near its end the prior lacks what lies beyond, so it is followed a little less far.
    far = noisy > reach - 4 * noise_stddev
    ceiling = np.interp(reach - 4 * noise_stddev, centres, means)
    return np.where(far, np.maximum(noisy, ceiling), smoothed)


def _variance_components(centred: Array, blocks: tuple[csr_matrix, ...]) -> Array:
    squares = np.array([_row_squares(block) for block in blocks])
    overlap = np.array([[_squared_overlap(a, b) for b in blocks] for a in blocks])
    target = np.array(
        [
            float(np.sum((block.T @ centred) ** 2) - square @ centred**2)
            for block, square in zip(blocks, squares, strict=True)
        ]
    )
    return nonnegative_fit(overlap - squares @ squares.T, target, np.diag(overlap))


def _squared_overlap(a: csr_matrix, b: csr_matrix) -> float:
    """Sum over all item pairs of the product of two kernels = |A^T B|_F^2."""
    product = (a.T @ b).tocsr()
    return float(product.multiply(product).sum())


def _row_squares(block: csr_matrix) -> Array:
    return np.asarray(block.multiply(block).sum(axis=1)).ravel()
