"""What every kind of source promises, held against real files and real servers."""

import hashlib
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shop_tables import COLUMNS, FILES, SERVERS

from fondaco.client.loading import load
from fondaco.client.sources import SOURCES, open_source
from fondaco.client.sources.config import SourceFile
from fondaco.shared.errors import DataError

DATABASES = [kind for kind in SOURCES if kind not in FILES]
NO_SERVERS = [kind for kind in SOURCES if kind not in SERVERS]
DAY = datetime(2020, 1, 2, 12)
ROWS = [(f"u{num % 7}", "abcde"[num % 5], DAY.replace(day=num % 28 + 1)) for num in range(23)]
each_kind = pytest.mark.parametrize("kind", SOURCES)


def read(config, n_rows=10, columns=COLUMNS):
    with open_source(config) as source:
        tables = list(source.batches(list(columns), n_rows))
        cells = [np.stack([table.cells(name) for name in columns]) for table in tables]
        return [len(table) for table in tables], np.concatenate(cells, axis=1)


@each_kind
def test_source_gives_the_same_rows_twice_in_bounded_batches(shop, kind):
    config = shop.write(kind, ROWS)
    sizes, cells = read(config, 10)
    assert sum(sizes) == len(ROWS)
    assert max(sizes) <= 10
    assert len(sizes) > 2
    again = read(config, 7)[1]
    assert (cells == again).all()
    assert cells[0].tolist() == [row[0] for row in ROWS]
    assert cells[1].tolist() == [row[1] for row in ROWS]


@each_kind
def test_source_reads_only_the_columns_asked_for(shop, kind):
    config = shop.write(kind, ROWS)
    with open_source(config) as source:
        assert source.columns == COLUMNS
        sizes, cells = read(config, columns=("item_id",))
    assert cells.shape == (1, sum(sizes))


@each_kind
@pytest.mark.parametrize("bad", [(None, "a", DAY), ("u", None, DAY), ("u", "a", None)])
def test_bad_row_is_named_by_its_number(  # noqa: PLR0917
    shop, kind, home, timed_plan, catalogue, bad
):
    config = shop.write(kind, [*ROWS, bad, *ROWS])
    column = COLUMNS[bad.index(None)]
    where = r"orders1\.csv line 25" if kind == "csv" else r"orders1(\.parquet)? row 24"
    with pytest.raises(DataError, match=rf"^{where}, column '{column}': '' is "):
        load(home, SourceFile(source=config), timed_plan, catalogue)
    assert not (home.folder / "data").exists()


@pytest.mark.parametrize("kind", DATABASES)
@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO orders1 (user_id) VALUES ('mallory')",
        "DELETE FROM orders1",
        "UPDATE orders1 SET user_id = 'mallory'",
        "CREATE TABLE mine (x INTEGER)",
        "DROP TABLE orders1",
    ],
)
def test_database_refuses_to_write_through_our_connection(shop, kind, statement):
    config = shop.write(kind, ROWS)
    with open_source(config) as source:
        with pytest.raises(DataError, match=r"(?i)read.?only"):
            source.execute(statement)
        with pytest.raises(DataError):
            list(open_source(replace(config, table="", query=statement)).batches(["user_id"], 9))
    assert sum(read(config)[0]) == len(ROWS)


@pytest.mark.parametrize("kind", NO_SERVERS)
def test_file_and_its_folder_are_as_before(shop, kind):
    config = shop.write(kind, ROWS)

    def everything():
        return {path: hashlib.sha256(path.read_bytes()).digest() for path in shop.folder.iterdir()}

    before = everything()
    read(config)
    assert everything() == before


TYPED = [kind for kind in SOURCES if kind != "csv"]
FRACTIONS = [(kind, "float", 1.0) for kind in TYPED]
FRACTIONS += [(kind, "decimal", Decimal("1.00")) for kind in TYPED if kind != "sqlite"]


@pytest.mark.parametrize("column", ["user_id", "item_id"])
@pytest.mark.parametrize(("kind", "of", "value"), FRACTIONS)
def test_ids_with_a_fraction_are_refused_by_name(  # noqa: PLR0917
    shop, kind, column, of, value, home, timed_plan, catalogue
):
    at = COLUMNS.index(column)
    types, row = ["text", "text", "time"], ["u", "a", DAY]
    types[at], row[at] = of, value
    config = shop.write(kind, [tuple(row)], tuple(types))
    with pytest.raises(DataError, match=rf"column '{column}': .* are no ids"):
        load(home, SourceFile(source=config), timed_plan, catalogue)


@pytest.mark.parametrize("kind", TYPED)
def test_integers_are_ids(shop, kind):
    config = shop.write(kind, [(7, "a", DAY)], ("integer", "text", "time"))
    assert read(config)[1][0].tolist() == ["7"]
    with open_source(config) as source:
        assert source.types["user_id"] == "integer"


@each_kind
def test_table_without_rows_says_so(shop, kind, home, timed_plan, catalogue):
    config = shop.write(kind, [])
    with pytest.raises(DataError, match="none of 0 rows can be used"):
        load(home, SourceFile(source=config), timed_plan, catalogue)


@pytest.mark.parametrize("kind", DATABASES)
def test_query_keeps_its_order_and_may_hold_any_sign(shop, kind):
    config = shop.write(kind, ROWS)
    like = "SELECT item_id AS sku, user_id, time FROM orders1 WHERE user_id LIKE 'u%' -- :x %s\n"
    query = f"{like} ORDER BY user_id DESC, time;"
    config = replace(config, table="", query=query)
    cells = read(config, columns=("user_id", "sku"))[1]
    assert cells[0].tolist() == sorted((row[0] for row in ROWS), reverse=True)


@pytest.mark.parametrize("kind", DATABASES)
def test_table_and_columns_of_any_name_are_found(shop, kind):
    odd = ('Käufer "x"', "a`b", "when %s")
    config = shop.write(kind, ROWS, columns=odd)
    assert sum(read(config, columns=odd)[0]) == len(ROWS)
    with pytest.raises(DataError, match="nowhere"):
        open_source(replace(config, table="nowhere"))


@pytest.mark.parametrize("kind", DATABASES)
def test_query_that_names_a_column_twice_is_refused_by_name(shop, kind):
    config = shop.write(kind, ROWS)
    query = "SELECT user_id, item_id, user_id AS item_id FROM orders1"
    with pytest.raises(DataError, match=r"'item_id'( twice; give each a name of its own)?"):
        read(replace(config, table="", query=query), columns=("user_id", "item_id"))


@pytest.mark.parametrize("kind", FILES)
def test_file_that_names_a_column_twice_is_refused_by_name(shop, kind):
    config = shop.write(kind, [("u", "a")], ("text", "text"), ("user_id", "item_id"))
    path = Path(config.path)
    if kind == "csv":
        path.write_text("user_id,item_id,item_id\nu,a,a\n")
    else:
        column = pa.array(["a"])
        names = ["user_id", "item_id", "item_id"]
        pq.write_table(pa.table([column] * 3, names=names), path)
    with pytest.raises(DataError, match=rf"^orders1\.{kind} names column 'item_id' twice"):
        open_source(config)


IDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
MOMENTS = st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1))
ORDERS = st.lists(st.tuples(IDS.filter(str.strip), st.sampled_from("abcdef"), MOMENTS), max_size=30)


def arrays(owner):
    with np.load(owner.rows / "rows.npz", allow_pickle=False) as found:
        return {name: (array.dtype.str, array.tobytes()) for name, array in found.items()}


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=ORDERS)
def test_same_orders_give_the_same_snapshot_from_every_kind(
    shop, home, timed_plan, catalogue, rows
):
    rows = [("Zoë ", "a", DAY), *rows]
    snapshots = {}
    for kind in SOURCES:
        config = shop.write(kind, rows)
        loaded = load(home, SourceFile(source=config), timed_plan, catalogue)
        assert loaded.rows + loaded.unknown_items == len(rows)
        snapshots[kind] = arrays(home)
    assert all(found == snapshots["csv"] for found in snapshots.values())
