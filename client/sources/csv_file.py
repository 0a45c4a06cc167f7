"""CSV tables: UTF-8, a header line, every cell kept as it is written."""

from collections.abc import Generator, Sequence
from itertools import islice
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fondaco.shared.csv_text import read_any_records, read_header
from fondaco.shared.errors import DataError

from .config import SourceConfig
from .files import files_of, name_of
from .table import RawTable, Source, as_cells


class CsvTable(RawTable):
    """Records of a CSV file; one of another width than the header is bad."""

    def __init__(self, name: str, found: list[tuple[int, list[str]]], header: list[str]) -> None:
        super().__init__()
        self._name = name
        self._lines = [line for line, _ in found]
        self._records = [record for _, record in found]
        self._header = header
        self._checked = False

    def __len__(self) -> int:
        return len(self._records)

    def cells(self, name: str) -> NDArray[np.object_]:
        """Return (n_rows,) cells as written.

        Raises:
            DataError: a record has another width than the header, whatever the column.
        """
        if not self._checked:
            self._checked = True
            self._check_widths()
        return as_cells(map(itemgetter(self._header.index(name)), self._records))

    def place(self, row: int) -> str:
        """Return the line where the record starts."""
        return f"{self._name} line {self._lines[row]}"

    def _check_widths(self) -> None:
        width = len(self._header)
        if set(map(len, self._records)) <= {width}:
            return
        for row, record in enumerate(self._records):
            if len(record) != width:
                problem = f"has {len(record)} cells; the header has {width}"
                if not self._forgiving:
                    raise DataError(f"{self.place(row)} {problem}")
                self.bad[row] = problem
                self._records[row] = (record + [""] * width)[:width]


class CsvSource(Source):
    """A CSV file or a folder of them; blank lines are skipped."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._path = path
        self._files = files_of(path, ".csv")
        self.types = dict.fromkeys(read_header(self._files[0]), "text")

    def batches(self, names: Sequence[str], n_rows: int) -> Generator[RawTable]:
        """Yield records of one file after the other.

        Raises:
            DataError: a file is no CSV, no UTF-8, or lacks a column of `names`.
        """
        for path in self._files:
            header, name = read_header(path), name_of(path, self._path)
            missing = [wanted for wanted in names if wanted not in header]
            if missing:
                raise DataError(
                    f"{name} has no column {missing[0]!r}, as {self._files[0].name} has"
                )
            records = read_any_records(path)
            while found := list(islice(records, n_rows)):
                yield CsvTable(name, found, header)

    def close(self) -> None:
        """Do nothing: files are open while they are read."""


def open_csv(config: SourceConfig) -> CsvSource:
    """Return the source of a path.

    Raises:
        DataError: there is no file, or it has no header, is not UTF-8, or names a column twice.
    """
    return CsvSource(Path(config.path))
