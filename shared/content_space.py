"""Public item facts -> one dense vector each, of a length that no catalogue decides.

Merchants that share no item still share this space, so what is learned in it passes between
them. The hash is fixed; only the mean and the rotation come from the plan's public catalogue.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from .catalogue import Catalogue
from .features import labels_block, price_block, product_block, words_block
from .hashing import mix64

DIM = 256
"""Length of an item's vector."""
RAW_DIM = 1024
"""Length of the hashed vector before its rotation."""
SLOTS = 8
"""Signed places of each hashed word or label; their collisions average out."""
BLOCK_WEIGHTS = {
    "text": 1.0,
    "category": 1.0,
    "brand": 0.5,
    "price": 0.5,
    "category x price": 0.5,
}
"""Squared length of each kind of fact before an item's vector is brought to length 1."""
_ROWS_AT_ONCE = 8192
_NO_LENGTH = 1e-9


@lru_cache(maxsize=4)
def content_space(catalogue: Catalogue) -> NDArray[np.float32]:
    """Return (n_items, DIM) rows of norm 1, or 0 where nothing is known of any item.

    Equal catalogues give equal vectors up to float32 rounding.
    """
    sketches = [
        (block, np.float32(np.sqrt(BLOCK_WEIGHTS[name])) * _projection(block, salt))
        for salt, (name, block) in enumerate(_blocks(catalogue).items())
        if block.nnz
    ]
    n_items = len(catalogue)
    vectors = np.zeros((n_items, DIM), dtype=np.float32)
    if not sketches:
        return vectors
    starts = range(0, n_items, _ROWS_AT_ONCE)

    def raw(start: int) -> NDArray[np.float64]:
        rows, total = slice(start, start + _ROWS_AT_ONCE), np.zeros(RAW_DIM)
        for block, projection in sketches:
            total = total + (block[rows] @ projection).toarray()
        return total

    mean = np.sum([raw(start).sum(axis=0) for start in starts], axis=0) / n_items
    moment = np.zeros((RAW_DIM, RAW_DIM))
    for start in starts:
        centred = raw(start) - mean
        moment += centred.T @ centred
    _, directions = np.linalg.eigh(moment)
    leading = _signed(directions[:, ::-1][:, :DIM])
    for start in starts:
        vectors[start : start + _ROWS_AT_ONCE] = (raw(start) - mean) @ leading
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, _NO_LENGTH), dtype=np.float32)


def _blocks(catalogue: Catalogue) -> dict[str, csr_matrix]:
    category, price = labels_block(catalogue.categories), price_block(catalogue)
    return {
        "text": words_block(catalogue.texts),
        "category": category,
        "brand": labels_block(catalogue.brands),
        "price": price,
        "category x price": product_block(category, price),
    }


def _projection(block: csr_matrix, salt: int) -> csr_matrix:
    """Return (block_dim, RAW_DIM) signed places of each column, by a hash of (salt, column)."""
    columns = np.unique(block.indices).astype(np.uint64)
    keys = mix64(columns + np.uint64(salt << 32))
    with np.errstate(over="ignore"):
        hashes = mix64(np.add.outer(keys, np.arange(SLOTS, dtype=np.uint64)))
    places = (hashes % np.uint64(RAW_DIM)).astype(np.int64)
    signs = np.where((hashes >> np.uint64(40)) & np.uint64(1), 1.0, -1.0) / np.sqrt(SLOTS)
    rows = np.repeat(columns.astype(np.int64), SLOTS)
    shape = (block.shape[1], RAW_DIM)
    return csr_matrix((signs.ravel().astype(np.float32), (rows, places.ravel())), shape=shape)


def _signed(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (dim, n) directions, each turned so that its largest number is positive."""
    largest = np.argmax(np.abs(directions), axis=0)
    signs = np.sign(directions[largest, np.arange(directions.shape[1])])
    return np.asarray(directions * np.where(signs == 0, 1.0, signs))
