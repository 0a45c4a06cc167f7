"""DuckDB files: opened read-only, with no way to other files, streamed as Arrow batches.

Nothing is spilled to disk either: DuckDB would put customers' rows in the clear beside the file.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from fondaco.shared.errors import DataError

from .arrow import ArrowTable
from .config import SourceConfig
from .extras import need
from .table import RawTable, Source, check_once

MEMORY = "512MB"
_SETTINGS = {
    "enable_external_access": "false",
    "memory_limit": MEMORY,
    "temp_directory": "",
    "threads": "1",
    "lock_configuration": "true",
}
_FAMILIES = {
    **dict.fromkeys(("FLOAT", "DOUBLE"), "float"),
    **dict.fromkeys(("VARCHAR", "UUID"), "text"),
    "DATE": "time",
    "BOOLEAN": "boolean",
}


class DuckDbSource(Source):
    """A table, a view or the result of a query.

    Args:
        config: which.
    """

    def __init__(self, config: SourceConfig) -> None:
        path = Path(config.path)
        if not path.is_file():
            raise DataError(f"{path} does not exist or is not a file")
        self.name = config.table or "query"
        self._duckdb = need("duckdb", "duckdb")
        self._query = config.query.strip().rstrip(";")
        self._table = ".".join(map(_quoted, config.table.split(".")))
        with self._readable():
            self._database = self._duckdb.connect(str(path), read_only=True, config=_SETTINGS)
            select = self._query or f"SELECT * FROM {self._table}"  # noqa: S608  (quoted names)
            found = self._database.sql(select)
            check_once(self.name, found.columns)
            kinds = [str(kind) for kind in found.types]
            self.types = dict(zip(found.columns, map(_family, kinds), strict=True))

    def batches(self, names: Sequence[str], n_rows: int) -> Generator[RawTable]:
        """Yield rows as the database gives them."""
        chosen = ", ".join(map(_quoted, names))
        select = self._query or f"SELECT {chosen} FROM {self._table}"  # noqa: S608  (quoted names)
        before = 0
        with self._readable():
            for batch in self._database.sql(select).to_arrow_reader(n_rows):
                yield ArrowTable(self.name, batch.select(list(names)), before)
                before += batch.num_rows

    def execute(self, statement: str) -> None:
        """Run a statement as rows are read: one that writes is refused by the database.

        Raises:
            DataError: the database refuses it.
        """
        with self._readable():
            self._database.execute(statement)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (self._duckdb.Error, pa.ArrowException, OSError) as error:
            raise DataError(f"{self.name}: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    line = str(error).strip().partition("\n")[0]
    if not line.startswith("Out of Memory Error"):
        return line
    return (
        f"this query needs more than {MEMORY} of memory; leave out its ORDER BY if rows have a "
        "time, or keep its result as a table of the database and name that as source.table"
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _family(kind: str) -> str:
    if kind.startswith("DECIMAL"):
        return "decimal"
    if kind.startswith("TIMESTAMP"):
        return "time"
    return _FAMILIES.get(kind, "integer" if "INT" in kind else kind.lower())


def open_duckdb(config: SourceConfig) -> DuckDbSource:
    """Return the source of a table or query in a file.

    Raises:
        ConfigError: DuckDB is not installed.
        DataError: there is no such file or table, or another program has opened it for writing.
    """
    return DuckDbSource(config)
