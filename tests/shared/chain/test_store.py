"""The file of a chain: what it holds, and who may write on."""

import os
import sqlite3
import stat
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from chain_files import BODIES, GENESIS, OTHER, OWNER, add, edit, types_of
from hypothesis import given, settings
from hypothesis import strategies as st

from fondaco.shared.chain import store
from fondaco.shared.chain.store import (
    DOMAIN,
    NOTHING,
    Chain,
    Record,
    check_links,
    link,
)
from fondaco.shared.errors import LedgerError


@settings(max_examples=40, deadline=None)
@given(bodies=st.lists(BODIES, min_size=1, max_size=4))
def test_whatever_is_appended_is_read_back_exported_and_linked(tmp_path_factory, bodies):
    path = tmp_path_factory.mktemp("chain") / "x.db"
    with closing(Chain.create(path, OWNER, [GENESIS])) as chain:
        for body in bodies:
            with chain.writing():
                chain.append({**body, "type": "NOTE"})
        lines, head = chain.lines(), chain.head
    with closing(Chain(path, OWNER)) as again:
        assert again.lines() == lines
        assert again.head == head
        stamped = [{k: v for k, v in b.items() if k not in ("seq", "ts")} for b in again.bodies]
    assert stamped == [GENESIS, *({**body, "type": "NOTE"} for body in bodies)]
    records = [Record.from_line(line) for line in lines]
    assert check_links(records)[-1] == head.root
    assert [record.line() for record in records] == lines
    assert all("\n" not in line for line in lines)


def test_hash_and_signature_are_those_of_the_format(chain):
    first, second = NOTHING, b""
    add(chain, "NOTE")
    for record in map(Record.from_line, chain.lines()):
        body = store.hashlib.sha256(record.body.encode()).digest()
        second = store.hashlib.sha256(b"fondaco-ledger-v3\x00" + first + body).digest()
        assert (record.prev, record.digest) == (first, second)
        assert OWNER.public.verifies(record.signature, b"fondaco-ledger-v3\x00" + second)
        first = second


def test_records_are_numbered_from_one_and_stamped_in_utc(chain):
    add(chain, "NOTE", "NOTE")
    assert [body["seq"] for body in chain.bodies] == [1, 2, 3]
    now = datetime.now(UTC)
    stamps = [datetime.fromisoformat(body["ts"]) for body in chain.bodies]
    assert all(now - timedelta(minutes=1) < stamp <= now for stamp in stamps)
    assert chain.root_at(3) == chain.head.root
    assert chain.root_at(2) == Record.from_line(chain.lines()[1]).digest
    assert chain.root_at(0) == chain.root_at(4) == chain.root_at(-1) == b""


@pytest.mark.parametrize("seq", [1, 2, 3])
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("prev", bytes(31) + b"\x01"),
        ("body", '{"type":"NOTE"}'),
        ("body", "no JSON"),
        ("body", '{"seq":2,"ts":"2000-01-01T00:00:00+00:00","type":"NOTE"}'),
        ("hash", bytes(31) + b"\x02"),
        ("hash", b""),
    ],
    ids=str,
)
def test_tampering_with_any_column_is_found_on_opening(chain, path, column, value, seq):
    add(chain, "NOTE", "NOTE")
    chain.close()
    edit(path, (f"UPDATE records SET {column} = ? WHERE seq = ?", (value, seq)))  # noqa: S608
    with pytest.raises(LedgerError, match="damaged at record"):
        Chain(path, OWNER)


@pytest.mark.parametrize("seq", [1, 2, 3])
def test_tampering_with_a_records_number_is_found_on_opening(chain, path, seq):
    add(chain, "NOTE", "NOTE")
    chain.close()
    edit(path, f"UPDATE records SET seq = 99 WHERE seq = {seq}")  # noqa: S608
    with pytest.raises(LedgerError, match="damaged at record"):
        Chain(path, OWNER)


@pytest.mark.parametrize("value", [b"", bytes(64), bytes(63)], ids=len)
def test_newest_records_signature_is_checked_on_opening(chain, path, value):
    add(chain, "NOTE")
    chain.close()
    edit(path, ("UPDATE records SET sig = ? WHERE seq = 2", (value,)))
    with pytest.raises(LedgerError, match="not signed by its owner"):
        Chain(path, OWNER)


@pytest.mark.parametrize("kind", ["sequence", "swap", "drop", "double", "resign"])
def test_chain_rewritten_by_somebody_without_the_key_is_refused(chain, path, kind):
    add(chain, "ONE", "TWO", "THREE")
    records = [Record.from_line(line) for line in chain.lines()]
    bodies = [record.parsed() for record in records]
    chain.close()
    bodies = {
        "sequence": bodies[:1] + [{**body, "type": "NOTE"} for body in bodies[1:]],
        "swap": [bodies[0], bodies[2], bodies[1], bodies[3]],
        "drop": [bodies[0], *bodies[2:]],
        "double": [*bodies, bodies[-1]],
        "resign": bodies,
    }[kind]
    edit(path, "DELETE FROM records")
    prev = NOTHING
    with closing(sqlite3.connect(path)) as db:
        for seq, body in enumerate(bodies, start=1):
            text = store.canonical_json({**body, "seq": seq})
            digest = link(prev, text)
            row = (seq, prev, text, digest, OTHER.sign(DOMAIN + digest))
            db.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?)", row)
            prev = digest
        db.commit()
    with pytest.raises(LedgerError, match="not signed by its owner"):
        Chain(path, OWNER)


def test_file_that_others_may_read_is_refused(chain, path):
    chain.close()
    for mode in (0o644, 0o660, 0o602):
        path.chmod(mode)
        with pytest.raises(LedgerError, match="chmod 600"):
            Chain(path, OWNER)


def test_files_beside_the_chain_are_for_its_owner_alone(path):
    old = os.umask(0)
    try:
        with closing(Chain.create(path, OWNER, [GENESIS])) as chain:
            add(chain, "NOTE")
            modes = [stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()]
    finally:
        os.umask(old)
    assert modes == [0o600] * 3


def test_two_connections_write_one_chain(chain, path):
    with closing(Chain(path, OWNER)) as second:
        for _ in range(3):
            add(chain, "ONE")
            add(second, "TWO")
        assert [b["type"] for b in second.bodies[1:]] == ["ONE", "TWO"] * 3
        assert second.of_type("ONE") == [b for b in second.bodies if b["type"] == "ONE"]
    assert types_of(path)[1:] == ["ONE", "TWO"] * 3


def test_writer_waits_for_the_other_and_gives_up_with_a_clear_error(chain, path, monkeypatch):
    chain._db.execute("PRAGMA busy_timeout = 20")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="nothing was released"):
            add(chain, "NOTE")
        other.execute("COMMIT")
    add(chain, "NOTE")
    assert types_of(path) == ["GENESIS", "NOTE"]


def test_failed_body_leaves_nothing_in_file_or_memory(chain, path):
    before = chain.head

    def fail():
        with chain.writing():
            chain.append({"type": "ONE"})
            chain.append({"type": "TWO"})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert chain.head == before
    assert chain.of_type("ONE") == chain.of_type("TWO") == []
    assert len(chain.bodies) == len(chain.lines()) == 1
    add(chain, "THREE")
    assert types_of(path) == ["GENESIS", "THREE"]


def test_others_records_read_by_a_failed_body_are_read_again(chain, path):
    with closing(Chain(path, OWNER)) as second:
        add(second, "ONE")
        with pytest.raises(RuntimeError), chain.writing():
            raise RuntimeError
        add(chain, "TWO")
    assert types_of(path) == ["GENESIS", "ONE", "TWO"]


def test_record_that_another_writer_did_not_sign_is_never_built_upon(chain, path):
    forged = store._made(1, chain.head.root, {"type": "PLAN"}, OTHER)
    with closing(sqlite3.connect(path)) as db:
        store._insert(db, forged)
        db.commit()
    with pytest.raises(LedgerError):
        add(chain, "NOTE")
