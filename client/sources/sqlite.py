"""SQLite files, opened with mode=ro; any value may stand in any column.

A file in WAL mode that nobody has open is read as one that does not change (immutable): mode=ro
would put the two files of its log beside it, as this OS user's, and its shop could write no more.
"""

import sqlite3
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fondaco.shared.errors import DataError

from .config import SourceConfig
from .extras import need
from .sql import Dialect, SqlSource, close_result
from .table import RawTable

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

_FAMILIES = {
    "INT": "integer",
    **dict.fromkeys(("CHAR", "CLOB", "TEXT"), "text"),
    **dict.fromkeys(("REAL", "FLOA", "DOUB"), "float"),
}
_IN_WAL_MODE = b"\2\2"
"""Bytes 18 and 19 of such a file. Source: sqlite.org/fileformat.html, 1.3."""


class SqliteSource(SqlSource):
    """A table, a view or the result of a query in a file.

    Args:
        config: which.
        engine: makes connections that can only read.
    """

    def __init__(self, config: SourceConfig, engine: "Engine") -> None:
        self._path = Path(config.path)
        super().__init__(config, engine, DIALECT, _first_line)

    def batches(self, names: Sequence[str], n_rows: int) -> Generator[RawTable]:
        """Yield rows as the database gives them.

        Raises:
            DataError: a file that nobody had open was changed meanwhile.
        """
        before = None if _is_shared(self._path) else _state(self._path)
        yield from super().batches(names, n_rows)
        if before not in (None, _state(self._path)):
            raise DataError(f"{self._path} was changed while it was read; run this again")


def open_sqlite(config: SourceConfig) -> SqliteSource:
    """Return the source of a table or query in a file.

    Raises:
        ConfigError: SQLAlchemy is not installed.
        DataError: there is no such file or table, it is no SQLite file, or it lacks rows that lie
            in a log beside it.
    """
    sqlalchemy = need("sqlalchemy", "sql")
    path = Path(config.path)
    if not path.is_file():
        raise DataError(f"{path} does not exist or is not a file")

    def connect() -> sqlite3.Connection:
        way = "" if _is_shared(path) else "&immutable=1"
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro{way}", uri=True)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)  # ATTACH would make other files
        return connection

    pool = sqlalchemy.NullPool
    engine = sqlalchemy.create_engine(
        "sqlite://", creator=connect, poolclass=pool, hide_parameters=True
    )
    return SqliteSource(config, engine)


def _is_shared(path: Path) -> bool:
    """Return whether a file is opened like any other; False for a whole one in WAL mode.

    Raises:
        DataError: newer rows lie in a log that nobody has open.
    """
    with path.open("rb") as file:
        if file.read(20)[18:] != _IN_WAL_MODE:
            return True
    log, index = (
        path.resolve().with_name(f"{path.resolve().name}-{end}") for end in ("wal", "shm")
    )
    if not log.exists() or not (log.stat().st_size or index.exists()):
        return False
    if not index.exists():
        raise DataError(
            f"{log} holds newer rows and nobody has it open; open and close {path.name} with the "
            f"shop's own program, or read a copy made with sqlite3 {path.name} '.backup COPY'"
        )
    return True


def _state(path: Path) -> tuple[int, int]:
    there = path.stat()
    return there.st_mtime_ns, there.st_size


def _types(connection: "Connection", description: Sequence[Any], table: str) -> dict[str, str]:
    """Declared types of a table's columns; those of a query are known by its values only."""
    names = [column[0] for column in description]
    schema, _, plain = table.rpartition(".")
    arguments = (plain, schema or "main")
    found = connection.exec_driver_sql("SELECT name, type FROM pragma_table_info(?, ?)", arguments)
    declared = {row[0]: _family(row[1]) for row in found}
    return {name: declared.get(name, "") for name in names}


def _family(declared: str) -> str:
    """Return what a declared type means, by SQLite's own rules."""
    return next(
        (kind for part, kind in _FAMILIES.items() if part in declared.upper()), declared.lower()
    )


def _first_line(message: object) -> str:
    return str(message).partition("\n")[0]


DIALECT = Dialect(
    quote='"', session=("PRAGMA query_only = ON",), options={}, types=_types, abandon=close_result
)
