"""CSV tables: UTF-8, a header line, every cell kept as it is written."""

import csv
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fondaco.shared.errors import DataError

from .table import RawTable


class CsvTable(RawTable):
    """A CSV file; blank lines are skipped, a line of another width is refused."""

    _cells: dict[str, NDArray[np.object_]]
    _lines: list[int]

    def read(self, names: Sequence[str]) -> None:
        """Load the columns `names` as text."""
        self._lines = []
        spots = [self.columns.index(name) for name in names]
        pick = itemgetter(*spots, spots[0])
        try:
            rows = [pick(record) for record in self._records()]
        except UnicodeDecodeError as error:
            raise _not_utf8(self.path) from error
        self._cells = {}
        for at, name in enumerate(names):
            cells = np.empty(len(rows), dtype=object)
            cells[:] = [row[at] for row in rows]
            self._cells[name] = cells

    def _records(self) -> Iterator[list[str]]:
        """Yield every record below the header, noting the line where it starts."""
        width = len(self.columns)
        line = 1
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            try:
                for record in reader:
                    if record and line > 1:
                        self._check_width(record, line, width)
                        self._lines.append(line)
                        yield record
                    line = reader.line_num + 1
            except csv.Error as error:
                raise DataError(f"{self.name} line {line} is not CSV: {error}") from error

    def _check_width(self, record: list[str], line: int, width: int) -> None:
        if len(record) != width:
            raise DataError(
                f"{self.name} line {line} has {len(record)} cells; the header has {width}"
            )

    def cells(self, name: str) -> NDArray[np.object_]:
        """Return (n_rows,) cells as written."""
        return self._cells[name]

    def place(self, row: int) -> str:
        """Return the line where the record starts."""
        return f"{self.name} line {self._lines[row]}"


def open_csv(path: Path) -> CsvTable:
    """Return the table of `path`, its header read.

    Raises:
        DataError: the file has no header, is not UTF-8, or names a column twice.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file, strict=True), [])
    except UnicodeDecodeError as error:
        raise _not_utf8(path) from error
    except csv.Error as error:
        raise DataError(f"{path.name} line 1 is not CSV: {error}") from error
    if not header:
        raise DataError(f"{path.name} has no header line that names its columns")
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise DataError(f"{path.name} names column {twice[0]!r} twice")
    return CsvTable(path, header)


def _not_utf8(path: Path) -> DataError:
    """Return the error that names the first line which is not UTF-8."""
    with path.open("rb") as file:
        for line, raw in enumerate(file, start=1):
            try:
                raw.decode()
            except UnicodeDecodeError:
                return DataError(f"{path.name} line {line} is not UTF-8: {raw.strip()[:60]!r}")
    return DataError(f"{path.name} is not UTF-8")
