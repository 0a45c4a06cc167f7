"""One small model that imitates everybody's fused model: item factors, maybe in eight bits.

Scores are history @ item_in @ item_out^T, whatever the teacher's parts are. It is made by
`server/distillation.py` from public and released facts alone, hence free of budget.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

Array32 = NDArray[np.float32]

LEVELS = 127
_BLOCK = 4096


@dataclass(frozen=True, kw_only=True, eq=False)
class Factors8:
    """(n, rank) numbers as int8, each row with a scale of its own.

    Attributes:
        values: (n, rank) int8.
        scales: (n,) float32; a row is values * scale.
    """

    values: NDArray[np.int8]
    scales: Array32

    @classmethod
    def of(cls, rows: Array32) -> "Factors8":
        """Return the nearest numbers to (n, rank) `rows`; off by at most half a scale."""
        scales = np.abs(rows).max(axis=1, initial=0.0) / LEVELS
        safe = np.where(scales > 0, scales, 1.0)[:, None]
        values = np.rint(rows / safe).astype(np.int8)
        return cls(values=values, scales=scales.astype(np.float32))

    def rows(self, start: int, stop: int) -> Array32:
        """Return (stop - start, rank) float32."""
        part: Array32 = self.values[start:stop].astype(np.float32)
        part *= self.scales[start:stop, None]
        return part

    @property
    def size_bytes(self) -> int:
        """What it takes."""
        return self.values.nbytes + self.scales.nbytes


@dataclass(frozen=True, kw_only=True, eq=False)
class Student:
    """The imitation in float32.

    Attributes:
        item_in: (n_items, rank) added up over a history, which has norm 1.
        item_out: (n_items, rank).
        bias: (n_items,) all that is known to a customer without a history.
    """

    item_in: Array32
    item_out: Array32
    bias: Array32

    def score(self, history: csr_matrix) -> Array32:
        """Return (n_users, n_items) scores of 0/1 histories."""
        scores = np.asarray((unit_rows(history) @ self.item_in) @ self.item_out.T)
        return _or_bias(scores, history, self.bias)

    @property
    def size_bytes(self) -> int:
        """What it takes."""
        return self.item_in.nbytes + self.item_out.nbytes + self.bias.nbytes


@dataclass(frozen=True, kw_only=True, eq=False)
class Student8:
    """The imitation with both factors in eight bits."""

    item_in: Factors8
    item_out: Factors8
    bias: Array32

    @classmethod
    def of(cls, student: Student) -> "Student8":
        """Return `student`, rounded."""
        return cls(
            item_in=Factors8.of(student.item_in),
            item_out=Factors8.of(student.item_out),
            bias=student.bias,
        )

    def score(self, history: csr_matrix) -> Array32:
        """Return (n_users, n_items) scores of 0/1 histories; factors are widened in blocks."""
        n_items = len(self.bias)
        latent = np.zeros((history.shape[0], self.item_in.values.shape[1]), dtype=np.float32)
        columns = unit_rows(history).tocsc()
        scores = np.empty((history.shape[0], n_items), dtype=np.float32)
        for start in range(0, n_items, _BLOCK):
            stop = min(start + _BLOCK, n_items)
            latent += columns[:, start:stop] @ self.item_in.rows(start, stop)
        for start in range(0, n_items, _BLOCK):
            stop = min(start + _BLOCK, n_items)
            scores[:, start:stop] = latent @ self.item_out.rows(start, stop).T
        return _or_bias(scores, history, self.bias)

    @property
    def size_bytes(self) -> int:
        """What it takes."""
        return self.item_in.size_bytes + self.item_out.size_bytes + self.bias.nbytes


def _or_bias(scores: Array32, history: csr_matrix, bias: Array32) -> Array32:
    scores[np.diff(history.indptr) == 0] = bias
    return scores


def unit_rows(history: csr_matrix) -> csr_matrix:
    """Return (n_users, n_items) float32 rows of norm 1, empty ones as they are."""
    lengths = np.diff(history.indptr)
    rows = history.astype(np.float32, copy=True)
    rows.data[:] = np.repeat(1.0 / np.sqrt(np.maximum(lengths, 1)), lengths)
    return rows
