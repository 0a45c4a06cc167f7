"""`fondaco-client load`, as an owner runs it."""

import json
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from fondaco.client.dataset_files import load_silo
from fondaco.client.limits import new_policy
from fondaco.shared.audit_log import verify
from fondaco.shared.plan_text import to_toml

ORDERS = "customer,item_id,time\nu1,a,2020-01-05\nu1,b,2020-03-02\nu2,zz,2020-01-01\n"
SETTINGS = '[source]\nkind = "csv"\npath = "orders.csv"\n[columns]\nuser_id = "customer"\n'


@pytest.fixture
def run(monkeypatch, capsys, home):
    """Return a function: words -> exit code and what was printed."""
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("TERM", "dumb")
    (home.folder / "orders.csv").write_text(ORDERS)
    (home.folder / "source.toml").write_text(SETTINGS)
    from fondaco.client import cli  # noqa: PLC0415

    def command(*words):
        line = ["fondaco-client", "load", "--home", str(home.folder), *map(str, words)]
        monkeypatch.setattr(sys, "argv", line)
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return command


def test_load_says_what_came_of_it_and_that_it_stays(run, home):
    code, out, _ = run()
    assert code == 0
    assert out.startswith("2 rows of 1 customers and 2 items (these counts stay on this machine)")
    assert "1 rows that releases may read" in out
    assert "1 rows of items that the catalogue does not list" in out
    assert load_silo(home.rows).user_ids.tolist() == ["u1"]


def test_load_prints_json(run):
    code, out, _ = run("--json")
    facts = json.loads(out)
    assert code == 0
    assert (facts["silo_id"], facts["rows"], facts["unknown_items"]) == ("north", 2, 1)
    assert facts["local_only"] is True


def test_load_takes_other_settings(run, home, tmp_path):
    (tmp_path / "elsewhere.csv").write_text("user_id,item_id,time\nu9,e,2020-01-05\n")
    other = tmp_path / "other.toml"
    other.write_text('[source]\nkind = "csv"\npath = "elsewhere.csv"\n')
    assert run("--source", other)[0] == 0
    assert load_silo(home.rows).user_ids.tolist() == ["u9"]


def test_bad_row_and_changed_columns_end_with_one_line(run, home):
    assert run()[0] == 0
    (home.folder / "orders.csv").write_text(ORDERS + "u1,a,never\n")
    code, _, err = run()
    assert code == 2
    assert (
        err == "error: orders.csv line 5, column 'time': 'never' is not an ISO 8601 date or time\n"
    )
    (home.folder / "orders.csv").write_text("customer,item_id\nu1,a\n")
    code, _, err = run()
    assert code == 2
    assert err.count("\n") == 1
    assert "--accept-schema" in err


def test_load_without_a_plan_says_how_to_get_one(run, home):
    (home.folder / "kit" / "plan.toml").unlink()
    code, _, err = run()
    assert code == 2
    assert "init --kit" in err


def test_offered_plan_is_taken_from_the_kit(run, home, all_rows_plan):
    (home.folder / "kit" / "plan.toml").write_text(to_toml(all_rows_plan))
    assert "2 rows that releases may read" in run()[1]


@pytest.mark.parametrize(("days_left", "trained"), [(0, 1), (-1, 2)])
def test_rows_are_read_by_the_plan_in_force_and_by_the_next_once_it_is_over(  # noqa: PLR0917
    run, home, timed_plan, all_rows_plan, days_left, trained
):
    last_day = datetime.now(UTC).date() + timedelta(days=days_left)
    with home.ledger() as ledger:
        ledger.adopt(new_policy(None, 9.0, 9.0, 1e-6))
        ledger.approve(replace(timed_plan, expires=last_day.isoformat()))
    (home.folder / "kit" / "plan.toml").write_text(to_toml(all_rows_plan))
    assert f"{trained} rows that releases may read" in run()[1]


def test_audit_log_says_that_rows_were_read_and_none_of_them(run, home):
    run()
    (home.folder / "orders.csv").write_text("customer,item_id,time\nsecret-4711,a,never\n")
    run()
    path = home.folder / "audit.jsonl"
    trail = verify(path)
    said = [(entry.action, entry.fields["outcome"]) for entry in trail.entries]
    assert said == [("load", "done"), ("load", "refused")]
    assert "4711" not in path.read_text()
