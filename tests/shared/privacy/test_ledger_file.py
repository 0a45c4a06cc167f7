"""The file that holds a ledger: whose it is, what tampering, crashes and full disks do to it."""

import hashlib
import os
import resource
import select
import shutil
import signal
import sqlite3
import stat
import time
from contextlib import closing

import pytest

from fondaco.shared.chain.keys import Identity, key_name
from fondaco.shared.chain.store import Chain, link
from fondaco.shared.errors import LedgerError, RefusalError
from fondaco.shared.privacy.ledger import Ledger

OWNER = Identity.seeded(0, key_name("north"))

ASKED = "sha256:asked"


def _types(ledger):
    return [record["type"] for record in ledger.records()]


def _edit(path, *statements):
    """Write to the file as somebody would who is not stopped by triggers."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for trigger in ("no_update", "no_delete"):
            db.execute(f"DROP TRIGGER {trigger}")
        for statement in statements:
            db.execute(statement)


@pytest.fixture(scope="module")
def long_plan(make_plan):
    """Forty releases, to have something to be killed in."""
    return make_plan([("popularity", 25_000, 5)] * 40, epsilon=0.2)


def test_ledger_file_is_for_its_owner_alone(ledger, path):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.with_name("north.db-wal").stat().st_mode) == 0o600


def test_ledger_waits_for_the_disk(ledger):
    assert ledger.chain._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert ledger.chain._db.execute("PRAGMA synchronous").fetchone() == (2,)


def test_head_is_the_newest_hash_in_the_chain(ledger):
    before = ledger.chain.head
    ledger.debit("popularity", 1, request=ASKED)
    assert ledger.chain.head.size == before.size + 1
    assert ledger.chain.head.root != before.root


def test_records_are_append_only_to_honest_programs(ledger):
    for statement in ("UPDATE records SET body = ''", "DELETE FROM records"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            ledger.chain._db.execute(statement)


@pytest.mark.parametrize(
    "tampering",
    [
        ["UPDATE records SET body = replace(body, 'popularity', 'popularitx') WHERE seq = 3"],
        ["UPDATE records SET hash = zeroblob(32) WHERE seq = 3"],
        ["UPDATE records SET prev = zeroblob(32) WHERE seq = 3"],
        ["DELETE FROM records WHERE seq = 3"],
        ["DELETE FROM records WHERE seq = 1"],
        ["DELETE FROM records WHERE seq = 3", "UPDATE records SET seq = 3 WHERE seq = 4"],
        [
            "UPDATE records SET seq = 99 WHERE seq = 3",
            "UPDATE records SET seq = 3 WHERE seq = 4",
            "UPDATE records SET seq = 4 WHERE seq = 99",
        ],
        ["DELETE FROM records"],
        ["DROP TABLE records"],
    ],
)
def test_tampering_is_found_on_opening(ledger, path, plan, tampering):
    ledger.debit("popularity", 1, request=ASKED)
    ledger.debit("gram", 2, request=ASKED)
    _edit(path, *tampering)
    with pytest.raises(LedgerError):
        Ledger(path, OWNER, plan)


def test_tampering_is_named_by_its_record(ledger, path, plan):
    ledger.debit("popularity", 1, request=ASKED)
    _edit(path, "UPDATE records SET body = replace(body, ':', ': ') WHERE seq = 2")
    with pytest.raises(LedgerError, match="damaged at record 2"):
        Ledger(path, OWNER, plan)


def test_record_rewritten_with_a_fitting_hash_is_found_by_the_next_ones_link(ledger, path, plan):
    ledger.debit("popularity", 1, request=ASKED)
    ledger.debit("gram", 2, request=ASKED)
    prev, body = ledger.chain._db.execute("SELECT prev, body FROM records WHERE seq = 3").fetchone()
    body = body.replace("popularity", "popularitx")
    digest = link(prev, body).hex()
    _edit(path, f"UPDATE records SET body = '{body}', hash = x'{digest}' WHERE seq = 3")  # noqa: S608
    with pytest.raises(LedgerError, match="damaged at record 4"):
        Ledger(path, OWNER, plan)


def test_ledger_of_another_plan_debits_nothing(ledger, path, make_plan):
    with Ledger.open_or_create(path, "north", OWNER, make_plan(epsilon=2.0)) as other:
        with pytest.raises(RefusalError, match="not approved"):
            other.debit("popularity", 1, request=ASKED)
        assert _types(other) == ["GENESIS", "PLAN", "REFUSAL"]


def test_ledger_of_another_silo_is_refused(ledger, path, plan):
    with pytest.raises(LedgerError, match="another silo"):
        Ledger.open_or_create(path, "south", OWNER, plan)
    with pytest.raises(LedgerError, match="another key"):
        Ledger(path, Identity.seeded(0, key_name("south")), plan)


def test_ledger_is_never_started_afresh(ledger, path, plan):
    ledger.debit("popularity", 1, request=ASKED)
    with pytest.raises(LedgerError, match="exists already"):
        Chain.create(path, OWNER, [{"type": "GENESIS"}])
    with Ledger.open_or_create(path, "north", OWNER, plan) as again:
        assert "DEBIT" in _types(again)


@pytest.mark.parametrize("content", [b"", b"wal"])
def test_file_left_half_made_is_started_again(path, plan, content):
    path.parent.mkdir()
    path.touch()
    if content:
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA journal_mode = WAL")
    with Ledger.open_or_create(path, "north", OWNER, plan) as ledger:
        assert _types(ledger) == ["GENESIS", "PLAN"]


def test_file_that_is_no_ledger_is_refused(path, plan):
    path.parent.mkdir()
    path.write_bytes(b"user_id,item_id\n" * 100)
    with pytest.raises(LedgerError, match="cannot be opened"):
        Ledger.open_or_create(path, "north", OWNER, plan)
    with pytest.raises(LedgerError, match="is no ledger"):
        Ledger(path.with_name("missing.db"), OWNER, plan)


def _release_all(path, plan, outside, ready):
    """Debit, compute, record, send: `outside` is what the rest of the world has seen."""
    with Ledger.open_or_create(path, "north", OWNER, plan) as ledger:
        os.write(ready, b"!")
        for event in plan.releases:
            debit = ledger.debit(event.kind, event.round_num, request=ASKED)
            if not debit.released:
                blob = os.urandom(16)
                ledger.record_release(debit, blob, "test")
                digest = hashlib.sha256(blob).hexdigest()
                os.write(outside, f"{event.round_num} sha256:{digest}\n".encode())


def test_kill_at_any_point_leaves_no_release_without_a_debit(tmp_path, path, long_plan, children):
    sent = tmp_path / "sent"
    outside = os.open(sent, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    opened, ready = os.pipe()
    long_plan.epsilons()  # so that no child spends its life on accounting
    for num in range(21):
        child = children.fork(lambda: _release_all(path, long_plan, outside, ready))
        if num % 4 and select.select([opened], [], [], 10)[0]:
            os.read(opened, 1)
        if num < 20:
            time.sleep(0.0011 * (num * 7 % 20))
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    assert status == 0
    for handle in (outside, opened, ready):
        os.close(handle)
    with Ledger(path, OWNER, long_plan) as ledger:
        records = ledger.records()
    debits = {r["seq"]: r["round_num"] for r in records if r["type"] == "DEBIT"}
    released = {
        f"{r['round_num']} {r['blob']}": debits[r["debit_seq"]]
        for r in records
        if r["type"] == "RELEASE"
    }
    seen = sent.read_text().splitlines()
    assert len(seen) == len(set(seen)) >= 20
    assert set(seen) <= set(released)
    assert len(set(released.values())) == len(released) == len(debits) == 40


def test_full_disk_refuses_clearly_and_recovers_without_a_free_release(path, plan, children):
    def work():
        with Ledger.open_or_create(path, "north", OWNER, plan) as ledger:
            wal = path.with_name("north.db-wal").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (wal + 100, resource.RLIM_INFINITY))
            with pytest.raises(LedgerError, match="nothing was released"):
                ledger.debit("popularity", 1, request=ASKED)
            assert _types(ledger) == ["GENESIS", "PLAN"]
            resource.setrlimit(
                resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            )
            ledger.record_release(ledger.debit("popularity", 1, request=ASKED), b"blob", "test")

    assert children.ended(work) == 0
    with Ledger(path, OWNER, plan) as ledger:
        assert _types(ledger) == ["GENESIS", "PLAN", "DEBIT", "RELEASE"]


def test_copy_without_its_write_ahead_log_still_verifies_as_a_prefix(ledger, path, plan, tmp_path):
    ledger.debit("popularity", 1, request=ASKED)
    ledger.chain._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    ledger.debit("gram", 2, request=ASKED)
    shutil.copy(path, tmp_path / "copy.db")
    with Ledger(tmp_path / "copy.db", OWNER, plan) as copy:
        assert _types(copy) == ["GENESIS", "PLAN", "DEBIT"]
