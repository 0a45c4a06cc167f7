"""From a source to the snapshot: what is taken, what is put aside, and how it is divided."""

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from fondaco.client.dataset_files import load_silo
from fondaco.client.erasure import Erasures
from fondaco.client.forgetting import forget
from fondaco.client.loading import check_read_for, describe_source, load
from fondaco.client.sources.config import ChecksConfig, SourceConfig, SourceFile
from fondaco.shared.errors import ConfigError, DataError

HEADER = "user_id,item_id,time\n"
ROWS = """\
u1,a,2020-01-05
u1,b,2020-03-02
u1,a,2020-03-03
u1,c,2020-05-01
u2,d,2020-02-29T23:59:59Z
u2,e,2020-03-01T00:00:00Z
u10,a,2020-04-01
"""
QUARANTINE = ChecksConfig(on_bad_row="quarantine", most_bad=0.4)


@pytest.fixture
def orders(tmp_path):
    """Return a function: text of a CSV table (and settings) -> the settings to load it."""

    def write(text, checks=None, columns=None, **source):
        path = tmp_path / "orders.csv"
        path.write_text(text)
        parts = {"checks": checks, "columns": columns}
        given = {name: value for name, value in parts.items() if value}
        return SourceFile(source=SourceConfig(kind="csv", path=str(path), **source), **given)

    return write


def loaded(owner):
    return load_silo(owner.rows)


def pairs(dataset, rows):
    users = dataset.user_ids[rows.user_nums].tolist()
    return list(zip(users, ["abcde"[num] for num in rows.item_nums], strict=True))


def test_rows_are_divided_as_the_plan_says(home, orders, timed_plan, catalogue):
    counts = load(home, orders(HEADER + ROWS), timed_plan, catalogue)
    silo = loaded(home)
    assert silo.silo_id == "north"
    assert silo.user_ids.tolist() == ["u1", "u2", "u10"]
    assert pairs(silo, silo.train) == [("u1", "a"), ("u2", "d")]
    assert pairs(silo, silo.valid.targets) == [("u1", "b"), ("u2", "e")]
    assert len(silo.test.user_nums) == len(silo.test.history) == len(silo.test.targets) == 0
    assert len(silo.known) == 7
    assert (counts.rows, counts.trained, counts.customers, counts.items) == (7, 2, 3, 5)


def test_rows_after_the_days_of_the_plan_are_known_and_in_no_release(
    home, orders, timed_plan, catalogue
):
    load(home, orders(HEADER + ROWS), timed_plan, catalogue)
    before = loaded(home)
    load(home, orders(HEADER + ROWS + "u1,e,2031-01-01\nu9,e,2031-01-01\n"), timed_plan, catalogue)
    after = loaded(home)
    assert pairs(after, after.train) == pairs(before, before.train)
    assert pairs(after, after.valid.targets) == pairs(before, before.valid.targets)
    assert len(after.known) == len(before.known) + 2


def test_plan_that_holds_nothing_back_trains_on_all(home, orders, all_rows_plan, catalogue):
    load(home, orders(HEADER + ROWS), all_rows_plan, catalogue)
    silo = loaded(home)
    assert len(silo.train) == 7
    assert len(silo.valid.user_nums) == len(silo.interim) == 0


def test_repeats_are_targets_where_the_plan_keeps_them(home, orders, timed_plan, catalogue):
    plan = replace(timed_plan, public={**timed_plan.public, "repeats": "yes"})
    load(home, orders(HEADER + ROWS), plan, catalogue)
    silo = loaded(home)
    assert pairs(silo, silo.valid.targets) == [("u1", "b"), ("u1", "a"), ("u2", "e")]


def test_simulated_protocol_is_refused(home, orders, timed_plan, catalogue):
    plan = replace(timed_plan, public={"protocol": "last-k"})
    with pytest.raises(ConfigError, match="only a simulation"):
        load(home, orders(HEADER + ROWS), plan, catalogue)


def test_unknown_items_are_dropped_and_counted_or_refused(home, orders, timed_plan, catalogue):
    text = HEADER + ROWS + "u3,gift card,2020-01-01\n"
    counts = load(home, orders(text), timed_plan, catalogue)
    assert (counts.rows, counts.unknown_items) == (7, 1)
    assert loaded(home).user_ids.tolist() == ["u1", "u2", "u10"]
    strict = ChecksConfig(on_unknown_item="refuse")
    with pytest.raises(DataError, match=r"line 9, column 'item_id': 'gift card' is not in"):
        load(home, orders(text, strict), timed_plan, catalogue)


def test_bad_rows_are_put_aside_for_the_owner_alone(home, orders, timed_plan, catalogue):
    bad = "u7,a,yesterday\n,b,2020-01-01\nu8,a\n" + "x" * 200 + ",a,2020-01-01\n"
    counts = load(home, orders(HEADER + bad + ROWS, QUARANTINE), timed_plan, catalogue)
    assert (counts.rows, counts.quarantined) == (7, 4)
    path = home.folder / "quarantine" / f"{datetime.now(UTC).date()}.csv"
    assert counts.quarantine == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    lines = path.read_text().splitlines()
    assert lines[0] == "where,problem,user_id,item_id,time"
    assert lines[1] == "orders.csv line 2,'time' is not an ISO 8601 date or time,u7,a,yesterday"
    assert lines[3] == "orders.csv line 4,has 2 cells; the header has 3,u8,a,"
    assert len(lines) == 5


def test_file_of_bad_rows_goes_when_there_are_none(home, orders, timed_plan, catalogue):
    load(home, orders(HEADER + ROWS + "u7,a,?\n", QUARANTINE), timed_plan, catalogue)
    load(home, orders(HEADER + ROWS, QUARANTINE), timed_plan, catalogue)
    assert list((home.folder / "quarantine").iterdir()) == []


def test_too_many_bad_rows_refuse_everything(home, orders, timed_plan, catalogue):
    load(home, orders(HEADER + ROWS), timed_plan, catalogue)
    before = loaded(home)
    few = replace(QUARANTINE, most_bad=0.1)
    text = HEADER + "u7,a,?\n" + ROWS
    with pytest.raises(DataError, match=r"1 of 8 rows are bad.*line 2, 'time' is not an ISO.*csv"):
        load(home, orders(text, few), timed_plan, catalogue)
    assert np.array_equal(loaded(home).known.times, before.known.times)


def test_source_without_usable_rows_leaves_the_snapshot(home, orders, timed_plan, catalogue):
    load(home, orders(HEADER + ROWS), timed_plan, catalogue)
    with pytest.raises(DataError, match="none of 1 rows can be used: 0 are bad, 1 of unknown"):
        load(home, orders(HEADER + "u,zz,2020-01-01\n"), timed_plan, catalogue)
    assert len(loaded(home).known) == 7


def test_rows_of_another_time_silo_or_rating_are_left_out(home, orders, timed_plan, catalogue):
    text = """user_id,item_id,time,silo_id,rating
u1,a,2020-01-31,north,5
u1,b,2020-02-01,north,5
u1,c,2020-02-02,south,5
u1,d,2020-02-03,north,1
u1,e,2020-03-01,north,5
"""
    checks = ChecksConfig(min_rating=3.0)
    period = {"since": "2020-02-01", "until": "2020-03-01"}
    counts = load(home, orders(text, checks, **period), timed_plan, catalogue)
    assert (counts.rows, counts.outside) == (1, 4)
    assert pairs(loaded(home), loaded(home).train) == [("u1", "b")]


def test_unix_times_are_a_clock_and_plain_numbers_are_none(home, orders, timed_plan, catalogue):
    text = HEADER + "u1,a,1582934399\nu1,b,1583020800\n"
    load(home, orders(text, unix_time="s"), timed_plan, catalogue)
    assert pairs(loaded(home), loaded(home).train) == [("u1", "a")]
    with pytest.raises(DataError, match=r"'time' holds plain numbers; set columns.time, or source"):
        load(home, orders(text), timed_plan, catalogue)


def test_order_of_rows_stands_in_for_times_if_the_plan_needs_none(
    home, orders, timed_plan, all_rows_plan, catalogue
):
    text = "user_id,item_id\nu1,b\nu1,a\n"
    load(home, orders(text), all_rows_plan, catalogue)
    assert pairs(loaded(home), loaded(home).train) == [("u1", "b"), ("u1", "a")]
    with pytest.raises(DataError, match="there is no such column"):
        load(home, orders(text), timed_plan, catalogue)


def test_erased_customers_stay_out_of_snapshot_and_quarantine(home, orders, timed_plan, catalogue):
    text = HEADER + ROWS + "u1,a,?\nu2,a,?\n"
    Erasures(home.home.erased, home.home.secret(home.identity)).add("u1")
    counts = load(home, orders(text, QUARANTINE), timed_plan, catalogue)
    assert counts.erased == 4
    assert loaded(home).user_ids.tolist() == ["u2", "u10"]
    (path,) = (home.folder / "quarantine").iterdir()
    assert [line.split(",")[2] for line in path.read_text().splitlines()[1:]] == ["u2"]


def test_erasing_removes_rows_that_were_put_aside(home, orders, timed_plan, catalogue):
    text = HEADER + ROWS + "u1,a,?\nu2,a,?\n"
    load(home, orders(text, QUARANTINE), timed_plan, catalogue)
    (path,) = (home.folder / "quarantine").iterdir()
    forget(home, "u1")
    assert "u1" not in path.read_text()
    forget(home, "u2")
    assert not path.exists()


@pytest.mark.parametrize("other", ["u1,a,2020-01-05\n", ""])
def test_customer_of_whom_only_bad_rows_are_here_can_be_erased(
    home, orders, timed_plan, catalogue, other
):
    settings = orders(HEADER + other + "u9,a,?\n", replace(QUARANTINE, most_bad=0.5))
    if other:
        load(home, settings, timed_plan, catalogue)
    else:
        with pytest.raises(DataError, match="1 of 1 rows are bad"):
            load(home, settings, timed_plan, catalogue)
        assert not home.rows.exists()
    with pytest.raises(DataError, match="silo 'north' has no customer 'u8'"):
        forget(home, "u8")
    assert forget(home, "u9") == 1
    assert list((home.folder / "quarantine").iterdir()) == []
    assert Erasures(home.home.erased, home.home.secret(home.identity)).holds("u9")


def test_changed_source_is_a_clear_error_until_it_is_accepted(home, shop, timed_plan, catalogue):
    day = datetime(2020, 1, 2)
    config = shop.write("parquet", [("7", "a", day)])
    settings = SourceFile(source=config)
    load(home, settings, timed_plan, catalogue)
    shop.again(config, [(7, "a", day)], ("integer", "text", "time"))
    with pytest.raises(
        DataError, match=r"orders1.parquet is not what it was on 20.*'user_id' holds "
    ):
        load(home, settings, timed_plan, catalogue)
    with pytest.raises(DataError, match="holds integer, was text"):
        describe_source(home.folder, settings)
    load(home, settings, timed_plan, catalogue, accept_schema=True)
    assert describe_source(home.folder, settings)["user_id"] == ("user_id", "integer")
    assert not any(
        "7" in value
        for value in json.loads((home.folder / "source-schema.json").read_text())["columns"]
    )


def test_optional_column_that_is_gone_is_noticed(home, orders, all_rows_plan, catalogue):
    settings = orders(HEADER + ROWS)
    load(home, settings, all_rows_plan, catalogue)
    settings = orders("user_id,item_id\nu1,a\n")
    with pytest.raises(DataError, match=r"column 'time' is gone.*--accept-schema"):
        load(home, settings, all_rows_plan, catalogue)


def test_another_source_is_the_owners_own_wish(home, orders, all_rows_plan, catalogue, tmp_path):
    load(home, orders(HEADER + ROWS), all_rows_plan, catalogue)
    settings = orders("user_id,item_id\nu1,a\n")
    moved = (tmp_path / "orders.csv").rename(tmp_path / "sales.csv")
    other = replace(settings, source=replace(settings.source, path=str(moved)))
    assert load(home, other, all_rows_plan, catalogue).rows == 1


def test_rows_read_for_another_plan_are_noticed(home, orders, timed_plan, all_rows_plan, catalogue):
    load(home, orders(HEADER + ROWS), timed_plan, catalogue)
    check_read_for(home.rows, timed_plan)
    later = {**timed_plan.public, "valid_from": "2020-03-02"}
    for plan in (all_rows_plan, replace(timed_plan, public=later)):
        with pytest.raises(ConfigError, match="read them again with fondaco-client load"):
            check_read_for(home.rows, plan)


@pytest.mark.parametrize("torn", ["", "{", "[]", '{"catalogue_digest": "x"}'])
def test_torn_note_of_a_plan_is_told_with_the_way_to_mend_it(
    home, orders, timed_plan, catalogue, torn
):
    load(home, orders(HEADER + ROWS), timed_plan, catalogue)
    (home.rows / "read-for.json").write_text(torn)
    with pytest.raises(DataError, match=r"read-for.json is damaged; read .* fondaco-client load$"):
        check_read_for(home.rows, timed_plan)
    load(home, orders(HEADER + ROWS), timed_plan, catalogue)
    check_read_for(home.rows, timed_plan)


def test_snapshot_is_for_the_owner_alone(home, orders, timed_plan, catalogue):
    load(home, orders(HEADER + ROWS), timed_plan, catalogue)
    assert stat.S_IMODE(home.rows.stat().st_mode) == 0o700


def test_snapshot_is_replaced_while_nobody_else_holds_the_home(home, orders, timed_plan, catalogue):
    settings = orders(HEADER + ROWS)
    with ThreadPoolExecutor(1) as pool:
        with home.home.alone():
            loading = pool.submit(load, home, settings, timed_plan, catalogue)
            with pytest.raises(TimeoutError):
                loading.result(timeout=0.5)
            assert not home.rows.exists()
        assert loading.result(timeout=30).rows == 7


def test_progress_is_told(home, orders, timed_plan, catalogue):
    told = []
    load(home, orders(HEADER + ROWS), timed_plan, catalogue, tell=lambda *what: told.append(what))
    assert told == [("rows read", 7, 7)]


def test_snapshot_is_the_same_whatever_the_size_of_batches(
    home, orders, timed_plan, catalogue, monkeypatch
):
    snapshots = []
    for size in (1, 3, 100):
        monkeypatch.setattr("fondaco.client.loading.BATCH_ROWS", size)
        load(home, orders(HEADER + ROWS), timed_plan, catalogue)
        silo = loaded(home)
        known = silo.known
        parts = (silo.user_ids, known.user_nums, known.item_nums, known.times)
        snapshots.append([part.tolist() for part in parts])
    assert snapshots[0] == snapshots[1] == snapshots[2]
