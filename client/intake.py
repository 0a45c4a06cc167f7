"""Checked batches of a silo's rows -> numbers, a few bytes a row, whatever the source is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fondaco.shared.errors import DataError
from fondaco.shared.schema import bad_cell
from fondaco.shared.vocabulary import Vocabulary

from .dataset import Rows, order_of_ids
from .quarantine import Quarantine
from .sources.config import SourceFile
from .sources.table import RawTable

T = TypeVar("T", np.int32, np.float64)
UNIX_PER_DAY = {"s": 86_400.0, "ms": 86_400e3, "us": 86_400e6}
"""Unit of `source.unix_time` -> how many make a day."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What decides which rows are taken.

    Attributes:
        names: our name of a column -> the source's.
        settings: of the owner.
        items: the public catalogue's ids.
        sold: (n_items,) what the silo sells; None for everything.
        silo_id: where the source tells several silos apart, whose rows these are.
        needs_clock: whether an order without dates will not do.
    """

    names: Mapping[str, str]
    settings: SourceFile
    items: Vocabulary
    sold: NDArray[np.bool_] | None
    silo_id: str
    needs_clock: bool


class Intake:
    """Takes one batch after the other, and then gives all rows.

    Args:
        terms: which rows are taken.
        quarantine: where bad rows go, if they are not refused.

    Attributes:
        seen: rows of the batches.
        taken: of them, those that were kept.
        unknown: rows of items that the catalogue does not list, or that are not sold here.
        outside: rows of another time or silo, or rated too low.
    """

    def __init__(self, terms: Terms, quarantine: Quarantine) -> None:
        self.seen = self.taken = self.unknown = self.outside = 0
        self._terms = terms
        self._quarantine = quarantine
        self._users: dict[str, int] = {}
        self._user_nums: list[NDArray[np.int32]] = []
        self._item_nums: list[NDArray[np.int32]] = []
        self._times: list[NDArray[np.float64]] = []
        self._read_times: Callable[[RawTable], NDArray[np.float64]] | None = None

    @property
    def names(self) -> Mapping[str, str]:
        """Our name of a column -> the source's."""
        return self._terms.names

    def take(self, table: RawTable) -> None:
        """Take the rows of a batch that pass.

        Raises:
            DataError: a row is bad and bad rows are refused, or times are no dates but must be.
        """
        if self._terms.settings.checks.on_bad_row == "quarantine":
            table.forgive()
        names = self._terms.names
        user_ids, item_ids = table.short_ids(names["user_id"]), table.ids(names["item_id"])
        times = self._times_of(table)
        wanted = self._wanted(table, times)
        item_nums = self._terms.items.nums(item_ids.tolist())
        unknown = self._unknown(item_nums) & wanted
        if self._terms.settings.checks.on_unknown_item == "refuse":
            problem = "is not in the public catalogue, or not sold here"
            table.refuse(bad_cell(unknown, item_ids, problem), names["item_id"])
        good = np.ones(len(table), dtype=np.bool_)
        good[list(table.bad)] = False
        self._quarantine.add(table, names)
        kept = good & wanted & ~unknown
        self.seen += len(table)
        self.outside += int((good & ~wanted).sum())
        self.unknown += int((good & unknown).sum())
        self._append(user_ids[kept], item_nums[kept], times[kept])

    def rows(self) -> tuple[NDArray[np.str_], Rows]:
        """Return the customers' ids (sorted, see `sorted_ids`) and all rows; ends the intake."""
        user_ids = np.array(list(self._users), dtype=np.str_)
        self._users.clear()
        order = order_of_ids(user_ids)
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        rows = Rows(
            user_nums=rank[_joined(self._user_nums, np.int32)],
            item_nums=_joined(self._item_nums, np.int32).astype(np.int64),
            times=_joined(self._times, np.float64),
        )
        return user_ids[order], rows.sorted()

    def _append(
        self,
        user_ids: NDArray[np.object_],
        item_nums: NDArray[np.int64],
        times: NDArray[np.float64],
    ) -> None:
        self.taken += len(user_ids)
        known = self._users
        nums = np.fromiter(map(known.get, user_ids, repeat(-1)), np.int32, len(user_ids))
        new = nums < 0
        nums[new] = [known.setdefault(user_id, len(known)) for user_id in user_ids[new]]
        self._user_nums.append(nums)
        self._item_nums.append(item_nums.astype(np.int32))
        self._times.append(times)

    def _times_of(self, table: RawTable) -> NDArray[np.float64]:
        """(n_rows,) [days since 1970-01-01], or the order where there is no clock."""
        if self._read_times is None:
            self._read_times = self._clock(table)
        return self._read_times(table)

    def _clock(self, table: RawTable) -> Callable[[RawTable], NDArray[np.float64]]:
        """Return how times are read; the first batch decides for all."""
        name, unit = self._terms.names.get("time"), self._terms.settings.source.unix_time
        if name is not None and unit:
            return lambda batch: batch.numbers(name) / UNIX_PER_DAY[unit]
        if name is not None and table.is_clock(name):
            return lambda batch: batch.times(name)
        if self._terms.needs_clock:
            found = f"column {name!r} holds plain numbers" if name else "there is no such column"
            raise DataError(
                "rows must be told apart by their dates (the plan's valid_from, or since and "
                f"until), and {found}; set columns.time, or source.unix_time if it counts "
                "seconds since 1970"
            )
        if name is None:
            return lambda batch: np.arange(self.seen, self.seen + len(batch), dtype=np.float64)
        return lambda batch: batch.numbers(name)

    def _wanted(self, table: RawTable, times: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(n_rows,) which rows are of this silo, of the time that is asked for, and good enough."""
        names, settings = self._terms.names, self._terms.settings
        since, until = settings.source.moments
        wanted = np.ones(len(table), dtype=np.bool_)
        if np.isfinite(since) or np.isfinite(until):
            wanted &= (times >= since) & (times < until)
        if "silo_id" in names:
            wanted &= table.ids(names["silo_id"]) == self._terms.silo_id
        if "rating" in names:
            wanted &= table.numbers(names["rating"]) >= settings.checks.min_rating
        return wanted

    def _unknown(self, item_nums: NDArray[np.int64]) -> NDArray[np.bool_]:
        unknown = item_nums < 0
        return unknown if self._terms.sold is None else unknown | ~self._terms.sold[item_nums]


def _joined(parts: list[NDArray[T]], kind: type[T]) -> NDArray[T]:
    """Return the parts one after the other, and let go of them."""
    whole = np.concatenate(parts) if parts else np.empty(0, dtype=kind)
    parts.clear()
    return whole
