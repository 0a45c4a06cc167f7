"""SQLite files, opened with mode=ro; any value may stand in any column."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fondaco.shared.errors import DataError

from .config import SourceConfig
from .extras import need
from .sql import Dialect, SqlSource, close_result

if TYPE_CHECKING:
    from sqlalchemy import Connection

_FAMILIES = {
    "INT": "integer",
    **dict.fromkeys(("CHAR", "CLOB", "TEXT"), "text"),
    **dict.fromkeys(("REAL", "FLOA", "DOUB"), "float"),
}


def open_sqlite(config: SourceConfig) -> SqlSource:
    """Return the source of a table or query in a file.

    Raises:
        ConfigError: SQLAlchemy is not installed.
        DataError: there is no such file or table, or it is no SQLite file.
    """
    sqlalchemy = need("sqlalchemy", "sql")
    path = Path(config.path)
    if not path.is_file():
        raise DataError(f"{path} does not exist or is not a file")

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)  # ATTACH would make other files
        return connection

    pool = sqlalchemy.NullPool
    engine = sqlalchemy.create_engine(
        "sqlite://", creator=connect, poolclass=pool, hide_parameters=True
    )
    return SqlSource(config, engine, DIALECT, _first_line)


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
