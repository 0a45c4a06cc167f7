"""Rows of one silo -> train, validation and test: cut by time, by count or by customers."""

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from fondaco.shared.errors import ConfigError

from .dataset import ITEM_BITS, Fold, Rows, SiloDataset


def split_by_time(
    rows: Rows,
    *,
    silo_id: str,
    user_ids: NDArray[np.str_],
    n_items: int,
    valid_from: float,
    test_from: float,
    keep_repeats: bool = False,
    assortment: NDArray[np.bool_] | None = None,
) -> SiloDataset:
    """Return the rows cut at two moments: train < valid_from <= valid < test_from <= test.

    The history of a fold is everything before it, so the test history includes the
    validation rows; models are still fitted on `train` alone.

    Args:
        rows: all rows of the silo.
        silo_id: the data owner.
        user_ids: (n_users,) ids of `rows.user_nums`.
        n_items: size of the public catalogue.
        valid_from: first moment of validation [days since 1970-01-01].
        test_from: first moment of test, after `valid_from` [days since 1970-01-01].
        keep_repeats: whether an item of the customer's history may be a target.
        assortment: (n_items,) what the silo sells; None for everything.

    Raises:
        ConfigError: `valid_from` is not before `test_from`.
    """
    if not valid_from < test_from:
        raise ConfigError(f"{valid_from=} must be before {test_from=}")
    train = rows.times < valid_from
    test = rows.times >= test_from
    return SiloDataset(
        silo_id=silo_id,
        user_ids=user_ids,
        n_items=n_items,
        assortment=assortment,
        **_folds(rows, train, test, keep_repeats),
    )


def split_last_k(
    rows: Rows,
    *,
    silo_id: str,
    user_ids: NDArray[np.str_],
    n_items: int,
    k: int,
    keep_repeats: bool = False,
    assortment: NDArray[np.bool_] | None = None,
) -> SiloDataset:
    """Return each customer's last `k` rows as test, the `k` before as validation.

    A customer with at most 2 k rows has training rows only. Arguments as `split_by_time`.

    Raises:
        ConfigError: `k` is not positive.
    """
    if k < 1:
        raise ConfigError(f"{k=} must be at least 1")
    rows = rows.sorted()
    counts = np.bincount(rows.user_nums, minlength=len(user_ids))
    ends = np.cumsum(counts)[rows.user_nums]
    from_end = ends - np.arange(len(rows))
    enough = counts[rows.user_nums] > 2 * k
    test = enough & (from_end <= k)
    train = ~enough | (from_end > 2 * k)
    return SiloDataset(
        silo_id=silo_id,
        user_ids=user_ids,
        n_items=n_items,
        assortment=assortment,
        **_folds(rows, train, test, keep_repeats),
    )


def draw_hidden(
    rows: Rows, users: NDArray[np.int64], rng: np.random.Generator, share: float = 0.2
) -> NDArray[np.bool_]:
    """Return (n_rows,) which rows are hidden: `share` of the distinct items of each customer.

    Of n items round(share n) are hidden, at least one; customers are drawn in the order
    of `users`. All rows of a hidden pair are hidden.
    """
    chosen = rows.take(np.isin(rows.user_nums, users))
    pairs = chosen.pair_keys()
    distinct = np.unique(pairs)
    starts = np.searchsorted(distinct, np.sort(users) << ITEM_BITS)
    ends = np.append(starts[1:], len(distinct))
    place = np.searchsorted(np.sort(users), users)
    hidden = []
    for at in place:
        mine = distinct[starts[at] : ends[at]]
        if len(mine):
            hidden.append(rng.permutation(mine)[: max(1, round(share * len(mine)))])
    keys = np.concatenate(hidden) if hidden else np.zeros(0, dtype=np.int64)
    return np.isin(rows.pair_keys(), keys)


def hold_out_customers(
    rows: Rows,
    *,
    silo_id: str,
    user_ids: NDArray[np.str_],
    n_items: int,
    valid_users: NDArray[np.int64],
    test_users: NDArray[np.int64],
    hidden: NDArray[np.bool_],
    assortment: NDArray[np.bool_] | None = None,
) -> SiloDataset:
    """Return whole customers held out: their shown rows are history, the hidden ones targets.

    Args:
        rows: all rows of the silo.
        silo_id: the data owner.
        user_ids: (n_users,) ids of `rows.user_nums`.
        n_items: size of the public catalogue.
        valid_users: customers for validation, without training rows.
        test_users: customers for test, without training rows.
        hidden: (n_rows,) from `draw_hidden`; read for held-out customers only.
        assortment: (n_items,) what the silo sells; None for everything.

    Raises:
        ConfigError: a customer is in both groups.
    """
    if np.intersect1d(valid_users, test_users).size:
        raise ConfigError("a held-out customer is for validation or test, never both")
    valid = np.isin(rows.user_nums, valid_users)
    test = np.isin(rows.user_nums, test_users)
    return SiloDataset(
        silo_id=silo_id,
        user_ids=user_ids,
        n_items=n_items,
        train=rows.take(~valid & ~test),
        valid=_fold(rows, valid & ~hidden, valid & hidden, keep_repeats=False),
        test=_fold(rows, test & ~hidden, test & hidden, keep_repeats=False),
        assortment=assortment,
    )


class _Folds(TypedDict):
    train: Rows
    valid: Fold
    test: Fold
    interim: Rows


def _folds(
    rows: Rows, train: NDArray[np.bool_], test: NDArray[np.bool_], keep_repeats: bool
) -> _Folds:
    """Return the parts of a dataset; what is neither train nor test is validation."""
    between = ~train & ~test
    return {
        "train": rows.take(train),
        "valid": _fold(rows, train, between, keep_repeats),
        "test": _fold(rows, ~test, test, keep_repeats),
        "interim": rows.take(between),
    }


def _fold(
    rows: Rows, known: NDArray[np.bool_], ahead: NDArray[np.bool_], keep_repeats: bool
) -> Fold:
    """Return the fold with history `known` and targets the first row of each pair in `ahead`."""
    history, future = rows.take(known), rows.take(ahead)
    keys = future.pair_keys()
    _, first = np.unique(keys, return_index=True)
    target = np.zeros(len(future), dtype=np.bool_)
    target[first] = True
    if not keep_repeats:
        target &= ~_are_among(keys, history.pair_keys())
    targets = future.take(target)
    users = np.unique(targets.user_nums)
    return Fold(
        user_nums=users,
        history=history.take(np.isin(history.user_nums, users)),
        targets=targets,
    )


def _are_among(keys: NDArray[np.int64], known: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return (n_keys,) which keys are known: `np.isin` for keys of any size, by sorting alone."""
    if not len(known):
        return np.zeros(len(keys), dtype=np.bool_)
    known = np.sort(known)
    return np.asarray(known[np.minimum(np.searchsorted(known, keys), len(known) - 1)] == keys)
