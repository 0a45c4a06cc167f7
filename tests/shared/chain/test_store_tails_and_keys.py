"""Chains that lost their end, changed their key, or met another clock."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from chain_files import OTHER, OWNER, add, copy_of, types_of

from fondaco.shared.chain import store
from fondaco.shared.chain.keys import Identity
from fondaco.shared.chain.store import (
    CLOCK_SLACK,
    DOMAIN,
    Chain,
    Record,
    rotation_message,
)
from fondaco.shared.errors import LedgerError

# ---- lost tails ----


def _restored(chain, path, n_lost=3):
    """Return a chain in a restored old file, and the exported lines of the one that went on."""
    old = copy_of(path, "old.db")
    add(chain, *["NOTE"] * n_lost)
    return Chain(old, OWNER), chain.lines()


@pytest.mark.parametrize("since", [0, 1])
def test_own_lost_tail_is_taken_back(chain, path, since):
    restored, lines = _restored(chain, path)
    with closing(restored):
        assert restored.absorb(lines[since:]) == 3
        assert restored.head == chain.head
        assert restored.absorb(lines) == 0
        add(restored, "MORE")
        assert restored.lines()[:4] == lines
    assert types_of(path.with_name("old.db"))[-1] == "MORE"


def test_tail_may_come_in_pieces_and_more_than_once(chain, path):
    restored, lines = _restored(chain, path)
    with closing(restored):
        assert restored.absorb(lines[:2]) == 1
        assert restored.absorb(lines[1:3]) == 1
        assert restored.absorb(lines[1:]) == 1
        assert restored.head == chain.head


def _resigned(lines, signer):
    """Return the same records, signed by somebody else."""
    for record in map(Record.from_line, lines):
        yield replace(record, signature=signer.sign(DOMAIN + record.digest)).line()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda lines: lines[2:],
        lambda lines: [lines[1], lines[3], lines[2]],
        lambda lines: [*lines[:2], lines[3]],
        lambda lines: [lines[0], lines[1], lines[1].replace("NOTE", "NOTA"), *lines[2:]],
        lambda lines: [line.replace("NOTE", "NOTA") for line in lines],
        lambda lines: list(_resigned(lines, OTHER)),
        lambda lines: [*lines[:3], *_resigned(lines[3:], OTHER)],
        lambda lines: [*lines, "no line"],
        lambda lines: [*lines[:3], lines[3][:-5]],
        lambda lines: [*lines, ""],
        lambda lines: [*lines, "[]"],
        lambda lines: [*lines, "null"],
        lambda lines: [*lines, "[" * 100_000],
        lambda lines: [*lines, '{"body":{"a":0.5},"hash":"","prev":"","sig":""}'],
    ],
    ids=range(14),
)
def test_tail_that_is_not_the_lost_one_is_refused_whole(chain, path, spoil):
    restored, lines = _restored(chain, path)
    with closing(restored):
        before = restored.head
        with pytest.raises(LedgerError):
            restored.absorb(spoil(lines))
        assert restored.head == before
        assert restored.absorb(lines) == 3
        assert restored.head == chain.head


def test_foreign_records_are_refused(chain, path):
    genesis = {"type": "GENESIS", "key": OTHER.public.text()}
    with closing(Chain.create(path.with_name("south.db"), OTHER, [genesis])) as foreign:
        add(foreign, "NOTE", "NOTE")
        for lines in (foreign.lines(), foreign.lines(1)):
            with pytest.raises(LedgerError):
                chain.absorb(lines)
    assert len(chain.lines()) == 1


def test_forked_tail_is_refused_by_both_branches(chain, path):
    restored, _ = _restored(chain, path)
    with closing(restored):
        add(restored, "FORK")
        with pytest.raises(LedgerError, match="damaged at record"):
            restored.absorb(chain.lines())
        with pytest.raises(LedgerError, match="damaged at record"):
            chain.absorb(restored.lines())
        assert [b["type"] for b in restored.bodies] == ["GENESIS", "FORK"]


# ---- keys ----


def test_new_key_takes_over_and_the_old_one_ends(chain, path):
    new = Identity.generate(OWNER.public.name)
    before = chain.head.root
    chain.rotate(new)
    add(chain, "NOTE")
    rotation = chain.of_type("KEYROT")[0]
    proof = store.base64.b64decode(rotation["proof"])
    assert new.public.verifies(proof, rotation_message(before, new.public))
    records = [Record.from_line(line) for line in chain.lines()]
    signers = [OWNER, OWNER, new]
    for record, signer in zip(records, signers, strict=True):
        assert signer.public.verifies(record.signature, DOMAIN + record.digest)
    chain.close()
    assert types_of(path, new) == ["GENESIS", "KEYROT", "NOTE"]
    with pytest.raises(LedgerError, match="belongs to another key"):
        Chain(path, OWNER)


def test_chain_opens_right_after_a_rotation_and_rotates_again(chain, path):
    keys = [Identity.generate(OWNER.public.name) for _ in range(3)]
    chain.close()
    for old, new in zip([OWNER, *keys], keys, strict=False):
        with closing(Chain(path, old)) as opened:
            opened.rotate(new)
    assert types_of(path, keys[-1]) == ["GENESIS"] + ["KEYROT"] * 3


def test_rotation_signed_by_the_new_key_alone_is_refused(chain, path):
    chain.close()
    thief = Identity.generate(OWNER.public.name)
    first = closing(sqlite3.connect(path))
    with first as db:
        prev = db.execute("SELECT hash FROM records").fetchone()[0]
        body = {"type": "KEYROT", "key": thief.public.text(), "proof": ""}
        store._insert(db, store._made(1, prev, body, thief))
        db.commit()
    for key in (OWNER, thief):
        with pytest.raises(LedgerError):
            Chain(path, key)


def test_connection_open_during_a_rotation_writes_nothing_with_the_old_key(chain, path):
    new = Identity.generate(OWNER.public.name)
    with closing(Chain(path, OWNER)) as second:
        second.rotate(new)
    with pytest.raises(LedgerError):
        add(chain, "NOTE")
    assert types_of(path, new) == ["GENESIS", "KEYROT"]


def test_absorbing_a_rotation_does_not_brick_the_file(chain, path):
    old = copy_of(path, "old.db")
    new = Identity.generate(OWNER.public.name)
    chain.rotate(new)
    with closing(Chain(old, OWNER)) as restored:
        try:
            restored.absorb(chain.lines())
            add(restored, "NOTE")
        except LedgerError:
            pass
    opened = 0
    for key in (OWNER, new):
        try:
            types_of(old, key)
            opened += 1
        except LedgerError:
            pass
    assert opened == 1


# ---- the clock ----


class _Clock(datetime):
    shift = timedelta(0)

    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) + cls.shift


@pytest.mark.parametrize("back", [CLOCK_SLACK + timedelta(minutes=1), timedelta(days=1)], ids=str)
def test_clock_set_back_is_refused_until_it_is_right_again(chain, path, monkeypatch, back):
    monkeypatch.setattr(store, "datetime", _Clock)
    monkeypatch.setattr(_Clock, "shift", -back)
    with pytest.raises(LedgerError, match="clock"):
        add(chain, "NOTE")
    monkeypatch.setattr(_Clock, "shift", timedelta(0))
    add(chain, "NOTE")
    assert types_of(path) == ["GENESIS", "NOTE"]


def test_clock_may_go_back_a_little_as_clocks_do(chain, monkeypatch):
    monkeypatch.setattr(store, "datetime", _Clock)
    monkeypatch.setattr(_Clock, "shift", -CLOCK_SLACK + timedelta(seconds=30))
    add(chain, "NOTE")
    stamps = [datetime.fromisoformat(body["ts"]) for body in chain.bodies]
    assert stamps[1] < stamps[0]
