"""What every source hands on: columns by name, read and checked one at a time."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fondaco.shared.schema import (
    BadCell,
    check_distinct,
    check_finite,
    check_ids,
    check_not_negative,
)

NANOSECONDS_PER_DAY = 86_400_000_000_000


class RawTable(ABC):
    """One file: its column names first, its rows once `read` was called."""

    name: str
    columns: tuple[str, ...]

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path = path
        self.name = path.name
        self.columns = tuple(columns)

    @abstractmethod
    def read(self, names: Sequence[str]) -> None:
        """Load the columns `names`; a column not named is never read.

        Raises:
            DataError: the file cannot be parsed.
        """

    @abstractmethod
    def place(self, row: int) -> str:
        """Return where row number `row` (from 0) stands, such as "orders.csv line 17"."""

    @abstractmethod
    def cells(self, name: str) -> NDArray[np.object_]:
        """Return (n_rows,) cells of a column as text, None where there is none."""

    def refuse(self, bad: BadCell | None, name: str) -> None:
        """Raise `bad` as an error that names its place.

        Raises:
            DataError: `bad` is not None.
        """
        if bad is not None:
            raise bad.error(self.place(bad.row), name)

    def ids(self, name: str) -> NDArray[np.object_]:
        """Return (n_rows,) ids, exactly as written.

        Raises:
            DataError: an id is missing.
        """
        ids = self.cells(name)
        self.refuse(check_ids(ids), name)
        return ids

    def distinct_ids(self, name: str) -> NDArray[np.object_]:
        """Return (n_rows,) ids, none of them twice.

        Raises:
            DataError: an id is missing or occurs twice.
        """
        ids = self.ids(name)
        self.refuse(check_distinct(list(ids)), name)
        return ids

    def texts(self, name: str) -> NDArray[np.object_]:
        """Return (n_rows,) texts, "" where there is none."""
        return np.array([cell or "" for cell in self.cells(name)], dtype=object)

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Return (n_rows,) finite numbers.

        Raises:
            DataError: a number is missing, NaN, infinite or no number.
        """
        cells = self.cells(name)
        numbers = _to_numbers(cells)
        self.refuse(check_finite(numbers, ["" if c is None else c for c in cells]), name)
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

    def times(self, name: str) -> tuple[NDArray[np.float64], bool]:
        """Return (n_rows,) times and whether they are clock times [days since 1970-01-01 UTC].

        A column whose first cell is a plain number gives the order only.

        Raises:
            DataError: a time is missing or cannot be parsed.
        """
        cells = self.cells(name)
        if len(cells) and np.isfinite(_to_numbers(cells[:1])[0]):
            return self.numbers(name), False
        stamps = pd.to_datetime(pd.Series(cells), format="ISO8601", utc=True, errors="coerce")
        bad = np.flatnonzero(stamps.isna())
        if len(bad):
            row = int(bad[0])
            self.refuse(BadCell(row, cells[row] or "", "is not an ISO 8601 date or time"), name)
        nanos = stamps.to_numpy(dtype="datetime64[ns]").astype(np.int64)
        return nanos / NANOSECONDS_PER_DAY, True


def _to_numbers(cells: NDArray[np.object_]) -> NDArray[np.float64]:
    numbers = pd.to_numeric(pd.Series(cells, dtype=object), errors="coerce")
    return numbers.to_numpy(dtype=np.float64)
