"""A public item list in CSV -> the catalogue that silos make from the same file."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fondaco.shared.catalogue import Catalogue, read_catalogue
from fondaco.shared.csv_text import read_header, read_records
from fondaco.shared.errors import DataError
from fondaco.shared.schema import (
    REQUIRED_ITEM_COLUMNS,
    BadCell,
    ItemColumns,
    check_distinct,
    check_finite,
    check_ids,
    check_not_negative,
    pick_columns,
)
from fondaco.shared.vocabulary import Vocabulary

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def load_items(path: Path) -> Catalogue:
    """Return the catalogue in a `.json` written by fondaco, or in a `.csv` item list.

    Raises:
        DataError: no such file or format, or a row that a check refused.
    """
    readers: dict[str, Callable[[Path], Catalogue]] = {".json": read_catalogue, ".csv": read_items}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path.name} is none of the known formats: {', '.join(readers)}")
    if not path.is_file():
        raise DataError(f"{path} does not exist or is not a file")
    return reader(path)


def read_items(path: Path) -> Catalogue:
    """Return the catalogue of a CSV item list, every row checked, sorted by item id.

    The columns are those of `ItemColumns`; only item_id is required.

    Raises:
        DataError: a column is missing, a row was refused (with its line), or there is none.
    """
    header = read_header(path)
    names = pick_columns(path.name, header, ItemColumns(), REQUIRED_ITEM_COLUMNS)
    lines: list[int] = []
    rows: list[list[str]] = []
    for line, record in read_records(path, len(header)):
        lines.append(line)
        rows.append(record)
    if not rows:
        raise DataError(f"{path.name} lists no items")
    cells = {ours: [row[header.index(name)] for row in rows] for ours, name in names.items()}

    def refuse(column: str, bad: BadCell | None) -> None:
        if bad is not None:
            raise bad.error(f"{path.name} line {lines[bad.row]}", column)

    ids = cells["item_id"]
    refuse("item_id", check_ids(np.array(ids, dtype=object)) or check_distinct(ids))
    for column in ("price", "year"):
        refuse(column, _bad_number(cells.get(column, [])))
    return _sorted_by_id(cells)


def _sorted_by_id(cells: dict[str, list[str]]) -> Catalogue:
    ids = cells["item_id"]
    order = sorted(range(len(ids)), key=ids.__getitem__)

    def texts(column: str) -> tuple[str, ...]:
        return tuple(cells[column][at] for at in order) if column in cells else ("",) * len(ids)

    def numbers(column: str) -> NDArray[np.float64]:
        return np.array([_number(text) for text in texts(column)], dtype=np.float64)

    return Catalogue(
        items=Vocabulary(texts("item_id")),
        texts=texts("text"),
        categories=texts("category"),
        brands=texts("brand"),
        prices=numbers("price"),
        years=numbers("year"),
    )


def _bad_number(texts: Sequence[str]) -> BadCell | None:
    """The first text that is neither blank nor a finite number >= 0."""
    numbers = np.array([_number(text) for text in texts], dtype=np.float64)
    blank = np.array([not text.strip() for text in texts], dtype=bool)
    return check_finite(np.where(blank, 0.0, numbers), texts) or check_not_negative(numbers, texts)


def _number(text: str) -> float:
    """NaN for what is no decimal number."""
    text = text.strip()
    return float(text) if _NUMBER.fullmatch(text) else float("nan")
