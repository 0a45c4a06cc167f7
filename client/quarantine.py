"""Bad rows, put aside for the owner to look at: files for the owner alone, that never leave.

Whoever is erased is erased here too.
"""

import csv
import io
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from fondaco.shared.files import write_durably

from .erasure import Erasures
from .sources.table import RawTable

QUARANTINE = "quarantine"
"""The folder of bad rows in an owner's."""
MOST_ROWS = 100_000
"""Rows that are written down; all are counted."""
MOST_TEXT = 1000
"""Characters of a cell that are written down."""
WHERE, PROBLEM, USER = "where", "problem", "user_id"


class Quarantine:
    """The bad rows of one reading.

    Attributes:
        count: all of them.
        first: the first one in words, "" if there is none.
    """

    def __init__(self) -> None:
        self.count = 0
        self.first = ""
        self._rows: list[dict[str, str]] = []

    def add(self, table: RawTable, names: Mapping[str, str]) -> None:
        """Put the bad rows of a batch aside.

        Args:
            table: `table.bad` says which, and why.
            names: our name of a column -> the source's.
        """
        if not table.bad:
            return
        cells = {ours: table.cells(theirs) for ours, theirs in names.items()}
        for row, problem in sorted(table.bad.items()):
            where = table.place(row)
            self.first = self.first or f"{where}, {problem}"
            self.count += 1
            if len(self._rows) < MOST_ROWS:
                shown = {ours: (column[row] or "")[:MOST_TEXT] for ours, column in cells.items()}
                self._rows.append({WHERE: where, PROBLEM: problem, **shown})

    def save(self, folder: Path, erasures: Erasures) -> Path | None:
        """Write the rows of everybody who was not erased into today's file; None if none are bad.

        It takes the place of an earlier one of the same day.
        """
        path = folder / f"{datetime.now(UTC).date().isoformat()}.csv"
        gone = erasures.gone([row[USER] for row in self._rows])
        rows = [row for row, erased in zip(self._rows, gone, strict=True) if not erased]
        if not rows:
            path.unlink(missing_ok=True)
            return None
        _write(path, rows)
        return path


def count_rows(folder: Path, user_id: str) -> int:
    """Return how many rows of a customer lie in the files of a folder."""
    files = map(_read, folder.glob("*.csv"))
    return sum(row.get(USER) == user_id for rows in files for row in rows)


def purge(folder: Path, user_id: str) -> int:
    """Remove a customer's rows from all files of a folder; return how many there were."""
    found = 0
    for path in sorted(folder.glob("*.csv")):
        rows = _read(path)
        kept = [row for row in rows if row.get(USER) != user_id]
        found += len(rows) - len(kept)
        if not kept:
            path.unlink()
        elif len(kept) < len(rows):
            _write(path, kept)
    return found


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_durably(path, text.getvalue().encode("utf-8", "backslashreplace"))
