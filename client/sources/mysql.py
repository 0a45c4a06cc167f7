"""MySQL and MariaDB through PyMySQL: read-only transactions, rows unbuffered."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .config import SourceConfig
from .extras import need
from .servers import open_server
from .sql import Dialect, SqlSource

if TYPE_CHECKING:
    from sqlalchemy import Connection, CursorResult

_FAMILIES = {
    "integer": ("TINY", "SHORT", "LONG", "INT24", "LONGLONG", "YEAR", "BIT"),
    "text": ("VARCHAR", "VAR_STRING", "STRING", "BLOB", "LONG_BLOB", "MEDIUM_BLOB", "TINY_BLOB"),
    "float": ("FLOAT", "DOUBLE"),
    "decimal": ("DECIMAL", "NEWDECIMAL"),
    "time": ("DATE", "NEWDATE", "DATETIME", "TIMESTAMP"),
}


def open_mysql(config: SourceConfig) -> SqlSource:
    """Return the source of a table or query.

    Raises:
        As `open_server`.
    """
    converters = need("pymysql.converters", "sql")
    types = need("pymysql.constants.FIELD_TYPE", "sql")
    decoders = dict(converters.conversions)
    for name in _FAMILIES["time"]:  # as written: "0000-00-00" is then one bad row
        decoders.pop(getattr(types, name), None)
    arguments = {"conv": decoders, "local_infile": False}
    return open_server(config, DIALECT, "mysql+pymysql", ("mysql", "mariadb"), arguments)


def _types(connection: "Connection", description: Sequence[Any], table: str) -> dict[str, str]:
    del connection, table
    codes = need("pymysql.constants.FIELD_TYPE", "sql")
    families = {
        getattr(codes, name): family for family, names in _FAMILIES.items() for name in names
    }
    return {column[0]: families.get(column[1], f"type {column[1]}") for column in description}


def _abandon(connection: "Connection", found: "CursorResult[Any]") -> None:
    """Hang up in the middle of a result; PyMySQL would read it to its end first."""
    del found
    under_way = getattr(connection.connection.dbapi_connection, "_result", None)
    if under_way is not None:
        under_way.unbuffered_active = False
    connection.invalidate()


DIALECT = Dialect(
    quote="`",
    session=("SET SESSION TRANSACTION READ ONLY", "SET time_zone = '+00:00'"),
    options={},
    types=_types,
    abandon=_abandon,
)
