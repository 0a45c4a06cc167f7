"""fondaco-client for a data owner: keys, limits, plans, ledger, erasing, leaving, new keys."""

import io
import json
import os
import signal
import stat
import sys
import traceback
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from fondaco.client import cli
from fondaco.client import owner as owner_module
from fondaco.client.dataset import Fold, Rows, SiloDataset
from fondaco.client.dataset_files import load_silo, save_silo
from fondaco.client.owner import Owner
from fondaco.shared.chain import store
from fondaco.shared.chain.keys import Identity, PublicKey
from fondaco.shared.chain.store import Chain, Record, check_links
from fondaco.shared.errors import ConfigError, FondacoError
from fondaco.shared.plan_text import read_plan, to_toml

NONE = np.empty(0, dtype=np.int64)
COMMANDS = ("recommend", "keys", "policy", "approve", "leave", "erase", "ledger")


class Script:
    """The console script in this process: what it prints, and how it ends."""

    def __init__(self, monkeypatch, capsys, home):
        self._monkeypatch, self._capsys, self.home = monkeypatch, capsys, home

    def __call__(self, *words, code=0, said=""):
        self._monkeypatch.setattr(sys, "argv", ["fondaco-client", *map(str, words)])
        self._monkeypatch.setattr(sys, "stdin", io.StringIO(said))
        self._capsys.readouterr()
        ended = 0
        try:
            cli.main()
        except SystemExit as end:
            ended = end.code or 0
        printed = self._capsys.readouterr()
        assert ended == code, printed
        self.err = printed.err
        return printed.out

    def own(self, command, *words, **options):
        return self(command, *words, "--home", self.home, **options)

    def refused(self, *words):
        """Hold that a command ends with 2 and one clear line; return the line."""
        out = self.own(*words, code=2)
        assert self.err.startswith("error: ")
        assert self.err.count("\n") == 1
        assert "Traceback" not in out + self.err
        return self.err


@pytest.fixture
def script(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    return Script(monkeypatch, capsys, tmp_path / "shop")


@pytest.fixture
def owner(script):
    """The owner of a fresh key, made on the command line."""
    script.own("keys", "--silo", "north")
    return Owner.open(script.home)


@pytest.fixture
def make_deployed(make_plan, make_roster):
    """Return a plan of ten owners in which `owner` holds its own key."""

    def make(owner, **changes):
        terms = make_roster(mode="deploy", **changes)
        terms["roster"] = {**terms["roster"], owner.silo_id: owner.identity.public.text()}
        return make_plan(trust="silo", **terms)

    return make


@pytest.fixture
def ready(script, owner, make_deployed):
    """An owner with limits and pinned peers, and the file of a plan that waits."""
    plan = make_deployed(owner)
    keys = [key for silo, key in plan.roster.items() if silo != "north"]
    peers = [word for key in (*keys, plan.coordinator) for word in ("--peer", key)]
    limits = "--epsilon-per-year", 3, "--epsilon-if-masking-broke", 4, "--target-delta", "1e-6"
    script.own("policy", *limits, *peers)
    path = script.home.parent / "plan.toml"
    path.write_text(to_toml(plan))
    return plan, path


def _types(owner):
    with owner.ledger() as ledger:
        check_links(map(Record.from_line, ledger.chain.lines()))
        return [record["type"] for record in ledger.records()]


# ---- every command ----


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(script, command):
    out = script(command, "--help")
    assert "Usage" in out
    assert command in script("--help")


def test_script_without_words_shows_its_help(script):
    assert "Usage" in script(code=2) + script.err


@pytest.mark.parametrize("command", ["policy", "leave", "ledger"])
def test_folder_that_is_no_owners_is_refused(script, command):
    assert "no owner's folder" in script.refused(command)
    assert not script.home.exists()


def test_folder_that_is_no_owners_approves_and_erases_nothing(script, tmp_path):
    assert "no owner's folder" in script.refused("approve", tmp_path / "plan.toml")
    assert "no owner's folder" in script.refused("erase", "ann")


# ---- keys ----


def test_key_is_made_once_on_the_owners_machine_and_shown(script):
    public = script.own("keys", "--silo", "north").strip()
    assert PublicKey.from_text(public).name == "fondaco/north"
    assert script.own("keys").strip() == public
    assert json.loads(script.own("keys", "--json")) == {"silo_id": "north", "key": public}
    assert "never overwritten" in script.refused("keys", "--silo", "north")
    assert script.own("keys").strip() == public


def test_key_is_for_its_owner_alone(script, owner):
    path = script.home / owner_module.KEY
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(script.home.stat().st_mode) == 0o700
    assert "PRIVATE" not in script.own("keys") + script.own("keys", "--json")
    path.chmod(0o644)
    assert "chmod 600" in script.refused("keys")


@pytest.mark.parametrize("name", [" ", "a\nb", "\x1b[1m"], ids=repr)
def test_name_that_is_none_is_refused(script, name):
    assert "no name for a silo" in script.refused("keys", "--silo", name)
    assert not script.home.exists()


@pytest.mark.parametrize("name", ["Süd & Söhne", "../etc", "a/b", "[red]x[/red]", "a+b c"])
def test_any_printable_name_makes_an_owner(script, name):
    public = script.own("keys", "--silo", name).strip()
    assert PublicKey.from_text(public).name.isascii()
    assert Owner.open(script.home).silo_id == name
    script.own("ledger")
    files = [path for path in script.home.parent.rglob("*") if path.is_file()]
    assert all(path.resolve().is_relative_to(script.home.resolve()) for path in files)
    assert name in json.loads(script.own("ledger", "--json"))["silo_id"]


# ---- limits ----


def test_limits_are_set_shown_and_changed_one_at_a_time(script, owner):
    assert "no limits" in script.own("policy")
    script.own("policy", "--epsilon-per-year", 3, "--epsilon-if-masking-broke", 4)
    script.own("policy", "--epsilon-per-year", 2)
    facts = json.loads(script.own("policy", "--json"))
    assert facts["limits"]["epsilon_per_year"] == "2.0"
    assert facts["limits"]["epsilon_if_masking_broke"] == "4.0"
    assert _types(owner) == ["GENESIS", "POLICY", "POLICY"]
    script.own("policy", "--epsilon-per-year", 2)
    assert _types(owner) == ["GENESIS", "POLICY", "POLICY"]


def test_limits_keep_the_delta_that_was_set(script, owner):
    first = "--epsilon-per-year", 3, "--epsilon-if-masking-broke", 4
    script.own("policy", *first, "--target-delta", "1e-7")
    script.own("policy", "--epsilon-per-year", 2)
    assert json.loads(script.own("policy", "--json"))["limits"]["target_delta"] == "1e-07"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--epsilon-per-year", 3], "set both"),
        (["--epsilon-if-masking-broke", 3], "set both"),
        (["--epsilon-per-year", 3, "--epsilon-if-masking-broke", 3, "--target-delta", 0], "delta"),
        (["--epsilon-per-year", 3, "--epsilon-if-masking-broke", 3, "--target-delta", 1], "delta"),
        (["--epsilon-per-year", "inf", "--epsilon-if-masking-broke", 3], ""),
        (["--epsilon-per-year", "nan", "--epsilon-if-masking-broke", 3], ""),
        (["--peer", "no key"], "no public key"),
    ],
    ids=str,
)
def test_limits_out_of_range_are_refused(script, owner, words, why):
    assert why in script.refused("policy", *words)
    assert "POLICY" not in _types(owner)


def test_other_key_of_a_pinned_name_is_refused(script, owner):
    first, second = (Identity.generate("fondaco/south").public.text() for _ in range(2))
    script.own("policy", "--peer", first)
    script.own("policy", "--peer", first)
    assert "another key of fondaco/south" in script.refused("policy", "--peer", second)
    assert json.loads(script.own("policy", "--json"))["peers"] == ["fondaco/south"]
    assert [key.text() for key in owner.peers()] == [first]


# ---- approval ----


def test_approval_says_what_it_means_and_signs(script, owner, ready):
    plan, path = ready
    out = script.own("approve", path, said="y\n")
    for words in ("epsilon", "in two silos", "in three", "colludes", "seen in the clear"):
        assert words in out or words == "colludes"
    assert "Against the server alone" in out
    assert "signed" in out
    assert owner.approved() == plan
    kept = list((script.home / "plans").glob("*.toml"))
    assert [read_plan(file).digest for file in kept] == [plan.digest]
    with owner.ledger() as ledger:
        record = ledger.chain.of_type("PLAN")[0]
    assert record["claims"] == "as planned"
    assert record["plan_digest"] == plan.digest
    script.own("approve", path, "--yes")
    assert _types(owner) == ["GENESIS", "POLICY", "PLAN"]


@pytest.mark.parametrize("said", ["n\n", "\n", ""], ids=repr)
def test_owner_who_does_not_say_yes_signs_nothing(script, owner, ready, said):
    script.own("approve", ready[1], said=said, code=1)
    assert owner.approved() is None
    assert not (script.home / "plans").exists()


def test_facts_for_machines_are_shown_without_signing_and_with(script, owner, ready):
    plan, path = ready
    facts = json.loads(script.own("approve", path, "--json"))
    assert facts["approved"] is False
    assert facts["plan"] == plan.digest
    assert sorted(facts["epsilon_in_silos"]) == ["1", "2", "3"]
    assert facts["epsilon_in_silos"]["1"] <= facts["epsilon_in_silos"]["2"]
    assert owner.approved() is None
    facts = json.loads(script.own("approve", path, "--json", "--yes"))
    assert facts["approved"] is True
    assert Path(facts["kept_as"]).is_file()
    assert owner.approved() == plan


def _changed(ready, **changes):
    plan, path = ready
    path.write_text(to_toml(replace(plan, **changes)))
    return path


def test_plan_for_other_code_is_refused(script, owner, ready):
    assert "for code" in script.refused("approve", _changed(ready, code_digest="sha256:x"), "--yes")
    assert owner.approved() is None


def test_plan_with_another_key_for_this_owner_is_refused(script, owner, ready):
    roster = {**ready[0].roster, "north": Identity.generate("fondaco/north").public.text()}
    line = script.refused("approve", _changed(ready, roster=roster), "--yes")
    assert "does not hold this owner's key" in line
    assert owner.approved() is None


def test_plan_with_keys_that_nobody_checked_is_refused(script, owner, ready):
    stranger = Identity.generate("fondaco/silo-2").public.text()
    path = _changed(ready, roster={**ready[0].roster, "silo-2": stranger})
    assert "not pinned (fondaco/silo-2)" in script.refused("approve", path, "--yes")
    server = Identity.generate("fondaco-coordinator").public.text()
    path = _changed(ready, coordinator=server)
    assert "not pinned (fondaco-coordinator)" in script.refused("approve", path, "--yes")
    assert owner.approved() is None


def test_plan_beyond_the_owners_limits_is_refused(script, owner, ready):
    _, path = ready
    script.own("policy", "--epsilon-if-masking-broke", 0.5, "--target-delta", "1e-6")
    assert "masking broken" in script.refused("approve", path, "--yes")
    limits = "--epsilon-per-year", 0.5, "--epsilon-if-masking-broke", 9
    script.own("policy", *limits, "--target-delta", "1e-6")
    assert "per year" in script.refused("approve", path, "--yes")
    assert owner.approved() is None


def test_plan_is_refused_before_limits_are_set(script, owner, make_deployed, tmp_path):
    plan = make_deployed(owner)
    owner.pin([PublicKey.from_text(text) for text in (*plan.roster.values(), plan.coordinator)])
    path = tmp_path / "plan.json"
    path.write_text(plan.to_json())
    assert "limits first" in script.refused("approve", path, "--yes")
    assert owner.approved() is None


@pytest.mark.parametrize(
    "text", ["", "x", "[", "schema = 2", '{"schema": 3}', "\x00", "schema = 3\n[promise]\n"]
)
def test_file_that_is_no_plan_is_refused(script, owner, tmp_path, text):
    for name in ("plan.toml", "plan.json"):
        (tmp_path / name).write_text(text)
        script.refused("approve", tmp_path / name, "--yes")
    assert "cannot be read" in script.refused("approve", tmp_path / "missing.toml", "--yes")
    assert owner.approved() is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("stddev_grid = ", "stddev_grid = 1"),
        ("dim = ", "dim = 9"),
        ("n_min = ", "n_min = -"),
        ("budget_units = ", "budget_units = 1"),
        ('target_epsilon = "1.0"', 'target_epsilon = "0.5"'),
        ("schema = 3", "schema = 4"),
        ('mode = "deploy"', 'mode = "production"'),
    ],
)
def test_plan_edited_by_hand_is_refused_or_another_plan(script, owner, ready, old, new):
    plan, path = ready
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    try:
        assert read_plan(path).digest != plan.digest
    except ConfigError:
        script.refused("approve", path, "--yes")
        assert owner.approved() is None


def test_newer_plan_takes_the_place_of_the_older(script, owner, ready, make_deployed):
    _, path = ready
    script.own("approve", path, "--yes")
    second = make_deployed(owner, public={"split": "2020-01-01"})
    path.write_text(to_toml(second))
    script.own("approve", path, "--yes")
    assert owner.approved() == second
    assert len(list((script.home / "plans").iterdir())) == 2


# ---- ledger ----


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
    _types(owner)
    backup = ledger.read_bytes()
    script.own("approve", ready[1], "--yes")
    script.own("ledger", "--export", export)
    assert export.read_text().split("\n")[:-1] == _lines(owner)
    assert stat.S_IMODE(export.stat().st_mode) == 0o600
    ledger.write_bytes(backup)
    assert owner.approved() is None
    assert "1 records were taken back" in script.own("ledger", "--import", export)
    assert "0 records were taken back" in script.own("ledger", "--import", export)
    assert export.read_text().split("\n")[:-1] == _lines(owner)
    assert owner.approved() == ready[0]


def _lines(owner):
    with owner.ledger() as ledger:
        return ledger.chain.lines()


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
    lines = _lines(owner)
    for path in owner.home.ledger.parent.iterdir():
        path.unlink()
    monkeypatch.setattr(store, "datetime", _Later)
    if looked_first:
        script.refused("ledger")
    script.own("ledger", "--import", export)
    assert _lines(owner) == lines


def test_others_records_are_refused(script, owner, tmp_path):
    other = Owner.make(tmp_path / "other", "south")
    (tmp_path / "south.jsonl").write_text("".join(f"{line}\n" for line in _lines(other)))
    before = _lines(owner)
    script.refused("ledger", "--import", tmp_path / "south.jsonl")
    (tmp_path / "garbage.jsonl").write_text("garbage\n")
    script.refused("ledger", "--import", tmp_path / "garbage.jsonl")
    script.refused("ledger", "--import", tmp_path / "missing.jsonl")
    assert _lines(owner) == before


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
    _types(owner)
    owner.home.ledger.write_bytes(b"x" * 8192)
    script.refused("ledger")


# ---- leaving and erasing ----


def test_leaving_is_recorded_once_and_can_be_taken_back_by_a_signature(script, owner, ready):
    assert "no plan in force" in script.refused("leave")
    script.own("approve", ready[1], "--yes")
    assert "has left" in script.own("leave", "--reason", "enough")
    assert "no plan in force" in script.refused("leave")
    assert owner.approved() is None
    assert "withdrawn" in script.own("ledger")
    assert json.loads(script.own("ledger", "--json"))["plan"]["in_force"] is False
    script.own("approve", ready[1], "--yes")
    assert owner.approved() == ready[0]
    assert _types(owner) == ["GENESIS", "POLICY", "PLAN", "PLAN", "PLAN"]


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
    assert _types(owner) == ["GENESIS", "ERASURE", "ERASURE"]
    assert "ann-4711" not in "".join(_lines(owner))


# ---- new keys ----


def test_new_key_takes_the_ledger_over(script, owner, ready):
    script.own("approve", ready[1], "--yes")
    old = owner.identity.public.text()
    new = script.own("keys", "--rotate").strip()
    assert new != old
    assert script.own("keys").strip() == new
    again = Owner.open(script.home)
    assert _types(again) == ["GENESIS", "POLICY", "PLAN", "KEYROT"]
    assert (script.home / f"{owner_module.KEY}.old").is_file()
    assert not (script.home / f"{owner_module.KEY}.new").exists()
    assert "own" in script.refused("approve", ready[1], "--yes")
    third = script.own("keys", "--rotate").strip()
    assert third not in (old, new)
    assert _types(Owner.open(script.home))[-2:] == ["KEYROT", "KEYROT"]


def _killed(work, owner, name, when, nth):
    """Run `work` in a child that dies at the nth call of a function; return whether it did."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    try:
        real, calls = getattr(owner, name), count(1)

        def wrapped(*args, **options):
            num = next(calls)
            if (when, num) == ("before", nth):
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*args, **options)
            if (when, num) == ("after", nth):
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, name, wrapped)
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


ROTATION = {
    "before the new key is kept": (Identity, "save", "before", 1),
    "after the new key is kept": (Identity, "save", "after", 1),
    "before the record": (Chain, "_keep", "before", 1),
    "inside of the transaction": (Chain, "_keep", "after", 1),
    "after the record": (Chain, "rotate", "after", 1),
    "before the old key is put away": (Path, "replace", "before", 1),
    "after the old key is put away": (Path, "replace", "after", 1),
    "before the new key is in its place": (Path, "replace", "before", 2),
    "after the new key is in its place": (Path, "replace", "after", 2),
}


@pytest.mark.parametrize("name", ROTATION)
def test_rotation_killed_on_the_way_leaves_one_key_that_works(script, owner, ready, name):
    script.own("approve", ready[1], "--yes")
    old = owner.identity.public.text()
    assert _killed(lambda: Owner.open(script.home).rotate(), *ROTATION[name])
    again = Owner.open(script.home)
    rotated = "KEYROT" in _types(again)
    assert (again.identity.public.text() != old) == rotated
    assert rotated == ("record" not in name and "kept" not in name and "inside" not in name) or (
        name == "after the record"
    )
    assert not (script.home / f"{owner_module.KEY}.new").exists()
    finished = again.rotate()
    assert _types(finished)[-1] == "KEYROT"
    assert script.own("keys").strip() == finished.identity.public.text()


@pytest.mark.parametrize("trouble", ["readable by others", "missing", "damaged"])
def test_new_key_is_never_thrown_away_while_the_ledger_cannot_be_read(script, owner, trouble):
    _types(owner)
    assert _killed(lambda: Owner.open(script.home).rotate(), Chain, "rotate", "after", 1)
    ledger = owner.home.ledger
    blob = ledger.read_bytes()
    with_log = {path: path.read_bytes() for path in ledger.parent.iterdir()}
    if trouble == "missing":
        for path in with_log:
            path.unlink()
    elif trouble == "damaged":
        ledger.write_bytes(b"x" * len(blob))
    else:
        ledger.chmod(0o644)
    for _ in range(2):
        try:
            Owner.open(script.home)
        except FondacoError:
            continue
    for path, content in with_log.items():
        path.write_bytes(content)
        path.chmod(0o600)
    assert _types(Owner.open(script.home))[-1] == "KEYROT"


def test_key_torn_by_a_kill_locks_nobody_out(script, owner):
    _types(owner)
    assert _killed(lambda: Owner.open(script.home).rotate(), os, "fdopen", "before", 1)
    assert _types(Owner.open(script.home)) == ["GENESIS"]
    assert _types(owner.rotate()) == ["GENESIS", "KEYROT"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_owner_made_by_halves_is_made_whole(script, when):
    def make():
        Owner.make(script.home, "north")

    assert _killed(make, os, "fdopen", when, 1)
    script.own("keys", "--silo", "north")
    assert _types(Owner.open(script.home)) == ["GENESIS"]


def test_simulated_silos_key_is_not_rotated(script, owner, tmp_path):
    run = tmp_path / "run"
    (run / "silos" / "north").mkdir(parents=True)
    (run / "run.json").write_text('{"silos": ["north"], "seed": 0}')
    (run / "silos" / "north" / "dataset.json").write_text('{"silo_id": "north"}')
    script.home = run / "silos" / "north"
    assert script.own("keys").startswith("fondaco/north+")
    assert "follows from the seed" in script.refused("keys", "--rotate")
