"""PostgreSQL through psycopg 3: read-only transactions, a cursor on the server."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .config import SourceConfig
from .extras import need
from .servers import open_server
from .sql import Dialect, SqlSource, close_result

if TYPE_CHECKING:
    from sqlalchemy import Connection

_TIMES = ("date", "timestamp", "timestamptz")
_FAMILIES = {
    **dict.fromkeys(("int2", "int4", "int8"), "integer"),
    **dict.fromkeys(("text", "varchar", "bpchar", "name", "uuid"), "text"),
    **dict.fromkeys(("float4", "float8"), "float"),
    **dict.fromkeys(_TIMES, "time"),
    "numeric": "decimal",
    "bool": "boolean",
}


def open_postgresql(config: SourceConfig) -> SqlSource:
    """Return the source of a table or query.

    Raises:
        As `open_server`.
    """
    psycopg = need("psycopg", "sql")
    texts = need("psycopg.types.string", "sql")
    context = psycopg.adapt.AdaptersMap(psycopg.adapters)
    for name in _TIMES:  # as written: "infinity" is then one bad row, not the end of the query
        context.register_loader(name, texts.TextLoader)
    arguments = {"context": _Context(context)}
    return open_server(config, DIALECT, "postgresql+psycopg", ("postgresql", "postgres"), arguments)


class _Context:
    """What psycopg takes its adapters from."""

    connection = None

    def __init__(self, adapters: Any) -> None:  # noqa: ANN401  (psycopg is optional)
        self.adapters = adapters


def _types(connection: "Connection", description: Sequence[Any], table: str) -> dict[str, str]:
    del connection, table
    adapters = need("psycopg", "sql").adapters
    found = {column.name: adapters.types.get(column.type_code) for column in description}
    names = {name: kind.name if kind else "unknown" for name, kind in found.items()}
    return {name: _FAMILIES.get(kind, kind) for name, kind in names.items()}


DIALECT = Dialect(
    quote='"',
    session=(
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SET DateStyle = 'ISO'",
        "SET TimeZone = 'UTC'",
    ),
    options={"postgresql_readonly": True},
    types=_types,
    abandon=close_result,
)
