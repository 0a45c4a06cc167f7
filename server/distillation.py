"""Everybody's fused model -> one small student: post-processing, free of budget.

The teacher is asked about histories that are drawn from released facts (DP popularity and the
published item factors), and the student is fitted to its answers: ridge regression of the scores
on the history, then the best part of the wanted rank. No customer's row is read.

Source: Hinton, Vinyals & Dean 2015; Izenman 1975 (reduced-rank regression).
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg as sla
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from fondaco.shared.models.base import Timelines
from fondaco.shared.models.published import GlobalParts, never_ranked
from fondaco.shared.models.student import Student, Student8, unit_rows

from .tensors import save_tensors

Array = NDArray[np.float64]

HISTORIES = 6_000
CELLS = 60_000_000
"""Teacher's answers held at once: fewer histories for a large catalogue."""
LENGTHS = (2, 60)
"""Drawn histories have so many items, evenly on a log scale."""
ALIKE = 0.5
"""Part of a drawn history that follows its first item's neighbours; the rest is popularity's."""
SHARPNESS = 8.0
RIDGE = 1.0


def distil(parts: GlobalParts, rank: int, seed: int = 0) -> Student:
    """Return a student of `parts`.

    Args:
        parts: the teacher.
        rank: of the student's item factors.
        seed: of the drawn histories.
    """
    rng = np.random.default_rng(seed)
    n_items = len(parts.model.popularity)
    n_users = max(64, min(HISTORIES, CELLS // n_items))
    timelines = draw_histories(parts, n_users, rng)
    answers = parts.fused(timelines, never_ranked(timelines, repeats=True)).astype(np.float64)
    nobody = csr_matrix((1, n_items), dtype=np.float32)
    bias = parts.fused(_timelines(nobody), np.zeros((1, n_items), dtype=np.bool_))[0]
    history = unit_rows(timelines.incidence())
    used = np.flatnonzero(np.bincount(history.indices, minlength=n_items))
    seen = history[:, used].astype(np.float64)
    gram = (seen.T @ seen).toarray()
    start = _published_weights(parts, used)
    if start.any():
        guess = seen @ start
        start *= float(np.vdot(guess, answers) / np.vdot(guess, guess))
    rest = answers - seen @ start
    gram[np.diag_indices_from(gram)] += RIDGE * len(history.indptr) / len(used)
    weights = start + sla.cho_solve(sla.cho_factor(gram), seen.T @ rest)
    directions = _leading_directions(gram, weights, rank)
    item_in = np.zeros((n_items, directions.shape[1]), dtype=np.float32)
    item_in[used] = weights @ directions
    return Student(item_in=item_in, item_out=directions.astype(np.float32), bias=bias)


def _published_weights(parts: GlobalParts, items: NDArray[np.int64]) -> Array:
    """(n, n_items) what the Gram part makes of each of `items`; zeros without one."""
    model = parts.model
    rows = np.zeros((len(model.popularity), model.item_in.shape[1]))
    rows[model.head] = model.item_in
    return np.asarray(rows[items] @ model.item_out.T.astype(np.float64))


def _leading_directions(gram: Array, weights: Array, rank: int) -> Array:
    """(n_items, rank) orthonormal: where fitted scores, history @ weights, vary most.

    Args:
        gram: (n_used, n_used) of the histories, positive definite.
        weights: (n_used, n_items).
        rank: at most n_used.
    """
    rows = sla.cholesky(gram) @ weights
    top = (len(rows) - min(rank, len(rows)), len(rows) - 1)
    values, vectors = sla.eigh(rows @ rows.T, subset_by_index=top)
    kept = values > values[-1] * len(rows) * np.finfo(np.float64).eps
    return np.asarray(rows.T @ vectors[:, kept] / np.sqrt(values[kept]))


def draw_histories(parts: GlobalParts, n_users: int, rng: np.random.Generator) -> Timelines:
    """Return invented customers: a first item by popularity, then its neighbours and popularity."""
    model = parts.model
    n_items = len(model.popularity)
    chance = model.popularity.astype(np.float64) + 1e-9
    chance /= chance.sum()
    low, high = np.log(LENGTHS[0]), np.log(min(LENGTHS[1], n_items))
    lengths = np.exp(rng.uniform(low, max(low, high), n_users)).astype(np.int64)
    place = {int(item): num for num, item in enumerate(model.head)}
    rows = []
    for length in np.minimum(lengths, n_items):
        first = int(rng.choice(n_items, p=chance))
        mixed = chance
        if first in place and model.item_in.shape[1]:
            alike = model.item_out @ model.item_in[place[first]]
            top = np.exp(SHARPNESS * (alike - alike.max()) / max(float(np.ptp(alike)), 1e-9))
            near = top * chance
            mixed = ALIKE * near / near.sum() + (1.0 - ALIKE) * chance
        others = rng.choice(n_items, size=length, replace=False, p=mixed)
        rows.append(np.unique(np.append(others, first)))
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    items = np.concatenate(rows)
    matrix = csr_matrix((np.ones(len(items)), items, indptr), shape=(n_users, n_items))
    return _timelines(matrix)


def save_student(student: Student8, teacher_digest: str, path: Path) -> None:
    """Write the eight-bit student with the digest of its teacher."""
    arrays: dict[str, NDArray[Any]] = {
        "item_in": student.item_in.values,
        "item_in_scales": student.item_in.scales,
        "item_out": student.item_out.values,
        "item_out_scales": student.item_out.scales,
        "bias": student.bias,
    }
    save_tensors(arrays, path, {"schema": "1", "teacher": teacher_digest})


def _timelines(history: csr_matrix) -> Timelines:
    return Timelines(
        indptr=history.indptr.astype(np.int64),
        item_nums=history.indices.astype(np.int64),
        times=np.zeros(history.nnz),
        now=math.inf,
        n_items=history.shape[1],
    )
