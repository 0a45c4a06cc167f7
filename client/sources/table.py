"""What every source hands on: some rows at a time, checked one column after the other."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fondaco.shared.errors import DataError
from fondaco.shared.schema import (
    BadCell,
    bad_cell,
    check_distinct,
    check_finite,
    check_ids,
    check_not_negative,
)

MICROSECONDS_PER_DAY = 86_400_000_000
MAX_ID_LENGTH = 128
"""Longest id of a customer [characters]; all of them lie in one array as wide as the longest."""
_MOMENTS = ("now", "today")
"""Words that pandas takes for the time of reading."""


class RawTable(ABC):
    """Rows of a source, in its order, and which of them a check has found to be bad.

    A bad row raises an error that names it; after `forgive` it is put down in `bad` instead.

    Attributes:
        bad: row -> what is wrong with it, such as "'time' is not an ISO 8601 date or time".
    """

    def __init__(self) -> None:
        self.bad: dict[int, str] = {}
        self._forgiving = False

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of rows."""

    @abstractmethod
    def place(self, row: int) -> str:
        """Return where row number `row` (from 0) stands, such as "orders.csv line 17"."""

    @abstractmethod
    def cells(self, name: str) -> NDArray[np.object_]:
        """Return (n_rows,) cells of a column as text, None where there is none."""

    def forgive(self) -> None:
        """Put bad rows down from now on, instead of raising."""
        self._forgiving = True

    def refuse(self, bad: BadCell | None, name: str) -> None:
        """Raise `bad` as an error that names its place, or put its rows down.

        Raises:
            DataError: `bad` is not None.
        """
        if bad is None:
            return
        if not self._forgiving:
            raise bad.error(self.place(bad.row), name)
        for row in bad.rows.tolist():
            self.bad.setdefault(row, f"{name!r} {bad.problem}")

    def ids(self, name: str) -> NDArray[np.object_]:
        """Return (n_rows,) ids, exactly as written.

        Raises:
            DataError: an id is missing, or the column holds numbers with a fraction.
        """
        ids = self.cells(name)
        self.refuse(check_ids(ids), name)
        return ids

    def short_ids(self, name: str) -> NDArray[np.object_]:
        """Return (n_rows,) ids that fit into an array of text.

        Raises:
            DataError: an id is missing, too long, or holds a NUL.
        """
        ids = self.ids(name)
        texts = [i or "" for i in ids]
        if max(map(len, texts), default=0) > MAX_ID_LENGTH or "\0" in "".join(texts):
            odd = np.array([len(i) > MAX_ID_LENGTH or "\0" in i for i in texts], dtype=np.bool_)
            problem = f"is over {MAX_ID_LENGTH} characters or holds a NUL"
            self.refuse(bad_cell(odd, ids, problem), name)
        return ids

    def distinct_ids(self, name: str, seen: set[str]) -> NDArray[np.object_]:
        """Return (n_rows,) ids, none of them twice or in `seen`, to which they are added.

        Raises:
            DataError: an id is missing or occurs twice.
        """
        ids = self.ids(name)
        self.refuse(check_distinct(list(ids), seen), name)
        return ids

    def texts(self, name: str) -> NDArray[np.object_]:
        """Return (n_rows,) texts, "" where there is none."""
        return as_cells([cell or "" for cell in self.cells(name)])

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Return (n_rows,) finite numbers.

        Raises:
            DataError: a number is missing, NaN, infinite or no number.
        """
        cells = self.cells(name)
        numbers = _to_numbers(cells)
        self.refuse(check_finite(numbers, cells), name)
        return numbers

    def prices(self, name: str) -> NDArray[np.float64]:
        """Return (n_rows,) prices, NaN where the cell is empty.

        Raises:
            DataError: a price is written but not a finite number >= 0.
        """
        cells = self.cells(name)
        numbers = _to_numbers(cells)
        empty = np.fromiter((not (c and c.strip()) for c in cells), bool, len(cells))
        self.refuse(check_finite(np.where(empty, 0.0, numbers), cells), name)
        self.refuse(check_not_negative(numbers, cells), name)
        return numbers

    def is_clock(self, name: str) -> bool:
        """Return whether a column of times holds dates; plain numbers give the order only.

        The first cell that can be read at all decides.
        """
        for cell in self.cells(name):
            one = as_cells([cell])
            if np.isfinite(_to_numbers(one)[0]):
                return False
            if not np.isnat(_to_stamps(one)[0]):
                return True
        return True

    def times(self, name: str) -> NDArray[np.float64]:
        """Return (n_rows,) clock times [days since 1970-01-01 UTC]; UTC where none is said.

        Raises:
            DataError: a time is missing or cannot be parsed.
        """
        cells = self.cells(name)
        stamps = _to_stamps(cells)
        self.refuse(bad_cell(np.isnat(stamps), cells, "is not an ISO 8601 date or time"), name)
        days = stamps.astype(np.int64) / MICROSECONDS_PER_DAY
        return np.where(np.isnat(stamps), np.nan, days)


class Source(ABC):
    """Where rows lie, opened for reading only; use it in a `with`.

    Attributes:
        name: for messages; never holds a password.
        types: column -> what kind of values it holds, such as "text" or "integer"; "" where the
            source does not say.
        n_rows: how many rows there are, None where only reading them would tell.
    """

    name: str
    types: Mapping[str, str]
    n_rows: int | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self.types)

    @abstractmethod
    def batches(self, names: Sequence[str], n_rows: int) -> Generator[RawTable]:
        """Yield the columns `names`, at most `n_rows` rows at a time; no other column is read.

        Raises:
            DataError: the source cannot be read, or a column of ids can hold none.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the source."""

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def check_once(source: str, columns: Sequence[str]) -> None:
    """Refuse columns of which one could be taken for another.

    Raises:
        DataError: a name occurs twice.
    """
    twice = [name for name in columns if columns.count(name) > 1]
    if twice:
        raise DataError(f"{source} names column {twice[0]!r} twice; give each a name of its own")


def as_cells(values: Iterable[str | None]) -> NDArray[np.object_]:
    """Return (n_rows,) cells as an array of objects."""
    values = list(values)
    cells = np.empty(len(values), dtype=object)
    cells[:] = values
    return cells


def _to_numbers(cells: NDArray[np.object_]) -> NDArray[np.float64]:
    numbers = pd.to_numeric(pd.Series(cells, dtype=object), errors="coerce")
    return numbers.to_numpy(dtype=np.float64)


def _to_stamps(cells: NDArray[np.object_]) -> NDArray[np.datetime64]:
    column = pd.Series(cells, dtype=object)
    stamps = pd.to_datetime(column, format="ISO8601", utc=True, errors="coerce")
    found = stamps.dt.tz_localize(None).to_numpy(dtype="datetime64[us]", copy=True)
    found[column.isin(_MOMENTS).to_numpy()] = np.datetime64("NaT")
    return found
