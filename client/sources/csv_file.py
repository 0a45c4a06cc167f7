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
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{self.name} is not a UTF-8 CSV table: {error}") from error
        self._cells = {}
        for at, name in enumerate(names):
            cells = np.empty(len(rows), dtype=object)
            cells[:] = [row[at] for row in rows]
            self._cells[name] = cells

    def _records(self) -> Iterator[list[str]]:
        """Yield every record below the header, noting the line where it starts."""
        width = len(self.columns)
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            next(reader)
            line = reader.line_num + 1
            for record in reader:
                if len(record) == width:
                    self._lines.append(line)
                    yield record
                elif record:
                    raise DataError(
                        f"{self.name} line {line} has {len(record)} cells; the header has {width}"
                    )
                line = reader.line_num + 1

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
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path.name} is not a UTF-8 CSV table: {error}") from error
    if not header:
        raise DataError(f"{path.name} has no header line that names its columns")
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise DataError(f"{path.name} names column {twice[0]!r} twice")
    return CsvTable(path, header)
