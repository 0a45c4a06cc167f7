"""Public item facts -> feature blocks, without any download and without any customer.

A block is a sparse matrix whose rows have norm 1 (or 0 where nothing is known); its kernel is
the cosine of two items. Hashed words need no vocabulary, TF-IDF weights come from the public
catalogue alone, so every party that holds the catalogue computes the same blocks.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

from .catalogue import Catalogue

HASH_DIM = 2**18
PRICE_BANDWIDTH = 0.2
NEGLIGIBLE = 1e-3
_PRICE_GRID = np.arange(-4.0, 4.0 + PRICE_BANDWIDTH, PRICE_BANDWIDTH)


@dataclass(frozen=True, eq=False)
class ItemFeatures:
    """Feature blocks, each (n_items, block_dim) with rows of norm 1 or 0.

    Attributes:
        names: what each block encodes: text, category, brand, price.
    """

    names: tuple[str, ...]
    blocks: tuple[csr_matrix, ...]

    def kernels(
        self, rows: NDArray[np.int64], cols: NDArray[np.int64]
    ) -> list[NDArray[np.float64]]:
        """Return one dense (len(rows), len(cols)) cosine matrix per block."""
        return [(block[rows] @ block[cols].T).toarray() for block in self.blocks]


@lru_cache(maxsize=4)
def item_features(catalogue: Catalogue) -> ItemFeatures:
    """Return the blocks of `catalogue` that hold anything."""
    blocks = {
        "text": words_block(catalogue.texts),
        "category": labels_block(catalogue.categories),
        "brand": labels_block(catalogue.brands),
        "price": price_block(catalogue.prices),
    }
    filled = {name: block for name, block in blocks.items() if block.nnz}
    return ItemFeatures(names=tuple(filled), blocks=tuple(filled.values()))


def words_block(texts: tuple[str, ...]) -> csr_matrix:
    """Return TF-IDF of words, (n_items, HASH_DIM)."""
    return _tfidf(texts, r"(?u)\b\w+\b", sublinear=True)


def labels_block(labels: tuple[str, ...]) -> csr_matrix:
    """Return TF-IDF of the labels between `|` of each item, (n_items, HASH_DIM)."""
    return _tfidf(labels, r"[^|]+", sublinear=False)


def price_block(prices: NDArray[np.float64]) -> csr_matrix:
    """Return Gaussian bumps over the standardised log price, (n_items, n_bumps).

    Two items' cosine falls with their distance in price; an unknown price gives an empty row.
    """
    known = np.isfinite(prices) & (prices > 0)
    if not known.any():
        return csr_matrix((len(prices), len(_PRICE_GRID)))
    logs = np.log(np.where(known, prices, 1.0))
    centre, spread = logs[known].mean(), logs[known].std() or 1.0
    standard = np.clip((logs - centre) / spread, -4.0, 4.0)
    bumps = np.exp(-0.5 * ((standard[:, None] - _PRICE_GRID) / PRICE_BANDWIDTH) ** 2)
    return _unit_rows(csr_matrix(np.where((bumps > NEGLIGIBLE) & known[:, None], bumps, 0.0)))


def _tfidf(texts: tuple[str, ...], token_pattern: str, *, sublinear: bool) -> csr_matrix:
    hasher = HashingVectorizer(
        n_features=HASH_DIM, token_pattern=token_pattern, alternate_sign=False, norm=None
    )
    counts = hasher.transform(texts)
    return csr_matrix(TfidfTransformer(sublinear_tf=sublinear).fit_transform(counts))


def _unit_rows(block: csr_matrix) -> csr_matrix:
    norms = np.sqrt(np.asarray(block.multiply(block).sum(axis=1)).ravel())
    return csr_matrix(diags(1.0 / np.where(norms > 0, norms, 1.0)) @ block)
