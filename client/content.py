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
from fondaco.shared.features import (
    characters_block,
    labels_block,
    unit_rows,
    words_block,
)

YEAR_WIDTHS = (1, 5, 10)
RECENCY_FLOOR = 0.05
"""Weight that an old history row keeps."""
_PROFILE_CELLS = 16_000_000


@lru_cache(maxsize=4)
def content_vectors(catalogue: Catalogue) -> csr_matrix:
    """Return (n_items, dim) sparse rows of norm 1 whose dot products say how alike items are.

    Hashed words and word pairs, hashed character 3- to 5-grams, and hashed labels (category,
    brand, price band, years), a third each; TF-IDF weights come from the public catalogue
    alone, so a rare label says more than a common price. Items without any public fact get
    empty rows. The hash is the fixed projection: squeezing its columns into 128 dense ones
    lost half of the quality on product titles.
    """
    blocks = [
        words_block(catalogue.texts, pairs=True),
        characters_block(catalogue.texts),
        labels_block(_labels(catalogue)),
    ]
    filled = [block for block in blocks if block.nnz]
    if not filled:
        return csr_matrix((len(catalogue), 1), dtype=np.float32)
    vectors = unit_rows(csr_matrix(hstack(filled)))
    used = np.flatnonzero(np.bincount(vectors.indices, minlength=vectors.shape[1]))
    return csr_matrix(vectors[:, used], dtype=np.float32)


def _labels(catalogue: Catalogue) -> tuple[str, ...]:
    """Every public fact of an item as labels between `|`, each told apart by its kind."""
    categories = [
        "|".join(f"category {part}" for part in text.split("|") if part)
        for text in catalogue.categories
    ]
    columns = [categories]
    columns.append([f"brand {brand}" if brand else "" for brand in catalogue.brands])
    bands = np.floor(np.log2(np.where(catalogue.prices > 0, catalogue.prices, np.nan)))
    columns.append(["" if np.isnan(band) else f"price {band:.0f}" for band in bands])
    for width in YEAR_WIDTHS:
        spans = np.floor(catalogue.years / width)
        columns.append(["" if np.isnan(span) else f"{width} years {span:.0f}" for span in spans])
    return tuple("|".join(filter(None, labels)) for labels in zip(*columns, strict=True))


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


def profile_scores(history: csr_matrix, vectors: csr_matrix) -> NDArray[np.float32]:
    """Return (n_users, n_items) similarity of every item to each customer's history.

    Args:
        history: (n_users, n_items) weights, such as recency.
        vectors: (n_items, dim) of `content_vectors`.
    """
    scores = np.empty(history.shape, dtype=np.float32)
    step = max(1, _PROFILE_CELLS // vectors.shape[1])
    for start in range(0, len(scores), step):
        profiles = (history[start : start + step] @ vectors).toarray()
        scores[start : start + step] = (vectors @ profiles.T).T
    return scores


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
