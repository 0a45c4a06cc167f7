"""What is known of head items before a model is learned: DP popularity and public features.

Two items of a feature block are alike by their cosine; times the roots of both popularities,
that is a guess at how often they are taken together. Kept as sparse factors: no (head, head)
matrix stays in memory. All of it is public or released, hence free of budget.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.linalg as sla
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from fondaco.shared.features import item_features

from .base import Array32, PublicFacts, Timelines

Array = NDArray[np.float64]

FLOOR = 0.05
"""Least popularity inside a logarithm [noise of a released number]."""
TAIL_RIDGE = 1.0
"""Of the regression of an item of mean popularity on the others' features [1]."""
SPREAD = 5.0
"""Weight of the items that a customer has not taken in the customer's ridge solution [1]."""
NOTHING = 1e-9
"""Eigenvalues smaller than this share of the largest are rounding."""


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadFacts:
    """Public facts of the first items of the head.

    Attributes:
        head: (M,) item numbers.
        popularity: (M,) de-noised, > 0.
        blocks: one (n_items, n_used) per feature block, without columns that the head lacks.
    """

    head: NDArray[np.int64]
    popularity: Array
    blocks: tuple[csr_matrix, ...]

    @property
    def share(self) -> Array:
        """(M,) popularity that adds up to 1."""
        return np.asarray(self.popularity / self.popularity.sum())

    def kernel(self, weights: Array | None = None) -> Array:
        """Return the (M, M) guess of all blocks, by `weights` (n_blocks,) or 1 each."""
        total = np.zeros((len(self.head), len(self.head)))
        for number, block in enumerate(self.blocks):
            weight = 1.0 if weights is None else weights[number]
            if weight:
                mine = block[self.head]
                total += weight * (mine @ mine.T).toarray()
        root = np.sqrt(self.popularity)
        return np.asarray(total * root[:, None] * root)

    def times_kernel(self, number: int, values: Array) -> Array:
        """Return the (M, k) product of one block's guess with `values` (M, k)."""
        mine, root = self.blocks[number][self.head], np.sqrt(self.popularity)[:, None]
        return np.asarray(root * (mine @ (mine.T @ (root * values))))

    def catalogue_times_kernel(self, weights: Array, popularity: Array, values: Array) -> Array:
        """Return the (n_items, k) product of all items' guess with `values` (M, k).

        Args:
            weights: (n_blocks,).
            popularity: (n_items,) de-noised.
            values: one row per item of the head.
        """
        total = np.zeros((len(popularity), values.shape[1]))
        scaled = np.sqrt(self.popularity)[:, None] * values
        for weight, block in zip(weights, self.blocks, strict=True):
            if weight:
                total += weight * (block @ (block[self.head].T @ scaled))
        return np.asarray(np.sqrt(popularity)[:, None] * total)


@lru_cache(maxsize=4)
def head_facts(facts: PublicFacts, n_items: int) -> HeadFacts:
    """Return the facts of the first `n_items` items of the head."""
    head = facts.model.head[:n_items]
    return HeadFacts(
        head=head,
        popularity=facts.model.head_popularity[:n_items].astype(np.float64),
        blocks=tuple(_used(block, head) for block in item_features(facts.catalogue).blocks),
    )


def _used(block: csr_matrix, head: NDArray[np.int64]) -> csr_matrix:
    return csr_matrix(block[:, np.unique(block[head].indices)])


def head_rows(timelines: Timelines, head: NDArray[np.int64]) -> Array32:
    """Return (n_users, M) histories over the head, each of norm 1 or empty."""
    places = np.full(timelines.n_items, len(head))
    places[head] = np.arange(len(head))
    rows = np.zeros((timelines.n_users, len(head) + 1), dtype=np.float32)
    users = np.repeat(np.arange(timelines.n_users), timelines.lengths)
    rows[users, places[timelines.item_nums]] = 1.0
    rows = rows[:, :-1]
    lengths = np.count_nonzero(rows, axis=1)
    return np.asarray(rows / np.sqrt(np.maximum(lengths, 1))[:, None], dtype=np.float32)


@lru_cache(maxsize=4)
def log_popularity(facts: PublicFacts) -> Array32:
    """Return (n_items,) logarithms of DP popularity, no less than a part of its noise."""
    noise = float(facts.model.noise_edge) / math.sqrt(2.0 * len(facts.model.head))
    floor = max(FLOOR * noise, 1e-9)
    return np.log(np.maximum(facts.model.popularity, floor)).astype(np.float32)


def leading(matrix: Array, width: int) -> tuple[Array, Array]:
    """Return the `width` largest eigenvalues, largest first, and their (M, width) vectors."""
    size = len(matrix)
    values, vectors = sla.eigh(matrix, subset_by_index=(max(0, size - width), size - 1))
    return values[::-1], vectors[:, ::-1]


def start_rows(known: HeadFacts, width: int) -> Array:
    """Return (M, width) rows of items: alike where features are, random where there are none.

    The leading factor of the features' kernel in the metric of popularity; what is the same for
    all items is taken out, and rows have a squared norm of 1 in the popularity-weighted mean.
    """
    root = np.sqrt(known.popularity)
    kernel = without(known.kernel(), root / np.linalg.norm(root))
    values, vectors = leading(kernel, width)
    told = values > max(NOTHING * values[0], NOTHING)
    rows = np.random.default_rng(0).normal(size=(len(root), width))
    rows -= known.share @ rows
    rows /= np.sqrt(np.maximum(width * (known.share @ rows**2), NOTHING))
    found = vectors[:, told] * np.sqrt(values[told]) / root[:, None]
    if told.any():
        rows[:, told] = found / np.sqrt((known.share @ found**2).sum())
    return rows


def without(matrix: Array, direction: Array) -> Array:
    """Return symmetric `matrix` with the unit vector `direction` (M,) projected out."""
    matrix = matrix - np.outer(direction, direction @ matrix)
    return np.asarray(matrix - np.outer(matrix @ direction, direction))


def user_moment(rows: Array, share: Array) -> Array:
    """Return (width, width) SPREAD R' diag(share) R + I, of a customer's ridge solution.

    The second moment under popularity stands for all items that a customer has not taken.
    """
    return np.asarray(SPREAD * (rows * share[:, None]).T @ rows + np.eye(rows.shape[1]))


def extended(facts: PublicFacts, rows: NDArray[np.floating]) -> Array32:
    """Return (n_items, width) rows: `rows` (M, width) of the head, the tail's by features.

    The tail's rows are a kernel regression on the head's; zeros where features say nothing.
    """
    return _extended(facts, len(rows), rows.astype(np.float32).tobytes())


@lru_cache(maxsize=4)
def _extended(facts: PublicFacts, size: int, blob: bytes) -> Array32:
    """The same, once for all batches of customers that are scored with equal rows."""
    rows = np.frombuffer(blob, dtype=np.float32).reshape(size, -1).astype(np.float64)
    known = head_facts(facts, size)
    total = np.zeros((len(facts.model.popularity), rows.shape[1]))
    if known.blocks:
        dual = sla.cho_solve(_regression(facts, size), rows)
        for block in known.blocks:
            total += block @ (block[known.head].T @ dual)
    total[known.head] = rows
    return total.astype(np.float32)


@lru_cache(maxsize=2)
def _regression(facts: PublicFacts, size: int) -> tuple[Array, bool]:
    """Cholesky factor of the head's features plus a ridge that unpopular items need more of."""
    known = head_facts(facts, size)
    gram = sum((mine @ mine.T).toarray() for mine in (b[known.head] for b in known.blocks))
    ridge = TAIL_RIDGE * known.popularity.mean() / known.popularity
    factor, lower = sla.cho_factor(gram + np.diag(ridge), lower=True)
    return np.asarray(factor), bool(lower)
