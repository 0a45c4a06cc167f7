"""Rows -> one history per customer: the only shape in which the core reads customers."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Histories:
    """Distinct items of each customer; usually made by `bound_contributions`.

    Attributes:
        indptr: (n_users + 1,) customer u owns `item_nums[indptr[u]:indptr[u + 1]]`.
        item_nums: (n_pairs,) ascending and distinct within a customer, all < n_items.
        n_items: length of the public catalogue.

    Raises:
        ConfigError: the arrays are not so (the bounds of `clipping` rest on it).
    """

    indptr: NDArray[np.int64]
    item_nums: NDArray[np.int64]
    n_items: int

    def __post_init__(self) -> None:
        items, bounds = self.item_nums, self.indptr
        sound = len(bounds) > 0 and bounds[0] == 0 and bounds[-1] == len(items)
        sound = sound and bool(np.all(self.lengths >= 0))
        sound = sound and bool(np.all((items >= 0) & (items < self.n_items)))
        if not sound or np.any(np.diff(self.user_nums() * self.n_items + items) <= 0):
            raise ConfigError("a customer's items must be distinct, ascending and in the catalogue")

    @property
    def n_users(self) -> int:
        """Number of customers, those without items included (private: never sent)."""
        return len(self.indptr) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n_users,) items of each customer."""
        return np.diff(self.indptr)

    def user_nums(self) -> NDArray[np.int64]:
        """(n_pairs,) the customer of each pair."""
        return np.repeat(np.arange(self.n_users, dtype=np.int64), self.lengths)

    def restrict(self, head: NDArray[np.int64]) -> "Histories":
        """Return the histories over the items of `head`, renumbered by position in it.

        Args:
            head: (n_head,) distinct item numbers.

        Raises:
            ConfigError: `head` repeats an item or leaves the catalogue.
        """
        if len(np.unique(head)) != len(head) or np.any((head < 0) | (head >= self.n_items)):
            raise ConfigError("the head must hold distinct items of the catalogue")
        position = np.full(self.n_items, -1, dtype=np.int64)
        position[head] = np.arange(len(head))
        return bound_contributions(
            self.user_nums(), position[self.item_nums], self.n_users, len(head)
        )


def bound_contributions(
    user_nums: NDArray[np.int64], item_nums: NDArray[np.int64], n_users: int, n_items: int
) -> Histories:
    """Return one history per customer: repeated rows count once, unknown items not at all.

    Formal guarantee: removing all rows of one customer changes that customer's history to
    empty and no other's. No row of a long history is dropped: the weight 1/n_u of the
    statistics bounds it instead.

    Args:
        user_nums: (n_rows,) customers, each in [0, n_users).
        item_nums: (n_rows,) items; those outside [0, n_items) are ignored.
        n_users: customers of the silo.
        n_items: length of the public catalogue.

    Raises:
        ConfigError: a customer number is out of range (a bug in the caller, not data).
    """
    if np.any((user_nums < 0) | (user_nums >= n_users)):
        raise ConfigError("a customer number is out of range")
    known = (item_nums >= 0) & (item_nums < n_items)
    pairs = np.unique(user_nums[known].astype(np.int64) * n_items + item_nums[known])
    counts = np.bincount(pairs // n_items, minlength=n_users)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Histories(indptr=indptr, item_nums=pairs % n_items, n_items=n_items)
