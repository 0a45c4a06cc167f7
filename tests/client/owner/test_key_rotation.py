"""A new key takes the ledger over, whatever happens on the way."""

import os
import signal
import threading
from pathlib import Path

import pytest
from owner_records import types_of

from fondaco.client import owner as owner_module
from fondaco.client.owner import Owner
from fondaco.shared.chain.keys import Identity
from fondaco.shared.chain.store import Chain
from fondaco.shared.errors import FondacoError


def test_new_key_takes_the_ledger_over(script, owner, ready):
    script.own("approve", ready[1], "--yes")
    old = owner.identity.public.text()
    new = script.own("keys", "--rotate").strip()
    assert new != old
    assert script.own("keys").strip() == new
    again = Owner.open(script.home)
    assert types_of(again) == ["GENESIS", "POLICY", "PLAN", "KEYROT"]
    assert (script.home / f"{owner_module.KEY}.old").is_file()
    assert not (script.home / f"{owner_module.KEY}.new").exists()
    assert "own" in script.refused("approve", ready[1], "--yes")
    third = script.own("keys", "--rotate").strip()
    assert third not in (old, new)
    assert types_of(Owner.open(script.home))[-2:] == ["KEYROT", "KEYROT"]


@pytest.fixture
def killed(children):
    """Return a function: work and where it is killed -> whether a child of ours was."""

    def run(work, *point):
        def die():
            children.die_in(*point)
            work()

        return children.ended(die) == -signal.SIGKILL

    return run


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
def test_rotation_killed_on_the_way_leaves_one_key_that_works(script, owner, ready, name, killed):
    script.own("approve", ready[1], "--yes")
    old = owner.identity.public.text()
    assert killed(lambda: Owner.open(script.home).rotate(), *ROTATION[name])
    again = Owner.open(script.home)
    rotated = "KEYROT" in types_of(again)
    assert (again.identity.public.text() != old) == rotated
    assert rotated == ("record" not in name and "kept" not in name and "inside" not in name) or (
        name == "after the record"
    )
    assert not (script.home / f"{owner_module.KEY}.new").exists()
    finished = again.rotate()
    assert types_of(finished)[-1] == "KEYROT"
    assert script.own("keys").strip() == finished.identity.public.text()


def test_who_opens_the_folder_during_a_rotation_waits_for_it(script, owner, monkeypatch):
    types_of(owner)
    opened, rotate = [], Chain.rotate
    other = threading.Thread(target=lambda: opened.append(Owner.open(script.home)))

    def slow(chain, fresh):
        other.start()
        other.join(0.5)
        assert not opened
        rotate(chain, fresh)

    monkeypatch.setattr(Chain, "rotate", slow)
    rotated = Owner.open(script.home).rotate()
    other.join(10)
    assert [each.identity.public for each in opened] == [rotated.identity.public]


@pytest.mark.parametrize("trouble", ["readable by others", "missing", "damaged"])
def test_new_key_is_never_thrown_away_while_the_ledger_cannot_be_read(
    script, owner, trouble, killed
):
    types_of(owner)
    assert killed(lambda: Owner.open(script.home).rotate(), Chain, "rotate", "after", 1)
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
    assert types_of(Owner.open(script.home))[-1] == "KEYROT"


@pytest.mark.parametrize("torn", ["", "{", "[]", "{}", "\xff"])
def test_torn_name_of_the_silo_is_one_line(script, owner, torn):
    (script.home / "owner.json").write_bytes(torn.encode("latin-1"))
    assert "owner.json is damaged; bring it back from a backup" in script.refused("status")


def test_key_torn_by_a_kill_locks_nobody_out(script, owner, killed):
    types_of(owner)
    assert killed(lambda: Owner.open(script.home).rotate(), os, "fdopen", "before", 1)
    assert types_of(Owner.open(script.home)) == ["GENESIS"]
    assert types_of(owner.rotate()) == ["GENESIS", "KEYROT"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_owner_made_by_halves_is_made_whole(script, when, killed):
    def make():
        Owner.make(script.home, "north")

    assert killed(make, os, "fdopen", when, 1)
    script.own("keys", "--silo", "north")
    assert types_of(Owner.open(script.home)) == ["GENESIS"]


def test_simulated_silos_key_is_not_rotated(script, owner, tmp_path):
    run = tmp_path / "run"
    (run / "silos" / "north").mkdir(parents=True)
    (run / "run.json").write_text('{"silos": ["north"], "seed": 0}')
    (run / "silos" / "north" / "dataset.json").write_text('{"silo_id": "north"}')
    script.home = run / "silos" / "north"
    assert script.own("keys").startswith("fondaco/north+")
    assert "follows from the seed" in script.refused("keys", "--rotate")
