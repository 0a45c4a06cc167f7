"""How fast does a silo read its rows, and in how much memory, from each kind of source?

`python -m fondaco.simulation.benchmarks.loading --rows 10000000`: writes the same made-up orders
as CSV, Parquet and SQLite, and loads each in a process of its own, whose peak memory is its
own too: read, check, index, split by time, and write the snapshot.
"""

import csv
import json
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from numpy.typing import NDArray

from fondaco.client.loading import load
from fondaco.client.owner import Owner
from fondaco.client.sources.config import SourceConfig, SourceFile
from fondaco.shared.catalogue import Catalogue, ids_only
from fondaco.shared.vocabulary import Vocabulary

from .common import Row, record
from .ledger import plan_of

COLUMNS = ("user_id", "item_id", "time")
AT_ONCE = 200_000
ROWS_PER_CUSTOMER = 10
FIRST, SPAN_S = int(datetime(2022, 1, 1, tzinfo=UTC).timestamp()), 4 * 365 * 86_400
DATES = {"valid_from": "2025-06-01", "test_from": "2025-09-01"}
MOST_MEMORY_MIB = 2048.0
UNITS = {
    "seconds": "s",
    "processor": "s",
    "speed": "rows/s",
    "memory": "MiB",
    "source": "MiB",
    "snapshot": "MiB",
}
_MIB = 2**20

Batch = tuple[NDArray[np.str_], NDArray[np.str_], NDArray[np.str_]]


def orders(n_rows: int, n_items: int, seed: int) -> Iterator[Batch]:
    """Yield user ids, item ids and times (ISO, to the second) of made-up orders in no order."""
    rng = np.random.default_rng(seed)
    n_users = max(1, n_rows // ROWS_PER_CUSTOMER)
    for start in range(0, n_rows, AT_ONCE):
        size = min(AT_ONCE, n_rows - start)
        users = rng.integers(n_users, size=size)
        items = (n_items * rng.random(size) ** 3).astype(np.int64)
        times = (FIRST + rng.integers(SPAN_S, size=size)).astype("datetime64[s]")
        named = np.char.add("customer-", users.astype(np.str_))
        yield named, np.char.add("sku-", items.astype(np.str_)), np.datetime_as_string(times)


def write_csv(path: Path, batches: Iterator[Batch]) -> None:
    """Write orders as a CSV file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for batch in batches:
            writer.writerows(zip(*(column.tolist() for column in batch), strict=True))


def write_parquet(path: Path, batches: Iterator[Batch]) -> None:
    """Write orders as a Parquet file, times as timestamps."""
    kinds = (pa.string(), pa.string(), pa.timestamp("us"))
    schema = pa.schema(list(zip(COLUMNS, kinds, strict=True)))
    with pq.ParquetWriter(path, schema) as writer:
        for users, items, times in batches:
            moments = pa.array(times.astype("datetime64[us]"), kinds[2])
            arrays = [pa.array(users.tolist()), pa.array(items.tolist()), moments]
            writer.write_table(pa.table(arrays, schema=schema))


def write_sqlite(path: Path, batches: Iterator[Batch]) -> None:
    """Write orders as a table of a SQLite file."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE orders (user_id TEXT, item_id TEXT, time TEXT)")
        for batch in batches:
            rows = zip(*(column.tolist() for column in batch), strict=True)
            db.executemany("INSERT INTO orders VALUES (?, ?, ?)", rows)


WRITERS: Mapping[str, Callable[[Path, Iterator[Batch]], None]] = {
    "csv": write_csv,
    "parquet": write_parquet,
    "sqlite": write_sqlite,
}


def measure(kind: str, path: Path, n_items: int, home: Path) -> Row:
    """Load a source in this process; return how long it took and its peak memory so far."""
    owner = Owner.make(home, "silo 1")
    names = Vocabulary.from_values(f"sku-{num}" for num in range(n_items))
    blank = ("",) * n_items
    items = Catalogue(
        items=names, texts=blank, categories=blank, brands=blank, prices=np.full(n_items, np.nan)
    )
    facts = {"protocol": "time", "repeats": "no", **DATES}
    plan = replace(plan_of(1), public=facts, catalogue_digest=ids_only(items).digest)
    table = {"table": "orders"} if kind == "sqlite" else {}
    settings = SourceFile(source=SourceConfig(kind=kind, path=str(path), **table))  # type: ignore[arg-type]
    start, worked = time.perf_counter(), time.process_time()
    loaded = load(owner, settings, plan, items)
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "kind": kind,
        "rows": loaded.rows,
        "customers": loaded.customers,
        "seconds": seconds,
        "processor": worked,
        "speed": loaded.rows / seconds,
        "memory": peak,
        "source": path.stat().st_size / _MIB,
        "snapshot": sum(one.stat().st_size for one in owner.rows.iterdir()) / _MIB,
        "reached": peak < MOST_MEMORY_MIB,
    }


def measure_apart(kind: str, path: Path, n_items: int, home: Path) -> Row:
    """Return what `measure` does in a process of its own."""
    words = [sys.executable, "-m", __name__ if __name__ != "__main__" else _NAME]
    asked = [*words, "--one", kind, "--path", str(path), "--home", str(home)]
    done = subprocess.run(  # noqa: S603  (this very program)
        [*asked, "--items", str(n_items)], check=True, capture_output=True, text=True
    )
    row: Row = json.loads(done.stdout)
    return row


_NAME = "fondaco.simulation.benchmarks.loading"


def main(
    *,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
    rows: Annotated[int, typer.Option(help="Orders.")] = 200_000,
    items: Annotated[int, typer.Option(help="Items of the catalogue.")] = 50_000,
    seed: Annotated[int, typer.Option(help="Of the orders.")] = 0,
    folder: Annotated[
        Path | None, typer.Option(help="On the disk to be measured; a temporary one if none.")
    ] = None,
    one: Annotated[str, typer.Option(hidden=True)] = "",
    path: Annotated[Path, typer.Option(hidden=True)] = Path(),
    home: Annotated[Path, typer.Option(hidden=True)] = Path(),
) -> None:
    """Time how a silo loads its rows."""
    if one:
        print(json.dumps(measure(one, path, items, home)))  # noqa: T201
        return
    measured = []
    with tempfile.TemporaryDirectory(dir=folder) as name:
        for kind, write in WRITERS.items():
            written = Path(name) / f"orders.{kind}"
            write(written, orders(rows, items, seed))
            measured.append(measure_apart(kind, written, items, Path(name) / f"home-{kind}"))
            written.unlink()
    record("loading", measured, out, seed=seed, units=UNITS)


if __name__ == "__main__":
    typer.run(main)
