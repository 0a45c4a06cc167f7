"""What only one engine does: its own types, its own ways to write, its own odd times."""

import shutil
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from datetime import datetime

import pytest
from shop_tables import COLUMNS

from fondaco.client.sources import duckdb_file, open_source
from fondaco.client.sources.config import SourceConfig
from fondaco.shared.errors import DataError

DAY = datetime(2020, 1, 2, 12)
UUID = "0a1b2c3d-0000-4000-8000-00000000000f"


def times(config, name="time"):
    with open_source(config) as source:
        (table,) = source.batches([name], 100)
        table.forgive()
        return table.times(name).tolist(), dict(table.bad)


def cells(config, name):
    with open_source(config) as source:
        (table,) = source.batches([name], 100)
        return table.ids(name).tolist()


def test_postgresql_times_of_any_zone_and_without_end(shop):
    config = shop.write("postgresql", [])
    values = "('2020-01-02 00:00+02'), ('2020-01-01 22:00Z'), ('infinity'), ('-infinity')"
    with shop.admin("postgresql") as admin:
        admin.exec_driver_sql("ALTER TABLE orders1 ADD sold TIMESTAMPTZ, ADD day DATE")
        admin.exec_driver_sql(f"INSERT INTO orders1 (sold) VALUES {values}")  # noqa: S608
        admin.exec_driver_sql("UPDATE orders1 SET day = '2020-01-02'")
    found, bad = times(config, "sold")
    assert found[0] == found[1] == 18262 + 22 / 24
    assert list(bad) == [2, 3]
    assert times(config, "day")[0] == [18263.0] * 4
    with open_source(config) as source:
        assert [source.types[name] for name in ("sold", "day", "user_id")] == [
            "time",
            "time",
            "text",
        ]


def test_postgresql_uuids_are_ids_as_text(shop):
    config = shop.write("postgresql", [])
    with shop.admin("postgresql") as admin:
        admin.exec_driver_sql("ALTER TABLE orders1 ADD customer UUID")
        admin.exec_driver_sql(f"INSERT INTO orders1 (customer) VALUES ('{UUID.upper()}')")  # noqa: S608
    assert cells(config, "customer") == [UUID]


def test_postgresql_tables_of_other_schemas_and_views_are_found(shop):
    config = shop.write("postgresql", [("u", "a", DAY)])
    with shop.admin("postgresql") as admin:
        admin.exec_driver_sql('CREATE SCHEMA "Sales"')
        admin.exec_driver_sql('CREATE VIEW "Sales"."Orders" AS SELECT * FROM orders1')
    try:
        assert cells(replace(config, table="Sales.Orders"), "user_id") == ["u"]
    finally:
        with shop.admin("postgresql") as admin:
            admin.exec_driver_sql('DROP SCHEMA "Sales" CASCADE')


def test_postgresql_session_cannot_be_made_to_write_again(shop):
    config = shop.write("postgresql", [("u", "a", DAY)])
    query = "SELECT * FROM orders1; SET TRANSACTION READ WRITE; DELETE FROM orders1"
    with pytest.raises(DataError):
        open_source(replace(config, table="", query=query))
    assert cells(config, "user_id") == ["u"]


def test_mysql_zero_date_is_one_bad_row(shop):
    config = shop.write("mysql", [("u", "a", DAY)])
    with shop.admin("mysql") as admin:
        admin.exec_driver_sql("SET sql_mode = ''")
        admin.exec_driver_sql("INSERT INTO orders1 VALUES ('v', 'a', '0000-00-00')")
    found, bad = times(config)
    assert found[0] == 18263.5
    assert list(bad) == [1]


def test_mysql_timestamps_come_in_utc(shop):
    config = shop.write("mysql", [])
    with shop.admin("mysql") as admin:
        admin.exec_driver_sql("ALTER TABLE orders1 ADD sold TIMESTAMP NULL")
        admin.exec_driver_sql("SET time_zone = '+05:00'")
        admin.exec_driver_sql("INSERT INTO orders1 (sold) VALUES ('2020-01-02 05:00:00')")
    assert times(config, "sold")[0] == [18263.0]


def test_mariadb_addresses_may_begin_with_its_name(shop, monkeypatch):
    config = shop.write("mysql", [("u", "a", DAY)])
    monkeypatch.setenv("SHOP_DATABASE", shop.servers["mysql"].url("mariadb"))
    config = SourceConfig(kind="mysql", url_env="SHOP_DATABASE", table=config.table)
    assert cells(config, "user_id") == ["u"]


@pytest.mark.parametrize("kind", ["postgresql", "mysql"])
def test_stream_that_is_left_early_is_not_read_to_its_end(shop, kind):
    config = shop.write(kind, [("u", "a", DAY)] * 8)
    tables = ", ".join(f"orders1 AS t{num}" for num in range(8))
    query = f"SELECT t0.user_id FROM {tables}"  # noqa: S608
    start = time.monotonic()
    with open_source(replace(config, table="", query=query)) as source:
        batches = source.batches(["user_id"], 10)
        assert len(next(batches)) == 10
        batches.close()
    assert time.monotonic() - start < 8  # of 8^8 rows


@pytest.mark.parametrize("kind", ["postgresql", "mysql"])
def test_source_leaves_no_connection_behind(shop, kind):
    config = shop.write(kind, [("u", "a", DAY)])
    with open_source(config) as source:
        list(source.batches(COLUMNS, 10))
        next(source.batches(COLUMNS, 10)).cells("user_id")
    count = {
        "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE datname = 'shop'",
        "mysql": "SELECT count(*) FROM information_schema.processlist WHERE user = 'shop'",
    }
    for _ in range(50):
        with shop.admin(kind) as admin:
            left = admin.exec_driver_sql(count[kind]).scalar()
        if left == 1:
            break
        time.sleep(0.1)
    assert left == 1  # the one that counts


def test_sqlite_float_among_text_ids_is_refused_by_name(shop):
    config = shop.write("sqlite", [("u", "a", DAY)])
    with closing(sqlite3.connect(config.path)) as db, db:
        db.execute("CREATE TABLE loose (user_id, item_id)")
        db.executemany("INSERT INTO loose VALUES (?, ?)", [("u", "a"), (1, "a"), (1.5, "a")])
    with pytest.raises(DataError, match=r"loose, column 'user_id': float numbers are no ids"):
        cells(replace(config, table="loose"), "user_id")


def test_sqlite_bytes_are_no_text(shop):
    config = shop.write("sqlite", [])
    with closing(sqlite3.connect(config.path)) as db, db:
        db.execute("INSERT INTO orders1 VALUES (x'00ff', 'a', NULL)")
    with pytest.raises(DataError, match="'user_id': bytes"):
        cells(config, "user_id")


@pytest.fixture
def wal_mode(shop):
    """Settings of a file in WAL mode with one order, which nobody has open."""
    config = shop.write("sqlite", [("u", "a", DAY)])
    with closing(sqlite3.connect(config.path)) as db:
        db.execute("PRAGMA journal_mode = WAL")
    return config


def insert(db):
    with db:
        db.execute("INSERT INTO orders1 VALUES ('v', 'b', NULL)")


def test_sqlite_file_in_wal_mode_is_as_before_and_its_shop_can_write(shop, wal_mode):
    files = sorted(shop.folder.iterdir())
    with open_source(wal_mode) as source:
        assert [len(table) for table in source.batches(COLUMNS, 10)] == [1]
        assert sorted(shop.folder.iterdir()) == files
    assert sorted(shop.folder.iterdir()) == files
    with closing(sqlite3.connect(wal_mode.path)) as db:
        insert(db)
        assert cells(wal_mode, "user_id") == ["u", "v"]  # from the log of a shop at work
    assert sorted(shop.folder.iterdir()) == files


def test_sqlite_file_that_its_shop_has_just_opened_is_read_with_its_log(shop, wal_mode):
    with closing(sqlite3.connect(wal_mode.path)) as db:
        db.execute("SELECT * FROM orders1").fetchall()  # makes an empty log
        with open_source(wal_mode) as source:
            batches = source.batches(["user_id"], 1)
            assert next(batches).ids("user_id").tolist() == ["u"]
            insert(db)
            assert list(batches) == []


def test_sqlite_log_that_nobody_has_open_is_told_with_the_way_to_close_it(shop, wal_mode):
    with closing(sqlite3.connect(wal_mode.path)) as db:
        insert(db)
        copy = shop.folder / "copy.db"
        for end in ("", "-wal"):
            shutil.copy(f"{wal_mode.path}{end}", f"{copy}{end}")
    with pytest.raises(DataError, match=r"copy\.db-wal holds newer rows .* '\.backup COPY'$"):
        open_source(replace(wal_mode, path=str(copy)))
    assert sorted(path.name for path in shop.folder.glob("copy*")) == ["copy.db", "copy.db-wal"]


def test_sqlite_file_that_changes_under_the_reader_is_told(shop, wal_mode):
    with open_source(wal_mode) as source:
        batches = source.batches(COLUMNS, 10)
        next(batches)
        with closing(sqlite3.connect(wal_mode.path)) as db:
            insert(db)
        with pytest.raises(DataError, match="was changed while it was read; run this again"):
            next(batches)


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
def test_query_reaches_no_other_file(shop, kind, tmp_path):
    config = shop.write(kind, [("u", "a", DAY)])
    other = tmp_path / "stolen"
    for statement in (
        f"ATTACH '{other}' AS other",
        f"COPY orders1 TO '{other}'",
        f"VACUUM INTO '{other}'",
    ):
        with open_source(config) as source, pytest.raises(DataError):
            source.execute(statement)
    assert not other.exists()


def test_duckdb_times_of_any_zone(shop):
    import duckdb  # noqa: PLC0415

    config = shop.write("duckdb", [])
    with duckdb.connect(config.path) as db:
        db.execute("ALTER TABLE orders1 ADD sold TIMESTAMPTZ")
        db.execute("INSERT INTO orders1 (sold) VALUES ('2020-01-02 00:00:00+02'::TIMESTAMPTZ)")
    assert times(config, "sold")[0] == [18262 + 22 / 24]


def test_duckdb_file_that_is_being_written_is_a_clear_error(shop):
    import duckdb  # noqa: PLC0415

    config = shop.write("duckdb", [("u", "a", DAY)])
    with duckdb.connect(config.path), pytest.raises(DataError, match=r"^orders1: .*configuration"):
        open_source(config)


def large_table(shop, column):
    import duckdb  # noqa: PLC0415

    path = shop.folder / "large.duckdb"
    with duckdb.connect(str(path)) as db:
        db.execute(f"CREATE TABLE t AS SELECT {column} FROM range(800000) AS r(i)")  # noqa: S608
    return path


def test_duckdb_query_that_wants_to_spill_ends_with_the_way_out_and_writes_nothing(
    shop, monkeypatch
):
    path = large_table(shop, "md5(i::VARCHAR) AS user_id")
    monkeypatch.setitem(duckdb_file._SETTINGS, "memory_limit", "30MB")
    query = "SELECT user_id FROM t ORDER BY user_id"
    config = SourceConfig(kind="duckdb", path=str(path), query=query)
    with open_source(config) as source:
        batches = source.batches(["user_id"], 1000)
        with pytest.raises(DataError, match=r"^query: .* memory; leave out its ORDER BY .*table$"):
            list(batches)
        assert list(shop.folder.iterdir()) == [path]


def test_duckdb_query_that_fails_on_a_later_row_is_one_line(shop):
    path = large_table(shop, "CASE i WHEN 799999 THEN 'gift' ELSE '7' END AS item_id")
    query = "SELECT item_id::INTEGER AS item_id FROM t"
    with open_source(SourceConfig(kind="duckdb", path=str(path), query=query)) as source:
        batches = source.batches(["item_id"], 10)
        assert len(next(batches)) == 10
        with pytest.raises(DataError, match=r"^query: Conversion Error: .*'gift'.*$") as caught:
            list(batches)
    assert "\n" not in str(caught.value)
