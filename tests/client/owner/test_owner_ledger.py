"""An owner's ledger shown, exported and taken back; leaving and erasing stand in it."""

import json
import stat
from datetime import datetime, timedelta

import numpy as np
import pytest
from owner_records import lines_of, types_of

from fondaco.client.dataset import Fold, Rows, SiloDataset
from fondaco.client.dataset_files import load_silo, save_silo
from fondaco.client.ledger_view import TYPES
from fondaco.client.owner import Owner
from fondaco.shared.audit import rules
from fondaco.shared.chain import store

NONE = np.empty(0, dtype=np.int64)


def test_ledger_is_shown_for_people_and_machines(script, owner, ready):
    assert "no plan was approved yet" in script.own("ledger")
    script.own("approve", ready[1], "--yes")
    out = script.own("ledger")
    for word in ("GENESIS", "POLICY", "PLAN", "in force", "1.00 of epsilon 1.0 left"):
        assert word in out
    facts = json.loads(script.own("ledger", "--json"))
    assert facts["counts"] == {"GENESIS": 1, "POLICY": 1, "PLAN": 1}
    assert facts["plan"]["left"] == "1.00"
    assert facts["head"]["size"] == 3
    only = json.loads(script.own("ledger", "--json", "--type", "policy"))["records"]
    assert [record["type"] for record in only] == ["POLICY"]


def test_ledger_is_exported_and_lost_records_are_taken_back(script, owner, ready, tmp_path):
    export, ledger = tmp_path / "north.jsonl", owner.home.ledger
    types_of(owner)
    backup = ledger.read_bytes()
    script.own("approve", ready[1], "--yes")
    script.own("ledger", "--export", export)
    assert export.read_text().split("\n")[:-1] == lines_of(owner)
    assert stat.S_IMODE(export.stat().st_mode) == 0o600
    ledger.write_bytes(backup)
    assert owner.approved() is None
    assert "1 records were taken back" in script.own("ledger", "--import", export)
    assert "0 records were taken back" in script.own("ledger", "--import", export)
    assert export.read_text().split("\n")[:-1] == lines_of(owner)
    assert owner.approved() == ready[0]


def test_import_for_machines_prints_json_alone(script, owner, ready, tmp_path):
    script.own("ledger", "--export", tmp_path / "x.jsonl")
    json.loads(script.own("ledger", "--import", tmp_path / "x.jsonl", "--json"))


class _Later(datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) + timedelta(minutes=1)


@pytest.mark.parametrize("looked_first", [False, True])
def test_ledger_that_was_lost_whole_comes_back_from_an_export(
    script, owner, ready, monkeypatch, looked_first
):
    export = script.home.parent / "north.jsonl"
    script.own("approve", ready[1], "--yes")
    script.own("ledger", "--export", export)
    lines = lines_of(owner)
    for path in owner.home.ledger.parent.iterdir():
        path.unlink()
    monkeypatch.setattr(store, "datetime", _Later)
    if looked_first:
        script.refused("ledger")
    script.own("ledger", "--import", export)
    assert lines_of(owner) == lines


def test_others_records_are_refused(script, owner, tmp_path):
    other = Owner.make(tmp_path / "other", "south")
    (tmp_path / "south.jsonl").write_text("".join(f"{line}\n" for line in lines_of(other)))
    before = lines_of(owner)
    script.refused("ledger", "--import", tmp_path / "south.jsonl")
    (tmp_path / "garbage.jsonl").write_text("garbage\n")
    script.refused("ledger", "--import", tmp_path / "garbage.jsonl")
    script.refused("ledger", "--import", tmp_path / "missing.jsonl")
    assert lines_of(owner) == before


def test_file_of_no_text_is_refused(script, owner, tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b"\xff\xfe\x00")
    script.refused("ledger", "--import", tmp_path / "x.jsonl")


@pytest.mark.parametrize("reason", ["closing", "line\u2028separator\u0085", "[red]x[/red]", "ü\n"])
def test_whatever_reason_is_given_is_exported_and_read_again(script, owner, ready, reason, request):
    script.own("approve", ready[1], "--yes")
    script.own("leave", "--reason", reason)
    script.own("ledger", "--export", script.home.parent / "x.jsonl")
    script.own("ledger", "--import", script.home.parent / "x.jsonl")
    records = json.loads(script.own("ledger", "--json"))["records"]
    assert records[-1]["reason"] == reason
    script.own("ledger")


def test_ledger_is_exported_to_a_file_alone(script, owner, tmp_path):
    for folder in (tmp_path, "."):
        assert "name a file" in script.refused("ledger", "--export", folder)
    assert not tmp_path.with_suffix(".part").exists()


def test_type_that_no_record_has_is_refused(script, owner):
    assert "no record has the type 'DEBITS'" in script.refused("ledger", "--type", "DEBITS")
    assert script.own("ledger", "--type", "debit")


def test_types_are_those_that_an_audit_knows():
    assert set(TYPES) == set(rules._FIELDS)


def test_audit_is_noted_and_what_is_none_is_refused(script, owner, tmp_path):
    report = tmp_path / "report.json"
    report.write_text('{"verdict": "holds"}')
    script.own("ledger", "--audited", report)
    for text in ("", "[]", "{}", "x"):
        report.write_text(text)
        assert "no report.json" in script.refused("ledger", "--audited", report)
    with owner.ledger() as ledger:
        assert [r["verdict"] for r in ledger.chain.of_type("AUDIT")] == ["holds"]


def test_damaged_ledger_is_refused_with_one_line(script, owner):
    types_of(owner)
    owner.home.ledger.write_bytes(b"x" * 8192)
    script.refused("ledger")


# ---- leaving and erasing ----


def test_leaving_is_recorded_once_and_can_be_taken_back_by_a_signature(script, owner, ready):
    assert "no plan in force" in script.refused("leave")
    script.own("approve", ready[1], "--yes")
    for _ in range(2):  # the second time does what a killed first one left undone
        assert "has left" in script.own("leave", "--reason", "enough")
    assert types_of(owner).count("PLAN") == 2
    assert owner.approved() is None
    assert "withdrawn" in script.own("ledger")
    assert json.loads(script.own("ledger", "--json"))["plan"]["in_force"] is False
    script.own("approve", ready[1], "--yes")
    assert owner.approved() == ready[0]
    assert types_of(owner) == ["GENESIS", "POLICY", "PLAN", "PLAN", "PLAN"]


def test_secrets_of_a_sum_under_way_go_with_the_owner(script, owner, ready):
    script.own("approve", ready[1], "--yes")
    kept = [owner.home.session, owner.home.session.with_suffix(".key")]
    kept[0].parent.mkdir()
    for path in kept:
        path.write_bytes(bytes(32))
    script.own("leave")
    assert [path for path in kept if path.exists()] == []


def _dataset():
    rows = Rows(user_nums=np.array([0, 1, 1]), item_nums=np.array([0, 1, 2]), times=np.zeros(3))
    empty = rows.take(np.zeros(3, dtype=bool))
    fold = Fold(user_nums=NONE, history=empty, targets=empty)
    users = np.array(["ann-4711", "bob"])
    return SiloDataset(
        silo_id="north", user_ids=users, n_items=5, train=rows, valid=fold, test=fold
    )


def test_customer_is_erased_and_named_nowhere(script, owner):
    script.refused("erase", "ann-4711")
    save_silo(_dataset(), script.home / "data")
    assert "1 rows are gone" in script.own("erase", "ann-4711")
    assert load_silo(script.home / "data").user_ids.tolist() == ["bob"]
    assert "0 rows are gone" in script.own("erase", "ann-4711")
    assert "no customer" in script.refused("erase", "nobody")
    assert types_of(owner) == ["GENESIS", "ERASURE"]
    assert "ann-4711" not in "".join(lines_of(owner))
