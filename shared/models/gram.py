"""Collaborative filtering from one noisy item-item Gram matrix: post-processing of two releases.

Release 1 is popularity, release 2 the Gram G = sum_u x_u x_u^T / n_u of the head items plus
symmetric noise. From there on nothing costs privacy:

1. what public item features and popularity explain of G is fitted and taken out;
2. eigenvalues of the rest below the noise edge t = sigma sqrt(2 M) are dropped, the others
   shrunk to sqrt(l^2 - t^2), the Frobenius-optimal shrinker of a symmetric spiked matrix;
3. what was taken out is put back, and EASE is solved in closed form;
4. items outside of the head are regressed on it through features and popularity.

Source: Steck 2019 (EASE); Gavish & Donoho 2017 (shrinkage).
"""

import math
from dataclasses import dataclass

import numpy as np
import scipy.linalg as sla
from numpy.typing import NDArray

from fondaco.shared.features import ItemFeatures
from fondaco.shared.privacy.clipping import gram_dim

from .base import Model, Sizes, Terms
from .least_squares import nonnegative_fit

Array = NDArray[np.float64]


class Gram(Model[Terms]):
    """One release of a Gram matrix; its parts have fields of their own in `GlobalModel`."""

    name = "gram"
    terms = Terms

    def dim(self, terms: Terms, sizes: Sizes) -> int:
        """Return the length of z."""
        del terms
        return gram_dim(sizes.head)

    def n_parameters(self, terms: Terms, sizes: Sizes) -> int:
        """Return 0."""
        del terms, sizes
        return 0


MAX_HEAD = 5_000
MIN_HEAD = 100
HEAD_PLAIN = 10.0
HEAD_FEATURES = 15.0
RIDGE = 0.1
RANK = 128
_TAIL_BLOCK = 8192


def head_size(mu: float, declared_users: int, n_items: int, *, with_features: bool) -> int:
    """Return M, the items of the Gram: a rule in public numbers only.

    M = c sqrt(mu users), c = 10 without and 15 with item features: the noise edge grows with
    sqrt(M), so a larger head pays off only with more customers or more budget.

    Args:
        mu: whole budget per customer, as Gaussian DP [1].
        declared_users: publicly declared rough number of customers over all silos.
        n_items: catalogue length.
        with_features: whether public item features exist.
    """
    factor = HEAD_FEATURES if with_features else HEAD_PLAIN
    wanted = max(MIN_HEAD, round(factor * math.sqrt(mu * declared_users)))
    return min(wanted, MAX_HEAD, n_items)


def unpack_gram(z: Array) -> Array:
    """Return the symmetric (M, M) Gram of z = (diagonal, sqrt(2) upper triangle)."""
    size = (math.isqrt(8 * len(z) + 1) - 1) // 2
    gram = np.zeros((size, size))
    gram[np.triu_indices(size, 1)] = z[size:] / math.sqrt(2.0)
    gram += gram.T
    gram[np.diag_indices(size)] = z[:size]
    return gram


def noise_edge(noise_stddev: float, size: int) -> float:
    """Return the largest eigenvalue that noise alone shows: sigma sqrt(2 M).

    The noise has stddev sigma on and sigma / sqrt(2) off the diagonal. Source: Wigner 1958.
    """
    return noise_stddev * math.sqrt(2.0 * size)


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadModel:
    """The de-noised Gram of the head: kernel + F F^T + diagonal.

    Attributes:
        head: (M,) item numbers.
        factors: (M, r) F, with F F^T the part above the noise edge.
        kernel_weights: (n_blocks,) weight of each feature block's kernel.
        head_popularity: (M,) de-noised; kernels are scaled by its square root.
        diagonal: (M,) what is added on the diagonal, >= 0.
        top: (M,) first direction of the Gram, scaled so that top top^T has its strength.
        edge: noise edge [1].
        spectrum: (M,) eigenvalues of the noisy Gram, largest first [1].
    """

    head: NDArray[np.int64]
    factors: Array
    kernel_weights: Array
    head_popularity: Array
    diagonal: Array
    top: Array
    edge: float
    spectrum: Array

    def matrix(self, features: ItemFeatures) -> Array:
        """Return the de-noised (M, M) Gram."""
        gram = self.kernel(features, self.head, self.head_popularity)
        gram += self.factors @ self.factors.T
        gram[np.diag_indices_from(gram)] += self.diagonal
        return gram

    def kernel(self, features: ItemFeatures, items: NDArray[np.int64], popularity: Array) -> Array:
        """Return what features say about (M head items, other items).

        Args:
            features: public item features.
            items: (n,) item numbers.
            popularity: (n,) their de-noised popularity.
        """
        total = np.zeros((len(self.head), len(items)))
        if not self.kernel_weights.any():
            return total
        for weight, kernel in zip(
            self.kernel_weights, features.kernels(self.head, items), strict=True
        ):
            total += weight * kernel
        return total * np.sqrt(self.head_popularity)[:, None] * np.sqrt(popularity)

    def cross(self, features: ItemFeatures, items: NDArray[np.int64], popularity: Array) -> Array:
        """Return the expected (M, n) Gram between the head and items outside of it."""
        along = float(self.top @ self.head_popularity) / float(
            self.head_popularity @ self.head_popularity
        )
        rank_one = along * np.outer(self.top, popularity)
        return rank_one + self.kernel(features, items, popularity)


def denoise_gram(
    gram: Array,
    noise_stddev: float,
    *,
    head: NDArray[np.int64],
    noisy_popularity: Array,
    popularity: Array,
    popularity_stddev: float,
    features: ItemFeatures,
) -> HeadModel:
    """Return the de-noised Gram of the head.

    Args:
        gram: (M, M) noisy.
        noise_stddev: sigma of the release [1].
        head: (M,) item numbers.
        noisy_popularity: (n_items,) as released.
        popularity: (n_items,) as de-noised.
        popularity_stddev: noise of `noisy_popularity` [1].
        features: public item features.
    """
    edge = noise_edge(noise_stddev, len(head))
    values, vectors = sla.eigh(gram)
    strongest, direction = float(values[-1]), np.abs(vectors[:, -1])
    floor = max(float(popularity[head].min()), popularity_stddev / 10)
    if strongest > edge:
        refined = _refine_head(noisy_popularity[head], popularity_stddev, direction, floor)
        top = direction * (strongest**2 - edge**2) ** 0.25
    else:
        refined = np.maximum(popularity[head], floor)
        direction = refined / float(np.linalg.norm(refined))
        top = direction * math.sqrt(max(float(direction @ gram @ direction), 1e-6 * edge))
    base, weights = _fit_features(gram, direction, refined, features, head)
    factors = shrink(gram - base, edge)
    if not factors.shape[1]:
        factors = top[:, None]
    diagonal = np.diag(gram) - np.diag(base) - np.sum(factors**2, axis=1)
    return HeadModel(
        head=head,
        factors=factors,
        kernel_weights=weights,
        head_popularity=refined,
        diagonal=np.maximum(diagonal, 0.0),
        top=top,
        edge=edge,
        spectrum=values[::-1],
    )


def without_gram(head: NDArray[np.int64], popularity: Array, popularity_stddev: float) -> HeadModel:
    """Return a head that knows popularity alone: what stands in where no Gram was released.

    Args:
        head: (M,) item numbers.
        popularity: (n_items,) de-noised.
        popularity_stddev: of its release [1].
    """
    refined = np.maximum(popularity[head], popularity_stddev / 10)
    return HeadModel(
        head=head,
        factors=np.zeros((len(head), 0)),
        kernel_weights=np.zeros(0),
        head_popularity=refined,
        diagonal=refined,
        top=refined / float(np.linalg.norm(refined)),
        edge=noise_edge(popularity_stddev, len(head)),
        spectrum=np.zeros(len(head)),
    )


def shrink(matrix: Array, edge: float) -> Array:
    """Return factors (M, r): eigenvalues l > edge kept as sqrt(l^2 - edge^2), others dropped."""
    values, vectors = sla.eigh(matrix)
    kept = values > edge
    factors: Array = vectors[:, kept] * (values[kept] ** 2 - edge**2) ** 0.25
    return factors


def solve_ease(gram: Array, ridge: float) -> tuple[Array, Array]:
    """Return EASE's B (M, M), zero on the diagonal, and the inverse (gram + ridge I)^-1."""
    regular = gram.copy()
    regular[np.diag_indices_from(regular)] += ridge
    factor = sla.cho_factor(regular, lower=True)
    inverse: Array = sla.cho_solve(factor, np.eye(len(regular)))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return weights, inverse


def item_factors(
    model: HeadModel, features: ItemFeatures, popularity: Array, ridge: float
) -> tuple[Array, Array]:
    """Return (M, rank) and (n_items, rank): scores are history[head] @ in @ out^T.

    The best rank-RANK part of the weights from head items to all items, built in blocks of
    the tail so that memory does not grow with the catalogue.

    Args:
        model: the de-noised Gram.
        features: public item features.
        popularity: (n_items,) de-noised.
        ridge: added to the Gram's diagonal [1].
    """
    weights, inverse = solve_ease(model.matrix(features), ridge)
    tail = np.setdiff1d(np.arange(len(popularity)), model.head)
    blocks = [tail[start : start + _TAIL_BLOCK] for start in range(0, len(tail), _TAIL_BLOCK)]

    def columns(items: NDArray[np.int64]) -> Array:
        return inverse @ model.cross(features, items, popularity[items])

    outer = weights @ weights.T
    for items in blocks:
        part = columns(items)
        outer += part @ part.T
    rank = min(RANK, len(model.head))
    _, left = sla.eigh(outer, subset_by_index=(len(outer) - rank, len(outer) - 1))
    right = np.zeros((len(popularity), rank))
    right[model.head] = weights.T @ left
    for items in blocks:
        right[items] = columns(items).T @ left
    return left, right


def _refine_head(noisy: Array, noise_stddev: float, direction: Array, floor: float) -> Array:
    """Head popularity: release 1 and the Gram's first direction, by inverse variance.

    The direction's error is what is left of their disagreement after the known noise.
    """
    fit = direction * (direction @ noisy) / (direction @ direction)
    noise = noise_stddev**2
    error = max(float(np.mean((fit - noisy) ** 2)) - noise, 1e-3 * noise)
    return np.maximum((noisy * error + fit * noise) / (error + noise), floor)


def _fit_features(
    gram: Array,
    direction: Array,
    popularity: Array,
    features: ItemFeatures,
    head: NDArray[np.int64],
) -> tuple[Array, Array]:
    """What features explain of the Gram (M, M), and the weight of each block (n_blocks,)."""
    root = np.sqrt(popularity)
    kernels = [k * root[:, None] * root for k in features.kernels(head, head)]
    if not kernels:
        return np.zeros_like(gram), np.zeros(0)
    parts = [np.outer(direction, direction), *kernels]
    normal = np.array([[_off_diagonal(x, y) for y in parts] for x in parts])
    target = np.array([_off_diagonal(x, gram) for x in parts])
    energy = np.array([float(np.vdot(x, x)) for x in parts])
    weights = nonnegative_fit(normal, target, energy)[1:]
    base = np.zeros_like(gram)
    for weight, kernel in zip(weights, kernels, strict=True):
        base += weight * kernel
    return base, weights


def _off_diagonal(x: Array, y: Array) -> float:
    return float(np.vdot(x, y) - np.diag(x) @ np.diag(y))


def top_items(scores: Array, n: int) -> NDArray[np.int64]:
    """Return the `n` items of largest score, best first, ties by number."""
    return np.argsort(-scores, kind="stable")[:n].astype(np.int64)
