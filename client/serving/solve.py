"""EASE on Gram matrices that are a diagonal plus few directions: a silo's personal solve.

A = diag(d) + U U^T is never formed. With C = I + U^T D^-1 U = L L^T, Woodbury gives
A^-1 = D^-1 - W W^T, W = D^-1 U L^-T, and EASE's B = I - A^-1 / diag(A^-1), column by column.
Source: Steck 2019, solved by the Woodbury identity.
"""

from functools import lru_cache
from typing import Protocol

import numpy as np
import scipy.linalg as sla
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags, hstack

from fondaco.shared.catalogue import Catalogue
from fondaco.shared.features import item_features
from fondaco.shared.records import GlobalModel

from ..content import content_vectors, leading_factor

Array32 = NDArray[np.float32]

OWN_RANK = 256
MOST_DENSE = 4000
"""Customers up to whom their likeness to each other is formed as a dense matrix."""
KERNEL_RANK = 128


class Solve(Protocol):
    """Scores histories with item-item weights that it holds."""

    def score(self, history: csr_matrix) -> Array32:
        """Return (n_users, n_items) scores of weighted histories."""


class LowRankEase:
    """Scores histories by EASE with the Gram diag(diagonal) + factor factor^T.

    Args:
        factor: (n_items, rank) U.
        diagonal: (n_items,) d > 0, ridge included.
    """

    def __init__(self, factor: Array32, diagonal: Array32) -> None:
        scaled = factor / diagonal[:, None]
        core = np.eye(factor.shape[1], dtype=np.float32) + factor.T @ scaled
        lower = np.linalg.cholesky(core.astype(np.float64)).astype(np.float32)
        self._w = sla.solve_triangular(lower, scaled.T, lower=True).T
        self._inverse = 1.0 / diagonal
        direct = self._inverse - np.einsum("ij,ij->i", self._w, self._w)
        self._direct = np.maximum(direct, 1e-6 * self._inverse)

    def score(self, history: csr_matrix) -> Array32:
        """Return (n_users, n_items) scores of weighted histories."""
        scores: Array32 = np.asarray(history @ self._w, dtype=np.float32) @ self._w.T
        entries = history.tocoo()
        scores[entries.row, entries.col] -= entries.data * self._inverse[entries.col]
        scores /= self._direct
        scores[entries.row, entries.col] += entries.data
        return scores


def own_factor(train: csr_matrix) -> Array32:
    """Return (n_items, rank) U with U U^T = sum_u x_u x_u^T / n_u of the silo's customers.

    Exact up to OWN_RANK customers, beyond that the best part of that rank.
    """
    lengths = np.diff(train.indptr)
    rows = train[lengths > 0]
    scaled = csr_matrix(diags(lengths[lengths > 0] ** -0.5) @ rows)
    if scaled.shape[0] <= OWN_RANK:
        return np.asarray(scaled.T.toarray(), dtype=np.float32)
    if scaled.shape[0] > MOST_DENSE:
        return leading_factor(csr_matrix(scaled.T), OWN_RANK).astype(np.float32)
    values, vectors = sla.eigh(
        (scaled @ scaled.T).toarray(),
        subset_by_index=(scaled.shape[0] - OWN_RANK, scaled.shape[0] - 1),
    )
    del values
    return np.asarray(scaled.T @ vectors, dtype=np.float32)


@lru_cache(maxsize=4)
def kernel_factor(catalogue: Catalogue) -> Array32:
    """Return (n_items, rank) K, rows of norm 1 or 0, with K K^T close to items' likeness."""
    vectors = content_vectors(catalogue)
    if not vectors.nnz:
        return np.zeros((len(catalogue), 0), dtype=np.float32)
    factor = leading_factor(vectors, KERNEL_RANK)
    norms = np.linalg.norm(factor, axis=1, keepdims=True)
    return np.asarray(factor / np.where(norms > 0, norms, 1.0), dtype=np.float32)


@lru_cache(maxsize=4)
def global_factor(model: GlobalModel, catalogue: Catalogue) -> tuple[Array32, Array32]:
    """Return everybody's de-noised Gram over the whole catalogue: (n_items, rank) and (n_items,).

    The factor holds the Gram's directions above the noise, continued to items outside of the
    head by popularity, and the public feature kernel with its learned weights; the second part
    is the diagonal.
    """
    items = len(catalogue)
    along = float(model.gram_top @ model.head_popularity) / float(
        model.head_popularity @ model.head_popularity
    )
    towards = model.gram_factors.T @ model.gram_top / float(model.gram_top @ model.gram_top)
    directions = along * np.outer(model.popularity, towards)
    directions[model.head] = model.gram_factors
    diagonal = np.zeros(items, dtype=np.float32)
    diagonal[model.head] = model.gram_diagonal
    popularity = model.popularity.copy()
    popularity[model.head] = model.head_popularity
    blocks = [
        np.sqrt(weight) * block
        for weight, block in zip(model.kernel_weights, item_features(catalogue).blocks, strict=True)
        if weight > 0
    ]
    if not blocks:
        return directions.astype(np.float32), diagonal
    scaled = csr_matrix(diags(np.sqrt(popularity)) @ hstack(blocks))
    kernel = leading_factor(scaled, KERNEL_RANK)
    return np.concatenate([directions, kernel], axis=1).astype(np.float32), diagonal
