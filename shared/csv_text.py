"""CSV as text: UTF-8, a header line, every cell as it is written, and where it stands."""

import csv
from collections.abc import Iterator
from pathlib import Path

from .errors import DataError


def read_header(path: Path) -> list[str]:
    """Return the names of the columns.

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
    return header


def read_records(path: Path, width: int) -> Iterator[tuple[int, list[str]]]:
    """Yield every record below the header with the line where it starts; blank lines are skipped.

    Raises:
        DataError: a record has not `width` cells, or the file is no CSV or no UTF-8.
    """
    for line, record in read_any_records(path):
        _check_width(path, record, line, width)
        yield line, record


def read_any_records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield what `read_records` yields, records of any width.

    Raises:
        DataError: the file is no CSV or no UTF-8.
    """
    line = 1
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            for record in reader:
                if record and line > 1:
                    yield line, record
                line = reader.line_num + 1
        except csv.Error as error:
            raise DataError(f"{path.name} line {line} is not CSV: {error}") from error
        except UnicodeDecodeError as error:
            raise _not_utf8(path) from error


def _check_width(path: Path, record: list[str], line: int, width: int) -> None:
    if len(record) != width:
        raise DataError(f"{path.name} line {line} has {len(record)} cells; the header has {width}")


def _not_utf8(path: Path) -> DataError:
    """Return the error that names the first line which is not UTF-8."""
    with path.open("rb") as file:
        for line, raw in enumerate(file, start=1):
            try:
                raw.decode()
            except UnicodeDecodeError:
                return DataError(f"{path.name} line {line} is not UTF-8: {raw.strip()[:60]!r}")
    return DataError(f"{path.name} is not UTF-8")
