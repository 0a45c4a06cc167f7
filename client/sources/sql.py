"""Databases through SQLAlchemy: one SELECT, read-only, streamed; what engines differ in is given.

A table's columns are chosen in the SELECT; a query runs as it was written, because an outer
SELECT may lose its ORDER BY.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fondaco.shared.errors import DataError

from .config import SourceConfig
from .extras import need
from .table import RawTable, Source, check_once
from .values import ValueTable

if TYPE_CHECKING:
    from sqlalchemy import Connection, CursorResult, Engine


def close_result(connection: "Connection", found: "CursorResult[Any]") -> None:
    """Leave a result of which no more rows come than are fetched."""
    del connection
    found.close()


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """What an engine does in its own way.

    Attributes:
        quote: the character around names.
        session: statements that make a session read-only and its times those of UTC.
        options: SQLAlchemy's execution options of every connection.
        types: (connection, description of a result's columns, table or "") -> column -> type.
        abandon: leaves a result in the middle, without reading it to its end.
    """

    quote: str
    session: Sequence[str]
    options: Mapping[str, Any]
    types: Callable[["Connection", Sequence[Any], str], dict[str, str]]
    abandon: Callable[["Connection", "CursorResult[Any]"], None]


class SqlSource(Source):
    """A table, a view or the result of a query.

    Args:
        config: which.
        engine: makes connections that can only read.
        dialect: the engine's ways.
        hide: a driver's message -> one line without secrets.
    """

    def __init__(
        self,
        config: SourceConfig,
        engine: "Engine",
        dialect: Dialect,
        hide: Callable[[object], str],
    ) -> None:
        self.name = config.table or "query"
        self._engine, self._dialect, self._hide = engine, dialect, hide
        self._query = config.query.strip().rstrip(";")
        self._table = ".".join(map(self._quoted, config.table.split(".")))
        what = f"({self._query}\n) AS fondaco_source" if self._query else self._table
        with self._connected() as connection, self._readable():
            select = f"SELECT * FROM {what} WHERE 1 = 0"  # noqa: S608  (quoted, or the owner's)
            found = self._run(connection, select)
            description = found.cursor.description if found.cursor else ()
            check_once(self.name, [column[0] for column in description])
            self.types = dialect.types(connection, description, config.table)

    def batches(self, names: Sequence[str], n_rows: int) -> Generator[RawTable]:
        """Yield rows as the database gives them."""
        chosen = ", ".join(map(self._quoted, names))
        select = self._query or f"SELECT {chosen} FROM {self._table}"  # noqa: S608  (quoted names)
        with self._connected() as connection, self._readable():
            streaming = connection.execution_options(
                stream_results=True, max_row_buffer=n_rows, yield_per=n_rows
            )
            found = self._run(streaming, select)
            keys = list(found.keys()) if self._query else list(names)
            check_once(self.name, keys)
            spots = [keys.index(name) for name in names]
            before = 0
            for rows in self._parts(connection, found, n_rows):
                columns = list(zip(*rows, strict=True))
                values = {name: columns[at] for name, at in zip(names, spots, strict=True)}
                yield ValueTable(self.name, values, before)
                before += len(rows)

    def close(self) -> None:
        """End all connections."""
        self._engine.dispose()

    def execute(self, statement: str) -> None:
        """Run a statement as rows are read: one that writes is refused by the database.

        Raises:
            DataError: the database refuses it.
        """
        with self._connected() as connection, self._readable():
            self._run(connection, statement)

    def _parts(
        self, connection: "Connection", found: "CursorResult[Any]", n_rows: int
    ) -> Iterator[Sequence[Any]]:
        whole = False
        try:
            while rows := found.fetchmany(n_rows):
                yield rows
            whole = True
        finally:
            if not whole:
                self._dialect.abandon(connection, found)

    @contextmanager
    def _connected(self) -> Iterator["Connection"]:
        with self._readable(), closing(self._engine.connect()) as connection:
            connection.execution_options(**self._dialect.options)
            for statement in self._dialect.session:
                self._run(connection, statement)
            connection.commit()
            yield connection

    def _run(self, connection: "Connection", statement: str) -> "CursorResult[Any]":
        return connection.exec_driver_sql(statement, execution_options={"no_parameters": True})

    @contextmanager
    def _readable(self) -> Iterator[None]:
        errors = need("sqlalchemy.exc", "sql")
        try:
            yield
        except errors.DBAPIError as error:
            raise DataError(f"{self.name}: {self._hide(error.orig)}") from None
        except errors.SQLAlchemyError as error:
            raise DataError(f"{self.name}: {self._hide(error)}") from None

    def _quoted(self, name: str) -> str:
        mark = self._dialect.quote
        return f"{mark}{name.replace(mark, mark * 2)}{mark}"
