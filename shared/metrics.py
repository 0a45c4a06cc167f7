"""Ranking quality per customer, always over the whole catalogue, never over sampled negatives.

Rankings come from `rank_topk`; every other function reads its (n_users, k) item numbers, where
-1 means "no item left". Relevance is binary. `recall@k` divides by min(k, relevant): a list of
k hits is perfect. Customers without a target have no ndcg or recall and are refused.
"""

from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from .errors import ConfigError

Kind = Literal["ndcg", "recall", "coverage", "novelty"]
DEFAULT_METRICS = ("ndcg@10", "ndcg@20", "ndcg@100", "recall@10", "recall@20", "novelty@10")
"""Per-customer metrics of every run; `coverage@10` is a property of all lists together."""

_BATCH_CELLS = 4_000_000
_CELL_BYTES = {2: np.int16, 4: np.int32, 8: np.int64}


@dataclass(frozen=True)
class Metric:
    """A measure and its list length, written `kind@k`."""

    kind: Kind
    k: int

    def __str__(self) -> str:
        return f"{self.kind}@{self.k}"


def parse_metric(name: str) -> Metric:
    """Return the metric that `name` means, such as "ndcg@20".

    Raises:
        ConfigError: the kind is unknown or the length is not a positive whole number.
    """
    kind, at, length = name.partition("@")
    if kind not in get_args(Kind) or not at:
        known = ", ".join(f"{known}@K" for known in get_args(Kind))
        raise ConfigError(f"unknown metric {name!r}; expected one of {known}")
    if not (length.isascii() and length.isdigit() and int(length) > 0):
        raise ConfigError(f"list length {length!r} of metric {name!r} must be a whole number > 0")
    return Metric(cast(Kind, kind), int(length))


def rank_topk(
    scores: NDArray[np.floating], history: csr_matrix, k: int, *, batch_users: int | None = None
) -> NDArray[np.int64]:
    """Return the k best items of each customer that are not in the customer's history.

    Formal guarantee: a higher score comes first, then the lower item number; items with score
    NaN (unknown to the scorer) come after all others; a history item is never ranked.

    Args:
        scores: (n_users, n_items) any finite, infinite or NaN values.
        history: (n_users, n_items) stored entries are masked, whatever their value.
        k: list length, at least 1.
        batch_users: customers ranked at once; by default a few million scores' worth.

    Returns:
        (n_users, k) item numbers, best first, -1 where no item is left.

    Raises:
        ValueError: shapes differ or `k` is below 1.
    """
    if scores.shape != history.shape or scores.ndim != 2:  # noqa: PLR2004
        raise ValueError(f"{scores.shape=} and {history.shape=} must be the same two numbers")
    if k < 1:
        raise ValueError(f"{k=} must be >= 1")
    n_users, n_items = scores.shape
    step = batch_users or max(1, _BATCH_CELLS // max(1, n_items))
    ranking = np.full((n_users, k), -1, dtype=np.int64)
    for start in range(0, n_users, step):
        rows = slice(start, min(n_users, start + step))
        keys = _sort_keys(scores[rows], history[rows])
        ranking[rows, : min(k, n_items)] = _smallest(keys, min(k, n_items))
    return ranking


def _sort_keys(scores: NDArray[np.floating], history: csr_matrix) -> NDArray[np.signedinteger]:
    """Return (n, n_items) integers that ascend as the rank does: NaN last, history beyond it."""
    negative = 0 - scores  # and never -0.0, whose bits would sort apart from 0.0
    keys = negative.view(_CELL_BYTES[negative.dtype.itemsize])
    top = np.iinfo(keys.dtype).max
    keys ^= (keys >> (8 * keys.dtype.itemsize - 1)) & top
    keys[np.isnan(scores)] = top - 1
    keys[np.repeat(np.arange(len(keys)), np.diff(history.indptr)), history.indices] = top
    return keys


def _smallest(keys: NDArray[np.signedinteger], k: int) -> NDArray[np.int64]:
    """Return (n, k) columns of the k smallest keys, ties by column, -1 for masked ones."""
    threshold = np.partition(keys, k - 1, axis=1)[:, k - 1 : k] if k else keys[:, :0]
    chosen = keys <= threshold
    surplus = np.flatnonzero(chosen.sum(axis=1) > k)
    if len(surplus):
        chosen[surplus] = _first_ties(keys[surplus], threshold[surplus], k)
    columns = np.nonzero(chosen)[1].reshape(len(keys), k)
    values = np.take_along_axis(keys, columns, axis=1)
    order = np.argsort(values, axis=1, kind="stable")
    columns = np.take_along_axis(columns, order, axis=1)
    masked = np.take_along_axis(values, order, axis=1) == np.iinfo(keys.dtype).max
    return np.where(masked, -1, columns)


def _first_ties(
    keys: NDArray[np.signedinteger], threshold: NDArray[np.signedinteger], k: int
) -> NDArray[np.bool_]:
    """Return (n, n_items) exactly k chosen per row; of keys at the threshold the first columns."""
    below = keys < threshold
    tied = keys == threshold
    room = k - below.sum(axis=1, keepdims=True)
    return np.asarray(below | (tied & (np.cumsum(tied, axis=1) <= room)))


def hits(ranking: NDArray[np.int64], targets: csr_matrix) -> NDArray[np.bool_]:
    """Return (n_users, k) whether the item at a rank is one of the customer's targets.

    Args:
        ranking: (n_users, k) item numbers or -1.
        targets: (n_users, n_items) stored entries are relevant.
    """
    n_users, n_items = targets.shape
    rows = np.arange(n_users, dtype=np.int64)
    relevant = np.repeat(rows, np.diff(targets.indptr)) * n_items + targets.indices
    shown = rows[:, None] * n_items + ranking
    return np.asarray(np.isin(shown, relevant) & (ranking >= 0))


def ndcg(hit: NDArray[np.bool_], n_relevant: NDArray[np.integer], k: int) -> NDArray[np.float64]:
    """Return (n_users,) discounted gain of the first k ranks over that of an ideal list.

    Args:
        hit: (n_users, at least k) from `hits`.
        n_relevant: (n_users,) targets of each customer, at least 1.
        k: list length.

    Source: Järvelin and Kekäläinen 2002, binary gain, discount log2(1 + rank).
    """
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discount)[np.minimum(n_relevant, k) - 1]
    return np.asarray((hit[:, :k] @ discount) / ideal)


def recall(hit: NDArray[np.bool_], n_relevant: NDArray[np.integer], k: int) -> NDArray[np.float64]:
    """Return (n_users,) hits in the first k ranks over min(k, relevant)."""
    return np.asarray(hit[:, :k].sum(axis=1) / np.minimum(n_relevant, k))


def novelty(
    ranking: NDArray[np.int64], popularity: NDArray[np.floating], k: int
) -> NDArray[np.float64]:
    """Return (n_users,) mean surprise -log2 P(item) of the first k ranks [bits].

    Args:
        ranking: (n_users, at least k) item numbers or -1; empty ranks do not count.
        popularity: (n_items,) how often each item was taken, >= 0. P is its share after
            adding one to every item, so that an item nobody took has a finite surprise.
        k: list length.
    """
    share = (popularity + 1.0) / (popularity.sum() + len(popularity))
    shown = ranking[:, :k]
    bits = np.where(shown >= 0, -np.log2(share)[shown], 0.0)
    return np.asarray(bits.sum(axis=1) / np.maximum(1, (shown >= 0).sum(axis=1)))


def coverage(ranking: NDArray[np.int64], n_items: int, k: int) -> float:
    """Return the share of the catalogue that appears in anybody's first k ranks [0 to 1]."""
    shown = np.unique(ranking[:, :k])
    return float(np.count_nonzero(shown >= 0) / n_items)


def evaluate(
    ranking: NDArray[np.int64],
    targets: csr_matrix,
    names: tuple[str, ...] = DEFAULT_METRICS,
    *,
    popularity: NDArray[np.floating],
) -> dict[str, NDArray[np.float64]]:
    """Return each named per-customer metric as (n_users,) values.

    Args:
        ranking: (n_users, k) from `rank_topk`, k at least the longest list of `names`.
        targets: (n_users, n_items) at least one stored entry per row.
        names: of the kinds ndcg, recall and novelty.
        popularity: (n_items,) counts, as `novelty` takes them.

    Raises:
        ConfigError: a name is unknown or not a per-customer metric.
        ValueError: a customer has no target or `ranking` is too short.
    """
    metrics = [parse_metric(name) for name in names]
    n_relevant = np.diff(targets.indptr)
    if len(n_relevant) and n_relevant.min() < 1:
        raise ValueError(f"customer number {int(n_relevant.argmin())} has no target")
    if max((metric.k for metric in metrics), default=0) > ranking.shape[1]:
        raise ValueError(f"a ranking of {ranking.shape[1]} items is too short for {names}")
    hit = hits(ranking, targets)
    values = {}
    for metric in metrics:
        if metric.kind == "coverage":
            raise ConfigError(f"{metric} has no value per customer; use coverage()")
        if metric.kind == "novelty":
            values[str(metric)] = novelty(ranking, popularity, metric.k)
        else:
            measure = ndcg if metric.kind == "ndcg" else recall
            values[str(metric)] = measure(hit, n_relevant, metric.k)
    return values


def bootstrap_mean(
    values: NDArray[np.floating], rng: np.random.Generator, n_resamples: int = 500
) -> tuple[float, float, float]:
    """Return the mean over customers and its 95 % percentile interval, as (mean, low, high).

    Args:
        values: (n_users,) finite values.
        rng: drawn from `n_users * n_resamples` times.
        n_resamples: resamples of customers, at least 1.

    Raises:
        ValueError: there is no value, one is not finite, or `n_resamples` is below 1.
    """
    mean, low, high = bootstrap_means(values[:, None], rng, n_resamples)[0]
    return float(mean), float(low), float(high)


def bootstrap_means(
    values: NDArray[np.floating], rng: np.random.Generator, n_resamples: int = 500
) -> NDArray[np.float64]:
    """Return (n_series, 3) mean, low, high of every column, from the same resamples of customers.

    Formal guarantee: low <= mean <= high holds for a constant column, and the interval of a
    difference of two columns is that of the paired bootstrap.

    Args:
        values: (n_users, n_series) finite values, such as one column per system and metric.
        rng: drawn from `n_users * n_resamples` times, however many columns there are.
        n_resamples: resamples of customers, at least 1.

    Raises:
        ValueError: there is no value, one is not finite, or `n_resamples` is below 1.

    Source: Efron and Tibshirani 1993, percentile interval.
    """
    n_users, n_series = values.shape
    if n_users == 0 or n_resamples < 1 or not np.isfinite(values).all():
        raise ValueError(f"{n_users=} and {n_resamples=} must be >= 1 and all values finite")
    centre = values.mean(axis=0)
    means = np.empty((n_resamples, n_series))
    step = max(1, _BATCH_CELLS // n_users)
    for start in range(0, n_resamples, step):
        n_rows = min(step, n_resamples - start)
        drawn = rng.integers(n_users, size=(n_rows, n_users))
        drawn += np.arange(n_rows)[:, None] * n_users
        counts = np.bincount(drawn.ravel(), minlength=n_rows * n_users).reshape(n_rows, n_users)
        means[start : start + n_rows] = counts @ (values - centre) / n_users
    low, high = np.quantile(means, (0.025, 0.975), axis=0)
    return np.column_stack([centre, centre + low, centre + high])
