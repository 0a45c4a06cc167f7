"""CSV tables: UTF-8, a header line, every cell kept as it is written."""

from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fondaco.shared.csv_text import read_header, read_records

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
        rows = []
        for line, record in read_records(self.path, len(self.columns)):
            self._lines.append(line)
            rows.append(pick(record))
        self._cells = {}
        for at, name in enumerate(names):
            cells = np.empty(len(rows), dtype=object)
            cells[:] = [row[at] for row in rows]
            self._cells[name] = cells

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
    return CsvTable(path, read_header(path))
