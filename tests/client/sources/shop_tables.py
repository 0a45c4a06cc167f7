"""The same orders in a file or database of every kind, and the settings that find them."""

import csv
import sqlite3
from contextlib import closing, contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy
from sqlalchemy import BigInteger, DateTime, Float, MetaData, Numeric, Text
from sqlalchemy.dialects.mysql import DATETIME

from fondaco.client.sources.config import SourceConfig

COLUMNS = ("user_id", "item_id", "time")
SERVERS = ("postgresql", "mysql")
FILES = ("csv", "parquet")
_ARROW = {"text": pa.string(), "integer": pa.int64(), "float": pa.float64()}
_ARROW |= {"decimal": pa.decimal128(20, 2), "time": pa.timestamp("us")}
_SQLITE = {"text": "TEXT", "integer": "INTEGER", "float": "REAL", "time": "TIMESTAMP"}
_SQLITE["decimal"] = "NUMERIC"
_DUCKDB = {"text": "VARCHAR", "integer": "BIGINT", "float": "DOUBLE", "time": "TIMESTAMP"}
_DUCKDB["decimal"] = "DECIMAL(20, 2)"


class Shop:
    """Writes tables of orders: each kind as its own users would.

    Args:
        folder: for files.
        servers: kind -> a running server.
    """

    def __init__(self, folder, servers):
        self.folder, self.servers, self._written = folder, servers, 0

    def write(self, kind, rows, types=("text", "text", "time"), columns=COLUMNS):
        """Return the settings of a fresh table that holds `rows`."""
        self._written += 1
        name = f"orders{self._written}"
        writer = getattr(self, f"_{kind}", self._server)
        return writer(kind, name, dict(zip(columns, types, strict=True)), rows)

    def again(self, config, rows, types=("text", "text", "time"), columns=COLUMNS):
        """Replace a table by another one at the same place."""
        name = config.table
        if config.kind in SERVERS:
            with self.admin(config.kind) as admin:
                admin.exec_driver_sql(f"DROP TABLE {name}")
        writer = getattr(self, f"_{config.kind}", self._server)
        writer(config.kind, name or config.path, dict(zip(columns, types, strict=True)), rows)

    @contextmanager
    def admin(self, kind):
        """A connection that may write."""
        server = self.servers[kind]
        driver = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}[kind]
        engine = sqlalchemy.create_engine(server.url(driver), poolclass=sqlalchemy.NullPool)
        with engine.begin() as connection:
            yield connection
        engine.dispose()

    def url_file(self, kind):
        path = self.folder / f"{kind}.url"
        path.write_text(self.servers[kind].url() + "\n")
        path.chmod(0o600)
        return str(path)

    def _csv(self, kind, name, types, rows):
        path = self._path(name, ".csv")
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL)
            writer.writerow(types)
            writer.writerows([["" if v is None else _iso(v) for v in row] for row in rows])
        return SourceConfig(kind=kind, path=str(path))

    def _parquet(self, kind, name, types, rows):
        path = self._path(name, ".parquet")
        cells = list(zip(*rows, strict=True)) or [()] * len(types)
        arrays = [
            pa.array(column, _ARROW[kind])
            for column, kind in zip(cells, types.values(), strict=True)
        ]
        pq.write_table(pa.table(arrays, names=list(types)), path, row_group_size=5)
        return SourceConfig(kind=kind, path=str(path))

    def _sqlite(self, kind, name, types, rows):
        path = self.folder / "shop.sqlite"
        declared = ", ".join(f"{_quoted(column)} {_SQLITE[t]}" for column, t in types.items())
        with closing(sqlite3.connect(path)) as db, db:
            db.execute(f"DROP TABLE IF EXISTS {name}")
            db.execute(f"CREATE TABLE {name} ({declared})")
            marks = ", ".join("?" * len(types))
            plain = [[_iso(value) for value in row] for row in rows]
            db.executemany(f"INSERT INTO {name} VALUES ({marks})", plain)  # noqa: S608
        return SourceConfig(kind=kind, path=str(path), table=name)

    def _duckdb(self, kind, name, types, rows):
        import duckdb  # noqa: PLC0415

        path = self.folder / "shop.duckdb"
        declared = ", ".join(f"{_quoted(column)} {_DUCKDB[t]}" for column, t in types.items())
        with duckdb.connect(str(path)) as db:
            db.execute(f"CREATE OR REPLACE TABLE {name} ({declared})")
            marks = ", ".join("?" * len(types))
            if rows:
                db.executemany(f"INSERT INTO {name} VALUES ({marks})", [list(r) for r in rows])  # noqa: S608
        return SourceConfig(kind=kind, path=str(path), table=name)

    def _server(self, kind, name, types, rows):
        made = {
            "text": Text(),
            "integer": BigInteger(),
            "float": Float(53),
            "decimal": Numeric(20, 2),
            "time": DATETIME(fsp=6) if kind == "mysql" else DateTime(),
        }
        columns = [sqlalchemy.Column(column, made[t]) for column, t in types.items()]
        table = sqlalchemy.Table(name, MetaData(), *columns)
        with self.admin(kind) as admin:
            table.create(admin)
            if rows:
                admin.execute(table.insert(), [dict(zip(types, row, strict=True)) for row in rows])
        return SourceConfig(kind=kind, url_file=self.url_file(kind), table=name)

    def _path(self, name, suffix):
        return self.folder / f"{name}{suffix}" if "/" not in name else type(self.folder)(name)


def _iso(value):
    return value.isoformat() if hasattr(value, "isoformat") else value


def _quoted(name):
    return '"' + name.replace('"', '""') + '"'
