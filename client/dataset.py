"""Rows of one silo, indexed and split: the only shape in which models see customers' data."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from fondaco.shared.catalogue import Catalogue
from fondaco.shared.errors import DataError
from fondaco.shared.models.base import Timelines
from fondaco.shared.vocabulary import Vocabulary

ITEM_BITS = 32
"""A customer-item pair is one int64: the customer's number, then so many bits of the item's."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Interaction rows of one silo, sorted by customer and then time; a pair may repeat.

    Attributes:
        user_nums: (n_rows,) row numbers of `SiloDataset.user_ids`.
        item_nums: (n_rows,) item numbers of the public catalogue.
        times: (n_rows,) [days since 1970-01-01, or order where no clock exists].
    """

    user_nums: NDArray[np.int64]
    item_nums: NDArray[np.int64]
    times: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.user_nums)

    def incidence(self, n_users: int, n_items: int) -> csr_matrix:
        """Return the (n_users, n_items) float64 0/1 matrix of distinct customer-item pairs."""
        data = np.ones(len(self), dtype=np.float64)
        matrix = csr_matrix((data, (self.user_nums, self.item_nums)), shape=(n_users, n_items))
        matrix.sum_duplicates()
        matrix.data[:] = 1.0
        return matrix

    def take(self, mask: NDArray[np.bool_]) -> "Rows":
        """Return the rows where the (n_rows,) `mask` holds, in the same order."""
        return Rows(
            user_nums=self.user_nums[mask],
            item_nums=self.item_nums[mask],
            times=self.times[mask],
        )

    def sorted(self) -> "Rows":
        """Return the rows sorted by customer, time and item."""
        order = np.lexsort((self.item_nums, self.times, self.user_nums))
        return Rows(
            user_nums=self.user_nums[order],
            item_nums=self.item_nums[order],
            times=self.times[order],
        )

    def pair_keys(self) -> NDArray[np.int64]:
        """Return (n_rows,) one number per customer-item pair, ordered as (customer, item)."""
        return (self.user_nums << ITEM_BITS) | self.item_nums


NO_ROWS = Rows(
    user_nums=np.empty(0, dtype=np.int64),
    item_nums=np.empty(0, dtype=np.int64),
    times=np.empty(0, dtype=np.float64),
)


@dataclass(frozen=True, kw_only=True)
class Fold:
    """Customers to recommend to: what is known of them and what they took next.

    Attributes:
        user_nums: (n_eval,) ascending customers with at least one target.
        history: rows known at the time of recommending (of these customers, maybe none).
        targets: rows to be predicted (of these customers).
    """

    user_nums: NDArray[np.int64]
    history: Rows
    targets: Rows

    def history_matrix(self, n_items: int) -> csr_matrix:
        """Return (n_eval, n_items) 0/1, rows in the order of `user_nums`."""
        return self._matrix(self.history, n_items)

    def target_matrix(self, n_items: int) -> csr_matrix:
        """Return (n_eval, n_items) 0/1, rows in the order of `user_nums`."""
        return self._matrix(self.targets, n_items)

    def of(self, users: NDArray[np.int64]) -> "Fold":
        """Return the fold of these (ascending) customers."""
        return Fold(
            user_nums=users,
            history=self.history.take(np.isin(self.history.user_nums, users)),
            targets=self.targets.take(np.isin(self.targets.user_nums, users)),
        )

    def _matrix(self, rows: Rows, n_items: int) -> csr_matrix:
        local = Rows(
            user_nums=np.searchsorted(self.user_nums, rows.user_nums),
            item_nums=rows.item_nums,
            times=rows.times,
        )
        return local.incidence(len(self.user_nums), n_items)


@dataclass(frozen=True, kw_only=True)
class SiloDataset:
    """Everything a silo knows of its customers, in three parts that never mix.

    `train` is all that models and releases may read. `valid` tunes only what stays at home.
    `test` is read by the simulation's evaluation alone. `interim` holds the rows of all
    customers between `train` and `test`: known at home when test customers are served, in no
    model; without a clock there are none. `assortment` names the items that the silo sells, a
    public fact; None stands for the whole catalogue.
    """

    silo_id: str
    user_ids: NDArray[np.str_]
    n_items: int
    train: Rows
    valid: Fold
    test: Fold
    interim: Rows = field(default_factory=lambda: NO_ROWS)
    assortment: NDArray[np.bool_] | None = None

    def timelines(self, now: float) -> Timelines:
        """Return the training rows of every customer, oldest first.

        Args:
            now: public moment at which training ends [days]; infinite without a clock.
        """
        everybody = np.arange(self.n_users, dtype=np.int64)
        return as_timelines(self, everybody, self.train, now)

    @property
    def known(self) -> Rows:
        """All rows that the silo has when test customers are served."""
        return Rows(
            user_nums=np.concatenate([self.train.user_nums, self.interim.user_nums]),
            item_nums=np.concatenate([self.train.item_nums, self.interim.item_nums]),
            times=np.concatenate([self.train.times, self.interim.times]),
        )

    @property
    def n_users(self) -> int:
        """Number of customers, those without training rows included."""
        return len(self.user_ids)


def as_timelines(
    dataset: SiloDataset, user_nums: NDArray[np.int64], rows: Rows, now: float
) -> Timelines:
    """Return the rows of these customers (ascending), oldest first.

    Args:
        dataset: the silo.
        user_nums: (n_users,) ascending; all rows must be theirs.
        rows: sorted by customer and then time.
        now: moment of recommending [days]; infinite without a clock.
    """
    counts = np.bincount(np.searchsorted(user_nums, rows.user_nums), minlength=len(user_nums))
    return Timelines(
        indptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        item_nums=rows.item_nums,
        times=rows.times,
        now=now,
        n_items=dataset.n_items,
        assortment=dataset.assortment,
    )


def index_items(frame: pd.DataFrame) -> Catalogue:
    """Return the public catalogue of a checked item table, sorted by item id.

    Args:
        frame: (n_items,) as `fondaco.client.sources.read_items` returns it.

    Raises:
        DataError: an id is empty or occurs twice.
    """
    frame = frame.sort_values("item_id", kind="stable")
    return Catalogue(
        items=Vocabulary(tuple(frame["item_id"])),
        texts=tuple(frame["text"]),
        categories=tuple(frame["category"]),
        brands=tuple(frame["brand"]),
        prices=frame["price"].to_numpy(dtype=np.float64),
        years=frame["year"].to_numpy(dtype=np.float64),
    )


def index_interactions(frame: pd.DataFrame, items: Vocabulary) -> tuple[NDArray[np.str_], Rows]:
    """Return the customers' ids (sorted, see `sorted_ids`) and the rows as numbers.

    Args:
        frame: (n_rows,) columns user_id, item_id and maybe time, without which the order
            of the rows stands in.
        items: ids of the public catalogue.

    Raises:
        DataError: an item is not in the catalogue.
    """
    user_codes, users = pd.factorize(frame["user_id"])
    item_codes, item_ids = pd.factorize(frame["item_id"])
    known = items.nums([str(i) for i in item_ids])
    if (known < 0).any():
        unknown = str(item_ids[int(np.argmin(known))])
        row = int(np.argmax(item_codes == int(np.argmin(known))))
        raise DataError(
            f"row {row + 1}, column 'item_id': {unknown!r} is none of the catalogue's "
            f"{len(items)} item ids"
        )
    user_ids = sorted_ids(np.asarray([str(u) for u in users], dtype=np.str_))
    rank = {user_id: num for num, user_id in enumerate(user_ids.tolist())}
    new_nums = np.fromiter((rank[str(u)] for u in users), dtype=np.int64, count=len(users))
    times = (
        frame["time"].to_numpy(dtype=np.float64)
        if "time" in frame
        else np.arange(len(frame), dtype=np.float64)
    )
    rows = Rows(user_nums=new_nums[user_codes], item_nums=known[item_codes], times=times)
    return user_ids, rows.sorted()


def sorted_ids(ids: NDArray[np.str_]) -> NDArray[np.str_]:
    """Return (n,) `ids` sorted: shorter ones first, so that plain numbers are in their order."""
    return ids[order_of_ids(ids)]


def order_of_ids(ids: NDArray[np.str_]) -> NDArray[np.int64]:
    """Return (n,) the places of `ids` in the order of `sorted_ids`."""
    return np.lexsort((ids, np.char.str_len(ids))) if len(ids) else np.empty(0, dtype=np.int64)
