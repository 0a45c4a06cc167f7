"""What everybody's rows in one place would give without privacy: the comparators of a report.

Each entry of `BASELINES` fits on the training rows of all silos pooled and tunes its few knobs on
pooled validation customers by the scenario's headline metric. None is federated or private, so
none may be served: they only show what the guarantee costs. Without validation customers the
middle of each grid is taken. Among items with equal scores the more popular one wins, so a
customer without history gets the popular items.
"""

import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from fondaco.shared.errors import ConfigError, DataError
from fondaco.shared.metrics import evaluate, parse_metric, rank_topk

Scorer = Callable[[csr_matrix, NDArray[np.int64]], NDArray[np.float32]]
"""(history (n, n_items), (n,) user rows) -> (n, n_items) scores; called in batches."""
Fit = Callable[[csr_matrix, csr_matrix, csr_matrix, str, np.random.Generator], Scorer]
"""(train, valid_history, valid_targets, metric, rng) -> Scorer; matrices hold 0 and 1."""

VALID_USERS = 2_000
"""Tuning looks at no more validation customers than this, drawn at random."""
KNN_HEAD = 20_000
"""Items (the most popular) that may have neighbours; the others score zero."""
KNN_SHRINKS = (0.0, 20.0, 100.0)
"""Added to the denominator of the cosine [customers]."""
KNN_NEIGHBOURS = (20, 60, 200)
EASE_HEAD = 5_000
"""Items (the most popular) of the closed-form solve; the others score zero."""
EASE_RIDGES = (10.0, 30.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4)
"""Added to the diagonal of the Gram matrix [customers]."""
ALS_FACTORS = 64
ALS_ITERATIONS = 10
ALS_GRID = ((2.0, 10.0), (2.0, 30.0), (2.0, 100.0), (4.0, 30.0), (4.0, 100.0))
"""(weight of a taken item over one not taken, ridge)."""

_BATCH_CELLS = 8_000_000
_TIE_BREAK = 1e-6


def rank_by(
    scorer: Scorer, history: csr_matrix, k: int, mask: csr_matrix | None = None
) -> NDArray[np.int64]:
    """Return (n_users, k) item numbers as `rank_topk` does, scoring a few customers at a time.

    Args:
        scorer: from a `Fit`.
        history: (n_users, n_items) what is known of each customer.
        k: list length.
        mask: (n_users, n_items) items never ranked; the history by default.
    """
    hidden = history if mask is None else mask
    ranking = np.full((history.shape[0], k), -1, dtype=np.int64)
    for rows in _batches(*history.shape):
        ranking[rows] = rank_topk(scorer(history[rows], rows), hidden[rows], k)
    return ranking


def fit_popularity(
    train: csr_matrix,
    valid_history: csr_matrix,
    valid_targets: csr_matrix,
    metric: str,
    rng: np.random.Generator,
) -> Scorer:
    """Return a scorer that gives everybody the items most customers took; nothing to tune."""
    del valid_history, valid_targets, metric, rng
    popularity = _popularity(train).astype(np.float32)

    def score(history: csr_matrix, user_rows: NDArray[np.int64]) -> NDArray[np.float32]:
        del user_rows
        return np.tile(popularity, (history.shape[0], 1))

    return score


def fit_item_knn(
    train: csr_matrix,
    valid_history: csr_matrix,
    valid_targets: csr_matrix,
    metric: str,
    rng: np.random.Generator,
) -> Scorer:
    """Return a scorer that sums, for each item, the shrunk cosines of its nearest taken items.

    Source: Sarwar et al. 2001; shrinkage of Bell and Koren 2007.
    """
    popularity = _popularity(train)
    head = _head(popularity, KNN_HEAD)
    nearest = _nearest_items(train[:, head])
    candidates = [
        partial(_knn_scorer, nearest[shrink], n_kept, head, popularity)
        for shrink in KNN_SHRINKS
        for n_kept in KNN_NEIGHBOURS
    ]
    return _Tuner(valid_history, valid_targets, metric, rng).best_of(candidates)


def fit_ease(
    train: csr_matrix,
    valid_history: csr_matrix,
    valid_targets: csr_matrix,
    metric: str,
    rng: np.random.Generator,
) -> Scorer:
    """Return the linear autoencoder with zero diagonal, solved in closed form on the head.

    Source: Steck 2019, equation 8.
    """
    popularity = _popularity(train)
    head = _head(popularity, EASE_HEAD)
    rows = train[:, head].astype(np.float32)
    gram = (rows.T @ rows).toarray()
    candidates = [partial(_ease_scorer, gram, ridge, head, popularity) for ridge in EASE_RIDGES]
    return _Tuner(valid_history, valid_targets, metric, rng).climb(candidates)


def fit_ials(
    train: csr_matrix,
    valid_history: csr_matrix,
    valid_targets: csr_matrix,
    metric: str,
    rng: np.random.Generator,
) -> Scorer:
    """Return weighted matrix factorisation; customers are folded in from their history.

    Raises:
        ConfigError: the library `implicit` is not installed.

    Source: Hu, Koren and Volinsky 2008, as in the library `implicit`.
    """
    make_model = _import_als()
    seed = int(rng.integers(2**31))
    candidates = [
        partial(_als_scorer, partial(make_model, random_state=seed), train, weight, ridge)
        for weight, ridge in ALS_GRID
    ]
    return _Tuner(valid_history, valid_targets, metric, rng).best_of(candidates)


BASELINES: dict[str, Fit] = {
    "popularity": fit_popularity,
    "item_knn": fit_item_knn,
    "ease_pooled": fit_ease,
    "ials_pooled": fit_ials,
}


class _Tuner:
    """Chooses among scorers by the headline metric of validation customers."""

    def __init__(
        self, history: csr_matrix, targets: csr_matrix, metric: str, rng: np.random.Generator
    ) -> None:
        n_valid = min(VALID_USERS, targets.shape[0])
        drawn = rng.choice(targets.shape[0], n_valid, replace=False) if n_valid else ()
        rows = np.sort(np.asarray(drawn, dtype=np.int64))
        self._history, self._targets, self._metric = history[rows], targets[rows], metric

    def _value(self, scorer: Scorer) -> float:
        ranking = rank_by(scorer, self._history, parse_metric(self._metric).k)
        popularity = np.ones(self._targets.shape[1])
        values = evaluate(ranking, self._targets, (self._metric,), popularity=popularity)
        return float(values[self._metric].mean())

    def best_of(self, candidates: Sequence[Callable[[], Scorer]]) -> Scorer:
        """Return the best of all candidates, the first of equals."""
        if self._targets.shape[0] == 0:
            return candidates[len(candidates) // 2]()
        best = candidates[0]()
        best_value = self._value(best)
        for make in candidates[1:]:
            scorer = make()
            value = self._value(scorer)
            if value > best_value:
                best, best_value = scorer, value
        return best

    def climb(self, candidates: Sequence[Callable[[], Scorer]]) -> Scorer:
        """Return the first peak when walking the ordered candidates uphill from their middle."""
        at = len(candidates) // 2
        best = candidates[at]()
        if self._targets.shape[0] == 0:
            return best
        best_value = self._value(best)
        for step in (-1, 1):
            start = at
            while 0 <= at + step < len(candidates):
                scorer = candidates[at + step]()
                value = self._value(scorer)
                if value <= best_value:
                    break
                best, best_value, at = scorer, value, at + step
            if at != start:
                break
        return best


def _batches(n_rows: int, n_columns: int) -> Iterator[NDArray[np.int64]]:
    step = max(1, _BATCH_CELLS // max(1, n_columns))
    for start in range(0, n_rows, step):
        yield np.arange(start, min(n_rows, start + step), dtype=np.int64)


def _popularity(train: csr_matrix) -> NDArray[np.float64]:
    """Return (n_items,) how many customers took each item."""
    return np.bincount(train.indices, minlength=train.shape[1]).astype(np.float64)


def _head(popularity: NDArray[np.float64], size: int) -> NDArray[np.int64]:
    """Return the ascending numbers of the (at most `size`) most popular items that sold."""
    if not popularity.any():
        raise DataError("no training rows at all; baselines need at least one")
    order = np.argsort(-popularity, kind="stable")[:size]
    return np.sort(order[popularity[order] > 0])


def _tie_break(popularity: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return (n_items,) additions too small to reorder anything but equal scores."""
    share = popularity / max(1.0, popularity.max())
    return np.asarray(_TIE_BREAK * share, dtype=np.float32)


def _nearest_items(
    train: csr_matrix,
) -> dict[float, tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Return per shrinkage (n_head, n_kept) nearest items, nearest first, and their cosines."""
    n_items = train.shape[1]
    norms = np.sqrt(_popularity(train)).astype(np.float32)
    rows = train.astype(np.float32)
    columns = rows.tocsc()
    parts: dict[float, list[Any]] = {shrink: [] for shrink in KNN_SHRINKS}
    for block in _batches(n_items, n_items):
        together = (columns[:, block].T @ rows).toarray()
        together[np.arange(len(block)), block] = 0.0
        for shrink, found in parts.items():
            cosines = together / (norms[block, None] * norms + np.float32(shrink))
            found.append(_largest(cosines, min(max(KNN_NEIGHBOURS), n_items)))
    return {
        shrink: (np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found]))
        for shrink, found in parts.items()
    }


def _largest(
    values: NDArray[np.float32], n_kept: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return (n, n_kept) columns of the largest values, largest first, and those values."""
    columns = np.argpartition(-values, n_kept - 1, axis=1)[:, :n_kept]
    kept = np.take_along_axis(values, columns, axis=1)
    order = np.argsort(-kept, axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1), np.take_along_axis(kept, order, axis=1)


def _knn_scorer(
    nearest: tuple[NDArray[np.int64], NDArray[np.float32]],
    n_kept: int,
    head: NDArray[np.int64],
    popularity: NDArray[np.float64],
) -> Scorer:
    neighbours, cosines = nearest[0][:, :n_kept], nearest[1][:, :n_kept]
    n_items, tie_break = len(popularity), _tie_break(popularity)
    candidates = np.repeat(head, neighbours.shape[1])
    triples = (cosines.ravel(), (head[neighbours.ravel()], candidates))
    weights = csr_matrix(triples, shape=(n_items, n_items))

    def score(history: csr_matrix, user_rows: NDArray[np.int64]) -> NDArray[np.float32]:
        del user_rows
        return np.asarray((history.astype(np.float32) @ weights).toarray() + tie_break)

    return score


def _ease_scorer(
    gram: NDArray[np.float32],
    ridge: float,
    head: NDArray[np.int64],
    popularity: NDArray[np.float64],
) -> Scorer:
    weights = _ease_weights(gram, ridge)
    tie_break = _tie_break(popularity)

    def score(history: csr_matrix, user_rows: NDArray[np.int64]) -> NDArray[np.float32]:
        scores = np.tile(tie_break, (len(user_rows), 1))
        scores[:, head] += history[:, head].astype(np.float32) @ weights
        return scores

    return score


def _ease_weights(gram: NDArray[np.float32], ridge: float) -> NDArray[np.float32]:
    """Return (n, n) item-to-item weights with zero diagonal, by a float64 Cholesky inverse.

    Raises:
        ValueError: `gram` plus the ridge is not positive definite.
    """
    work = np.array(gram, dtype=np.float64, order="F")
    diagonal = np.diag_indices(len(work))
    work[diagonal] += ridge
    factor, bad_pivot = lapack.dpotrf(work, lower=1, overwrite_a=1)
    if bad_pivot:
        raise ValueError(f"Gram matrix with {ridge=} is not positive definite at item {bad_pivot}")
    inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
    lower: NDArray[np.float32] = np.tril(inverse, -1).astype(np.float32)
    weights = lower + lower.T
    weights /= -np.diag(inverse).astype(np.float32)
    return weights


def _import_als() -> Callable[..., Any]:
    """Return implicit's CPU model class.

    Raises:
        ConfigError: `implicit` is not installed.
    """
    try:
        als = importlib.import_module("implicit.cpu.als")
    except ImportError as error:
        raise ConfigError(
            "baseline 'ials_pooled' needs the library implicit: pip install 'fondaco[demo]', "
            "or leave the baselines out with --set baselines=[...]"
        ) from error
    model: Callable[..., Any] = als.AlternatingLeastSquares
    return model


def _als_scorer(
    make_model: Callable[..., Any],
    train: csr_matrix,
    weight: float,
    ridge: float,
) -> Scorer:
    threads = os.environ.get("OMP_NUM_THREADS", "")
    with threadpool_limits(1, "blas"):  # implicit warns when BLAS brings threads of its own
        model = make_model(
            factors=ALS_FACTORS,
            regularization=ridge,
            alpha=weight,
            iterations=ALS_ITERATIONS,
            num_threads=int(threads) if threads.isdigit() else 0,
        )
        model.fit(_for_implicit(train), show_progress=False)
    tie_break = _tie_break(_popularity(train))

    def score(history: csr_matrix, user_rows: NDArray[np.int64]) -> NDArray[np.float32]:
        factors = model.recalculate_user(user_rows, _for_implicit(history))
        return np.asarray(factors @ model.item_factors.T + tie_break)

    return score


def _for_implicit(matrix: csr_matrix) -> csr_matrix:
    """Return `matrix` in float32 with the 32-bit indices that implicit's compiled code reads."""
    parts = (matrix.data.astype(np.float32), matrix.indices.astype(np.int32))
    return csr_matrix((*parts, matrix.indptr.astype(np.int32)), shape=matrix.shape)
