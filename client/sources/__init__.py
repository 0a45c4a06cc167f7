"""Tables of the outside world -> checked DataFrames; one file per format."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from fondaco.shared.errors import DataError
from fondaco.shared.schema import (
    REQUIRED_INTERACTION_COLUMNS,
    REQUIRED_ITEM_COLUMNS,
    InteractionColumns,
    ItemColumns,
    check_known,
    pick_columns,
)
from fondaco.shared.vocabulary import Vocabulary

from .csv_file import open_csv
from .parquet_file import open_parquet
from .table import RawTable

SOURCES: Mapping[str, Callable[[Path], RawTable]] = {
    ".csv": open_csv,
    ".parquet": open_parquet,
}
"""Suffix -> reader; a new format is one file and one line."""


def read_interactions(
    path: str | Path,
    columns: InteractionColumns | None = None,
    *,
    items: Vocabulary | None = None,
) -> pd.DataFrame:
    """Return the interactions of one file, every row checked, in the file's order.

    Args:
        path: a file with a suffix of `SOURCES`.
        columns: what the file calls its columns.
        items: the public catalogue's ids; None leaves unknown items to `index_interactions`.

    Returns:
        (n_rows,) user_id, item_id and, where the file has them, silo_id [str], rating
        [float64] and time [float64 days since 1970-01-01 UTC, or a number giving the
        order]; `attrs["has_clock"]` says which.

    Raises:
        DataError: no such file, suffix or column, or a row that a check refused.
    """
    table = _open(Path(path))
    names = pick_columns(
        table.name, table.columns, columns or InteractionColumns(), REQUIRED_INTERACTION_COLUMNS
    )
    table.read(list(names.values()))
    parts: dict[str, object] = {
        ours: table.ids(names[ours]) for ours in ("user_id", "item_id", "silo_id") if ours in names
    }
    if items is not None:
        table.refuse(check_known(list(table.ids(names["item_id"])), items), names["item_id"])
    if "rating" in names:
        parts["rating"] = table.numbers(names["rating"])
    has_clock = False
    if "time" in names:
        parts["time"], has_clock = table.times(names["time"])
    frame = pd.DataFrame(parts)
    frame.attrs["has_clock"] = has_clock
    return frame


def read_items(path: str | Path, columns: ItemColumns | None = None) -> pd.DataFrame:
    """Return the public item list of one file, every row checked, in the file's order.

    Returns:
        (n_items,) item_id, text, category, brand [str, "" where unknown], price and year
        [float64, NaN where unknown].

    Raises:
        DataError: no such file, suffix or column, or a row that a check refused.
    """
    table = _open(Path(path))
    names = pick_columns(table.name, table.columns, columns or ItemColumns(), REQUIRED_ITEM_COLUMNS)
    table.read(list(names.values()))
    parts: dict[str, object] = {"item_id": table.distinct_ids(names["item_id"])}
    for ours in ("text", "category", "brand"):
        parts[ours] = table.texts(names[ours]) if ours in names else ""
    for ours in ("price", "year"):
        parts[ours] = table.prices(names[ours]) if ours in names else np.nan
    return pd.DataFrame(parts)


def _open(path: Path) -> RawTable:
    if path.suffix.lower() not in SOURCES:
        raise DataError(f"{path.name} is none of the known formats: {', '.join(SOURCES)}")
    if not path.is_file():
        raise DataError(f"{path} does not exist or is not a file")
    return SOURCES[path.suffix.lower()](path)
