"""fondaco-client doctor on the owner's own papers: every check, well and not well."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from kits import files_of

from fondaco.client import doctor
from fondaco.client.dataset import Fold, Rows, SiloDataset
from fondaco.client.dataset_files import save_silo
from fondaco.client.joining import EXAMPLE
from fondaco.client.owner import Owner
from fondaco.shared.chain.keys import Identity
from fondaco.shared.plan_text import to_toml


@pytest.fixture
def checks(script):
    """Return a function -> the checks of the owner's papers, by name."""
    return lambda: {check.name: check for check in doctor.examine(script.home, doctor.LOOKS)}


@pytest.fixture
def ready(script, joined, desk):
    """An owner who has done everything before approving."""
    (desk / "sales.csv").write_text("user_id,item_id\nann-4711,a\nbob-4712,b\n")
    source = f'[source]\nkind = "csv"\npath = "{desk}/sales.csv"\n'
    (script.home / "source.toml").write_text(source)
    script.own("load")
    return joined


def rows_of(silo_id, n_items):
    rows = Rows(user_nums=np.array([0, 1, 1]), item_nums=np.array([0, 1, 2]), times=np.zeros(3))
    empty = rows.take(np.zeros(3, dtype=bool))
    fold = Fold(user_nums=np.empty(0, dtype=np.int64), history=empty, targets=empty)
    users = np.array(["ann-4711", "bob-4712"])
    return SiloDataset(
        silo_id=silo_id, user_ids=users, n_items=n_items, train=rows, valid=fold, test=fold
    )


def put_plan(script, plan):
    (script.home / "kit" / "plan.toml").write_text(to_toml(plan))


def test_owner_who_did_everything_is_well(script, ready, checks):
    script.own("approve", script.home / "kit" / "plan.toml", "--yes")
    found = checks()
    assert {check.state for check in found.values()} == {"ok"}, found
    assert set(found) == {"plan", "code", "peers", "limits", "budget", "source", "data"}
    assert "signed" in found["plan"].seen
    assert "1.00 of epsilon 1.0 left" in found["budget"].seen


def test_looking_changes_nothing_and_names_no_customer(script, ready):
    before = files_of(script.home, script.home.with_name("shop-courier"))
    out = script.own("doctor", code=1)
    out += script.own("doctor", "--json", code=1)
    assert files_of(script.home, script.home.with_name("shop-courier")) == before
    assert "4711" not in out


def test_ledger_is_not_begun_by_looking(script, init, coordinator, checks):
    init(coordinator.kit())
    checks()
    assert not Owner.open(script.home).home.ledger.exists()


def test_owner_before_the_plan_is_told_what_comes(script, init, coordinator, checks):
    init(coordinator.kit())
    found = checks()
    assert "no plan has come" in found["plan"].seen
    assert "init --kit" in found["plan"].fix
    for name in ("plan", "limits", "data"):
        assert found[name].state == "warn"


def test_plan_that_waits_is_shown_with_the_command_that_signs_it(script, ready, checks):
    check = checks()["plan"]
    assert check.state == "warn"
    assert check.fix == (f"fondaco-client approve {script.home}/kit/plan.toml --home {script.home}")


def test_newer_plan_is_told_beside_the_signed_one(script, ready, checks):
    script.own("approve", script.home / "kit" / "plan.toml", "--yes")
    put_plan(script, replace(ready, expires="2998-12-31"))
    check = checks()["plan"]
    assert check.state == "warn"
    assert "an older one is" in check.seen


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"expires": "2020-01-31"}, "ended on 2020-01-31"),
        ({"mode": "simulation"}, "promises nothing"),
        ({"code_digest": "sha256:" + "0" * 64}, "the plan is for sha256:000000000000"),
    ],
)
def test_plan_that_cannot_run_here_fails(script, ready, checks, change, seen):
    put_plan(script, replace(ready, **change))
    check = checks()["code" if "code_digest" in change else "plan"]
    assert (check.state, bool(check.fix)) == ("fail", True)
    assert seen in check.seen


def test_plan_with_another_key_of_this_owner_fails(script, ready, checks):
    stranger = Identity.generate("fondaco/north").public.text()
    put_plan(script, replace(ready, roster={**ready.roster, "north": stranger}))
    check = checks()["plan"]
    assert check.state == "fail"
    assert "keys --registration" in check.fix


def test_keys_that_nobody_pinned_fail(script, ready, checks):
    (script.home / "peers.txt").unlink()
    check = checks()["peers"]
    assert check.state == "fail"
    assert "10 keys are not pinned" in check.seen


def test_missing_limits_fail_once_there_is_a_plan(script, init, coordinator, checks):
    init(coordinator.kit())
    init(coordinator.kit(coordinator.plan(script.home)), "--yes")
    check = checks()["limits"]
    assert check.state == "fail"
    assert "fondaco-client policy" in check.fix


def test_plan_beyond_the_limits_fails(script, ready, checks):
    script.own("policy", "--epsilon-if-masking-broke", 0.5)
    assert "masking broken" in checks()["budget"].seen
    script.own("policy", "--epsilon-if-masking-broke", 5, "--epsilon-per-year", 0.6)
    check = checks()["budget"]
    assert check.state == "fail"
    assert "raise your limits" in check.fix


def test_budget_that_was_used_up_by_attempts_fails(script, init, coordinator, checks, monkeypatch):
    init(coordinator.kit())
    plan = coordinator.plan(script.home)
    init(coordinator.kit(plan), "--yes")
    spent = [
        {
            "type": "DEBIT",
            "plan_digest": plan.digest,
            "kind": plan.releases[0].kind,
            "round_num": 1,
            "cost": plan.cost(plan.releases[0]),
        }
    ] * 3
    monkeypatch.setattr(doctor, "_records_of", lambda owner: spent)
    check = checks()["budget"]
    assert check.state == "fail"
    assert "which cost more" in check.seen
    monkeypatch.setattr(doctor, "_records_of", lambda owner: spent[:1])
    assert checks()["budget"].state == "ok"
    assert "1 releases to come" in checks()["budget"].seen


def test_description_of_the_table_that_cannot_be_read_fails(script, ready, checks):
    path = script.home / "source.toml"
    path.write_text("[source]\nkind = 3\n")
    assert checks()["source"].state == "fail"
    path.write_text("x")
    assert checks()["source"].state == "fail"
    path.write_bytes(EXAMPLE.read_bytes())
    assert "still the template" in checks()["source"].seen
    path.unlink()
    assert "does not exist" in checks()["source"].seen


def test_rows_that_are_missing_damaged_or_others_fail(script, ready, checks):
    data = script.home / "data"
    save_silo(rows_of("south", 5), data)
    assert "rows are of 'south'" in checks()["data"].seen
    save_silo(rows_of("north", 6), data)
    assert "count 6 items" in checks()["data"].seen
    (data / "rows.npz").write_bytes(b"x")
    assert "damaged" in checks()["data"].seen
    (data / "dataset.json").unlink()
    assert "no rows yet" in checks()["data"].seen
    assert {checks()["data"].state} == {"fail"}
    assert "fondaco-client load" in checks()["data"].fix


def test_rows_that_were_read_for_another_plan_fail(script, ready, checks):
    put_plan(script, replace(ready, public={**ready.public, "repeats": "yes"}))
    check = checks()["data"]
    assert check.state == "fail"
    assert "read for another plan" in check.seen
    assert "fondaco-client load" in check.fix


def test_newer_plan_that_divides_rows_otherwise_leads_from_approve_to_load(script, ready, checks):
    script.own("approve", script.home / "kit" / "plan.toml", "--yes")
    put_plan(script, replace(ready, public={**ready.public, "repeats": "yes"}))
    for _ in range(2):
        check = checks()["data"]
        assert check.state == "warn"
        assert check.fix.startswith(f"fondaco-client approve {script.home}/kit/plan.toml")
        script.own("load")
    script.own("approve", script.home / "kit" / "plan.toml", "--yes")
    assert "read for another plan" in checks()["data"].seen
    script.own("load")
    assert checks()["data"].state == "ok"


def test_source_whose_columns_changed_fails(script, ready, checks, desk):
    (desk / "sales.csv").write_text("customer,item_id\nann-4711,a\n")
    assert checks()["source"].state == "fail"
    (desk / "sales.csv").unlink()
    assert checks()["source"].state == "fail"


def test_assortment_is_looked_at_too(script, ready, checks, desk):
    source = (script.home / "source.toml").read_text()
    (script.home / "source.toml").write_text(f'{source}[assortment]\npath = "{desk}/sold.csv"\n')
    assert "sold.csv does not exist" in checks()["source"].seen
    (desk / "sold.csv").write_text("sku\na\n")
    assert "assortment sold.csv has no column 'item_id'" in checks()["source"].seen
    (desk / "sold.csv").write_text("item_id\na\n")
    assert checks()["source"].state == "ok"


def test_damaged_ledger_fails_every_check_that_needs_it(script, ready, checks):
    Owner.open(script.home).home.ledger.write_bytes(b"x" * 8192)
    found = checks()
    assert {found[name].state for name in ("plan", "limits", "budget", "data")} == {"fail"}
    assert {found[name].state for name in ("source", "peers")} == {"ok"}


def test_ledger_that_is_gone_is_no_new_one(script, ready, checks):
    Owner.open(script.home).home.ledger.unlink()
    found = checks()
    for name in ("plan", "limits", "budget"):
        assert found[name].state == "fail"
        assert found[name].seen.endswith("north.db is gone but it was in use")
        assert found[name].fix.endswith("fondaco-client ledger --import")


@pytest.mark.parametrize("trouble", ["missing", "no owner's", "key readable by others"])
def test_folder_that_is_no_owners_is_one_failure(script, init, coordinator, trouble):
    if trouble == "no owner's":
        script.home.mkdir()
    elif trouble != "missing":
        init(coordinator.kit())
        (script.home / "identity.pem").chmod(0o644)
    facts = json.loads(script.own("doctor", "--json", code=1))
    assert [check["name"] for check in facts["checks"]] == ["folder"]
    assert facts["ok"] is False
    assert script.err == ""


def test_plan_is_good_to_the_end_of_its_last_day(script, ready, checks):
    today = datetime.now(UTC).date()
    put_plan(script, replace(ready, expires=today.isoformat()))
    assert checks()["plan"].state == "warn"
    put_plan(script, replace(ready, expires=(today - timedelta(days=1)).isoformat()))
    assert checks()["plan"].state == "fail"
