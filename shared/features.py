"""Public item facts -> feature blocks, without any download and without any customer.

A block is a sparse matrix whose rows have norm 1 (or 0 where nothing is known); its kernel is
the cosine of two items. Hashed words need no vocabulary, TF-IDF weights come from the public
catalogue alone, so every party that holds the catalogue computes the same blocks.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

from .catalogue import Catalogue

HASH_DIM = 2**18
BANDWIDTH = 0.2
"""Width of a bump over numbers [standard deviations]."""
NEGLIGIBLE = 1e-3
WORD = r"(?u)\b\w+\b"
LABEL = r"[^|]+"
_BUMPS = np.arange(-4.0, 4.0 + BANDWIDTH, BANDWIDTH)


@dataclass(frozen=True, eq=False)
class ItemFeatures:
    """Feature blocks, each (n_items, block_dim) with rows of norm 1 or 0.

    Attributes:
        names: what each block encodes.
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
    """Return the blocks of `catalogue` that hold anything.

    Text, category and brand are words and labels, price and year are numbers; every category
    also meets every number (a cheap tool is not a cheap toy).
    """
    category = labels_block(catalogue.categories)
    price = price_block(catalogue)
    year = numbers_block(catalogue.years)
    blocks = {
        "text": words_block(catalogue.texts),
        "category": category,
        "brand": labels_block(catalogue.brands),
        "price": price,
        "year": year,
        "category x price": product_block(category, price),
        "category x year": product_block(category, year),
    }
    filled = {name: block for name, block in blocks.items() if block.nnz}
    return ItemFeatures(names=tuple(filled), blocks=tuple(filled.values()))


def words_block(texts: tuple[str, ...], *, pairs: bool = False) -> csr_matrix:
    """Return TF-IDF of words (and with `pairs` of word pairs), (n_items, HASH_DIM)."""
    return _tfidf(texts, token_pattern=WORD, ngram_range=(1, 2 if pairs else 1))


def characters_block(texts: tuple[str, ...]) -> csr_matrix:
    """Return TF-IDF of character 3- to 5-grams within words, (n_items, HASH_DIM)."""
    return _tfidf(texts, analyzer="char_wb", ngram_range=(3, 5))


def labels_block(labels: tuple[str, ...]) -> csr_matrix:
    """Return TF-IDF of the labels between `|` of each item, (n_items, HASH_DIM)."""
    return _tfidf(labels, token_pattern=LABEL)


def price_block(catalogue: Catalogue) -> csr_matrix:
    """Return bumps over the logarithm of the price, (n_items, n_bumps)."""
    known = catalogue.prices > 0
    return numbers_block(
        np.log(np.where(known, catalogue.prices, 1.0)) + np.where(known, 0, np.nan)
    )


def numbers_block(values: NDArray[np.float64]) -> csr_matrix:
    """Return Gaussian bumps over the standardised values, (n_items, n_bumps).

    Two items' cosine falls with their distance; an unknown number (NaN) gives an empty row.
    """
    known = np.isfinite(values)
    if not known.any():
        return csr_matrix((len(values), len(_BUMPS)))
    held = np.where(known, values, values[known][0])
    spread = float(held[known].std()) or 1.0
    standard = np.clip((held - held[known].mean()) / spread, _BUMPS[0], _BUMPS[-1])
    bumps = np.exp(-0.5 * ((standard[:, None] - _BUMPS) / BANDWIDTH) ** 2)
    return unit_rows(csr_matrix(np.where((bumps > NEGLIGIBLE) & known[:, None], bumps, 0.0)))


def product_block(left: csr_matrix, right: csr_matrix) -> csr_matrix:
    """Return the row-wise Kronecker product: its cosine is the product of both cosines.

    Columns that no item uses are left out, (n_items, n_used_pairs).
    """
    lengths = np.diff(right.indptr)
    entries = left.tocoo()
    repeats = lengths[entries.row]
    rows = np.repeat(entries.row, repeats)
    offsets = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    slots = np.repeat(right.indptr[entries.row], repeats) + offsets
    pairs = np.repeat(entries.col.astype(np.int64), repeats) * right.shape[1]
    used, columns = np.unique(pairs + right.indices[slots], return_inverse=True)
    values = np.repeat(entries.data, repeats) * right.data[slots]
    return unit_rows(csr_matrix((values, (rows, columns)), shape=(left.shape[0], len(used))))


def _tfidf(texts: tuple[str, ...], **tokens: Any) -> csr_matrix:  # noqa: ANN401  (sklearn's)
    hasher = HashingVectorizer(n_features=HASH_DIM, alternate_sign=False, norm=None, **tokens)
    weights = TfidfTransformer(sublinear_tf=True)
    return csr_matrix(weights.fit_transform(hasher.transform(texts)))


def unit_rows(block: csr_matrix) -> csr_matrix:
    """Return `block` with every row that is not empty at norm 1."""
    norms = np.sqrt(np.asarray(block.multiply(block).sum(axis=1)).ravel())
    return csr_matrix(diags(1.0 / np.where(norms > 0, norms, 1.0)) @ block)
