"""The local content model: what a customer's own items look like, in public item features.

It is computed at the silo, from one customer's history at a time, and nothing of it leaves. It
scores every item of the catalogue, also those nobody has bought.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack
from scipy.sparse.linalg import svds

from fondaco.shared.catalogue import Catalogue
from fondaco.shared.features import item_features

DIM = 128
RECENCY_FLOOR = 0.05


@lru_cache(maxsize=4)
def content_vectors(catalogue: Catalogue) -> NDArray[np.float32]:
    """Return (n_items, dim) vectors of norm 1 whose dot products follow the features' cosine.

    A fixed projection of the public feature blocks (their leading singular directions), so
    every silo of a catalogue has the same. Items without any public fact get zeros; a
    catalogue without any gives dim 0.
    """
    blocks = item_features(catalogue).blocks
    if not blocks:
        return np.zeros((len(catalogue), 0), dtype=np.float32)
    vectors = leading_factor(csr_matrix(hstack(blocks)), DIM)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1.0), dtype=np.float32)


def leading_factor(matrix: csr_matrix, rank: int) -> NDArray[np.float64]:
    """Return (n, at most rank) F whose F F^T is the best such part of matrix matrix^T."""
    used = matrix[:, np.flatnonzero(np.bincount(matrix.indices, minlength=matrix.shape[1]))]
    small = min(used.shape)
    if small <= rank + 1:
        left, values, _ = np.linalg.svd(used.toarray(), full_matrices=False)
        return np.asarray(left * values)
    start = np.ones(small) / np.sqrt(small)
    left, values, _ = svds(used.astype(np.float64), k=rank, v0=start)
    return np.asarray(left * values)


def profile_scores(history: csr_matrix, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (n_users, n_items) similarity of every item to each customer's history.

    Args:
        history: (n_users, n_items) weights, such as recency.
        vectors: (n_items, dim) of `content_vectors`.
    """
    profiles = np.asarray(history @ vectors, dtype=np.float32)
    return profiles @ vectors.T


def recency_weights(ages_days: csr_matrix, half_life_days: float) -> csr_matrix:
    """Return the history with weight 1 for an item taken just now, halving with age.

    Args:
        ages_days: (n_users, n_items) stored entries hold age + 1 [days], so 0 stays absent.
        half_life_days: age at which a weight is half way down to RECENCY_FLOOR [days].
    """
    weights = ages_days.copy()
    halvings = (weights.data - 1.0) / half_life_days
    weights.data = RECENCY_FLOOR + (1.0 - RECENCY_FLOOR) * 0.5**halvings
    return weights
