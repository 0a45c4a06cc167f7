"""Tables of the outside world -> checked rows; one file per kind, opened for reading only."""

from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Literal

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

from .config import SourceConfig
from .csv_file import open_csv
from .duckdb_file import open_duckdb
from .mysql import open_mysql
from .parquet_file import open_parquet
from .postgresql import open_postgresql
from .sqlite import open_sqlite
from .table import RawTable, Source
from .values import ValueTable

SOURCES: Mapping[str, Callable[[SourceConfig], Source]] = {
    "csv": open_csv,
    "parquet": open_parquet,
    "sqlite": open_sqlite,
    "postgresql": open_postgresql,
    "mysql": open_mysql,
    "duckdb": open_duckdb,
}
"""`source.kind` -> reader; a new kind is one file and one line."""

SUFFIXES = (".csv", ".parquet")
"""Files that can be read by name alone; the suffix is the kind."""
BATCH_ROWS = 16_384


def open_source(config: SourceConfig) -> Source:
    """Return the place where rows lie, opened for reading only.

    Raises:
        ConfigError: a library or an address is missing.
        DataError: nothing can be read there.
    """
    return SOURCES[config.kind](config)


def read_interactions(
    path: str | Path,
    columns: InteractionColumns | None = None,
    *,
    items: Vocabulary | None = None,
) -> pd.DataFrame:
    """Return the interactions of one file, every row checked, in the file's order.

    Args:
        path: a file with one of `SUFFIXES`.
        columns: what the file calls its columns.
        items: the public catalogue's ids; None leaves unknown items to `index_interactions`.

    Returns:
        (n_rows,) user_id, item_id and, where the file has them, silo_id [str], rating
        [float64] and time [float64 days since 1970-01-01 UTC, or a number giving the
        order]; `attrs["has_clock"]` says which.

    Raises:
        DataError: no such file, suffix or column, or a row that a check refused.
    """
    with _open(Path(path)) as source:
        names = pick_columns(
            source.name,
            source.columns,
            columns or InteractionColumns(),
            REQUIRED_INTERACTION_COLUMNS,
        )
        has_clock, parts = False, list[pd.DataFrame]()
        for table in _at_least_one(source, list(names.values())):
            if "time" in names and not parts:
                has_clock = table.is_clock(names["time"])
            parts.append(_interactions(table, names, items, has_clock=has_clock))
    frame = pd.concat(parts, ignore_index=True)
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
    seen: set[str] = set()
    with _open(Path(path)) as source:
        names = pick_columns(
            source.name, source.columns, columns or ItemColumns(), REQUIRED_ITEM_COLUMNS
        )
        tables = _at_least_one(source, list(names.values()))
        parts = [_items(table, names, seen) for table in tables]
    return pd.concat(parts, ignore_index=True)


def _interactions(
    table: RawTable, names: Mapping[str, str], items: Vocabulary | None, *, has_clock: bool
) -> pd.DataFrame:
    parts: dict[str, object] = {
        ours: table.ids(names[ours]) for ours in ("user_id", "item_id", "silo_id") if ours in names
    }
    if items is not None:
        table.refuse(check_known(list(table.ids(names["item_id"])), items), names["item_id"])
    if "rating" in names:
        parts["rating"] = table.numbers(names["rating"])
    if "time" in names:
        read = table.times if has_clock else table.numbers
        parts["time"] = read(names["time"])
    return pd.DataFrame(parts)


def _items(table: RawTable, names: Mapping[str, str], seen: set[str]) -> pd.DataFrame:
    parts: dict[str, object] = {"item_id": table.distinct_ids(names["item_id"], seen)}
    for ours in ("text", "category", "brand"):
        parts[ours] = table.texts(names[ours]) if ours in names else ""
    for ours in ("price", "year"):
        parts[ours] = table.prices(names[ours]) if ours in names else np.nan
    return pd.DataFrame(parts)


def _at_least_one(source: Source, names: list[str]) -> Generator[RawTable]:
    """Yield the batches of a source, one without rows if it has none."""
    empty: RawTable = ValueTable(source.name, {name: () for name in names}, 0)
    for table in source.batches(names, BATCH_ROWS):
        empty = table
        yield table
    if not len(empty):
        yield empty


def _open(path: Path) -> Source:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path.name} is none of the known formats: {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise DataError(f"{path} does not exist or is not a file")
    kind: Literal["csv", "parquet"] = "csv" if suffix == ".csv" else "parquet"
    return open_source(SourceConfig(kind=kind, path=str(path)))
