import hashlib
import json
import os
import resource
import select
import shutil
import signal
import sqlite3
import stat
import time
import traceback
from contextlib import closing
from dataclasses import replace

import pytest

from fondaco.shared.errors import BudgetError, LedgerError, RefusalError
from fondaco.shared.privacy import ledger as ledger_module
from fondaco.shared.privacy.ledger import Ledger, verify_chain

ASKED = "sha256:asked"


def _types(ledger):
    return [record["type"] for record in ledger.records()]


def _sha(blob):
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _edit(path, *statements):
    """Write to the file as somebody would who is not stopped by triggers."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for trigger in ("no_update", "no_delete"):
            db.execute(f"DROP TRIGGER {trigger}")
        for statement in statements:
            db.execute(statement)


def _in_child(work):
    """Return a forked process running `work`; it exits with 0 only if nothing was raised."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledgers" / "north.db"


@pytest.fixture
def ledger(path, plan):
    with Ledger.create(path, "north", plan) as opened:
        yield opened


@pytest.fixture(scope="module")
def long_plan(make_plan):
    """Forty releases, to have something to be killed in."""
    return make_plan([("popularity", 25_000, 5)] * 40, epsilon=0.2)


def test_new_ledger_holds_who_and_what_was_agreed(ledger, plan):
    assert _types(ledger) == ["GENESIS", "PLAN"]
    assert ledger.records()[1]["plan_digest"] == plan.digest
    assert ledger.records()[1]["clear_shares"] == f"{plan.epsilons()['clear_shares']:.6f}"


def test_new_ledger_of_a_simulation_claims_nothing(ledger):
    assert ledger.records()[1]["claims"] == "none (simulation)"


def test_ledger_file_is_for_its_owner_alone(ledger, path):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.with_name("north.db-wal").stat().st_mode) == 0o600


def test_ledger_waits_for_the_disk(ledger):
    assert ledger._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert ledger._db.execute("PRAGMA synchronous").fetchone() == (2,)


def test_debit_takes_the_events_cost_from_the_budget(ledger, plan):
    debit = ledger.debit("popularity", 1, request=ASKED)
    record = ledger.records()[-1]
    assert ledger.spent_units() == record["cost"] == plan.cost(debit.event)
    assert record["left"] == plan.budget_units - record["cost"]


def test_debits_of_the_whole_plan_use_up_its_budget_to_the_unit(ledger):
    ledger.debit("popularity", 1, request=ASKED)
    ledger.debit("gram", 2, request=ASKED)
    assert ledger.records()[-1]["left"] == 0


def test_debit_stops_at_budget_and_writes_only_the_refusal(ledger):
    ledger.debit("popularity", 1, request=ASKED)
    ledger.debit("gram", 2, request=ASKED)
    before = ledger.records()
    with pytest.raises(BudgetError, match="new plan"):
        ledger.debit("popularity", 1, attempt=2, request=ASKED)
    assert ledger.records()[:-1] == before
    assert ledger.records()[-1]["type"] == "REFUSAL"
    assert ledger.records()[-1]["attempt"] == 2


def test_attempts_pay_each_and_take_from_the_other_releases(ledger, plan):
    for attempt in range(1, 10):
        ledger.debit("popularity", 1, attempt, request=ASKED)
    with pytest.raises(BudgetError):
        ledger.debit("gram", 2, request=ASKED)
    assert ledger.spent_units() <= plan.budget_units


def test_debit_refuses_what_the_plan_does_not_hold(ledger):
    with pytest.raises(RefusalError):
        ledger.debit("gram", 1, request=ASKED)
    assert _types(ledger) == ["GENESIS", "PLAN"]


def test_debit_asked_again_is_the_same_and_costs_nothing(ledger):
    first = ledger.debit("popularity", 1, request=ASKED)
    assert ledger.debit("popularity", 1, request=ASKED) == first
    assert _types(ledger).count("DEBIT") == 1


def test_debit_names_the_request_that_it_answers(ledger):
    ledger.debit("popularity", 1, request=ASKED)
    assert ledger.records()[-1]["request"] == ASKED


@pytest.mark.parametrize("released", [False, True])
def test_debit_never_serves_another_request(ledger, path, plan, released):
    debit = ledger.debit("popularity", 1, request=ASKED)
    if released:
        ledger.record_release(debit, b"blob", "test")
    before = ledger.records()
    with Ledger(path, plan) as again:
        for opened in (ledger, again):
            with pytest.raises(RefusalError, match="another request for popularity in round 1"):
                opened.debit("popularity", 1, request="sha256:other")
    assert ledger.records() == before


def test_another_attempt_may_answer_another_request(ledger):
    ledger.debit("popularity", 1, request=ASKED)
    assert ledger.debit("popularity", 1, 2, request="sha256:other").seq == 4


def test_debit_without_release_may_be_completed_after_a_restart(ledger, path, plan):
    first = ledger.debit("popularity", 1, request=ASKED)
    with Ledger(path, plan) as again:
        debit = again.debit("popularity", 1, request=ASKED)
        assert (debit.seq, debit.released) == (first.seq, "")
        again.record_release(debit, b"blob", "test")
    assert ledger.debit("popularity", 1, request=ASKED).released == _sha(b"blob")


def test_released_debit_admits_only_the_identical_blob(ledger):
    debit = ledger.debit("popularity", 1, request=ASKED)
    ledger.record_release(debit, b"blob", "test")
    ledger.record_release(debit, b"blob", "test")
    with pytest.raises(BudgetError, match="another number"):
        ledger.record_release(debit, b"other noise", "test")
    assert _types(ledger).count("RELEASE") == 1


def test_release_names_its_debit_blob_and_source_of_noise(ledger):
    debit = ledger.debit("popularity", 1, request=ASKED)
    ledger.record_release(debit, b"blob", "getrandom chacha20")
    record = ledger.records()[-1]
    assert (record["debit_seq"], record["blob"]) == (debit.seq, _sha(b"blob"))
    assert (record["size_bytes"], record["rng"]) == (4, "getrandom chacha20")


def test_release_without_a_debit_is_refused(ledger, tmp_path, plan):
    with Ledger.create(tmp_path / "other.db", "north", plan) as other:
        debit = other.debit("popularity", 1, request=ASKED)
    with pytest.raises(LedgerError, match="no such debit"):
        ledger.record_release(debit, b"blob", "test")
    assert _types(ledger) == ["GENESIS", "PLAN"]


@pytest.mark.parametrize("change", [{"seq": 99}, {"silo_id": "south"}])
def test_release_under_a_forged_debit_is_refused(ledger, change):
    debit = ledger.debit("popularity", 1, request=ASKED)
    with pytest.raises(LedgerError, match="no such debit"):
        ledger.record_release(replace(debit, **change), b"blob", "test")


def test_two_connections_share_one_budget(ledger, path, plan):
    with Ledger(path, plan) as other:
        assert (
            other.debit("popularity", 1, request=ASKED).seq
            == ledger.debit("popularity", 1, request=ASKED).seq
        )
        other.debit("gram", 2, request=ASKED)
        with pytest.raises(BudgetError):
            ledger.debit("popularity", 1, attempt=2, request=ASKED)
    assert ledger.head().seq == len(ledger.records()) == 5


def test_two_connections_release_one_blob_under_one_debit(ledger, path, plan):
    with Ledger(path, plan) as other:
        mine, theirs = (
            ledger.debit("popularity", 1, request=ASKED),
            other.debit("popularity", 1, request=ASKED),
        )
        other.record_release(theirs, b"theirs", "test")
        with pytest.raises(BudgetError):
            ledger.record_release(mine, b"mine", "test")


def test_writer_that_never_ends_is_an_error_and_not_a_release(ledger, path, plan):
    ledger._db.execute("PRAGMA busy_timeout = 50")
    with closing(sqlite3.connect(path, isolation_level=None)) as hog:
        hog.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="locked"):
            ledger.debit("popularity", 1, request=ASKED)
    assert ledger.debit("popularity", 1, request=ASKED).seq == 3


def test_failed_write_is_forgotten_and_not_taken_for_a_debit(ledger, monkeypatch):
    write = ledger_module._append

    def append_and_fail(db, body):
        write(db, body)
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(ledger_module, "_append", append_and_fail)
    with pytest.raises(LedgerError, match="nothing was released"):
        ledger.debit("popularity", 1, request=ASKED)
    monkeypatch.undo()
    assert _types(ledger) == ["GENESIS", "PLAN"]
    assert ledger.debit("popularity", 1, request=ASKED).seq == 3


def test_head_is_the_newest_hash_in_the_chain(ledger):
    before = ledger.head()
    ledger.debit("popularity", 1, request=ASKED)
    assert ledger.head().seq == before.seq + 1
    assert ledger.head().digest != before.digest


def test_records_are_append_only_to_honest_programs(ledger):
    for statement in ("UPDATE records SET body = ''", "DELETE FROM records"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            ledger._db.execute(statement)


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
        Ledger(path, plan)


def test_tampering_is_named_by_its_record(ledger, path, plan):
    ledger.debit("popularity", 1, request=ASKED)
    _edit(path, "UPDATE records SET body = replace(body, ':', ': ') WHERE seq = 2")
    with pytest.raises(LedgerError, match="damaged at record 2"):
        Ledger(path, plan)


def test_record_rewritten_with_a_fitting_hash_is_found_by_the_next_ones_link(ledger, path, plan):
    ledger.debit("popularity", 1, request=ASKED)
    ledger.debit("gram", 2, request=ASKED)
    prev, body = ledger._db.execute("SELECT prev, body FROM records WHERE seq = 3").fetchone()
    body = body.replace("popularity", "popularitx")
    digest = ledger_module._hash(prev, body.encode()).hex()
    _edit(path, f"UPDATE records SET body = '{body}', hash = x'{digest}' WHERE seq = 3")  # noqa: S608
    with pytest.raises(LedgerError, match="damaged at record 4"):
        Ledger(path, plan)


def test_ledger_of_another_plan_is_refused(ledger, path, make_plan):
    with pytest.raises(LedgerError, match="another plan"):
        Ledger(path, make_plan(epsilon=2.0))


def test_ledger_of_another_silo_is_refused(ledger, path, plan):
    with pytest.raises(LedgerError, match="another silo"):
        Ledger.open_or_create(path, "south", plan)


def test_ledger_is_never_started_afresh(ledger, path, plan):
    ledger.debit("popularity", 1, request=ASKED)
    with pytest.raises(LedgerError, match="exists already"):
        Ledger.create(path, "north", plan)
    with Ledger.open_or_create(path, "north", plan) as again:
        assert "DEBIT" in _types(again)


@pytest.mark.parametrize("content", [b"", b"wal"])
def test_file_left_half_made_is_started_again(path, plan, content):
    path.parent.mkdir()
    path.touch()
    if content:
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA journal_mode = WAL")
    with Ledger.open_or_create(path, "north", plan) as ledger:
        assert _types(ledger) == ["GENESIS", "PLAN"]


def test_file_that_is_no_ledger_is_refused(path, plan):
    path.parent.mkdir()
    path.write_bytes(b"user_id,item_id\n" * 100)
    with pytest.raises(LedgerError, match="cannot be opened"):
        Ledger.open_or_create(path, "north", plan)
    with pytest.raises(LedgerError, match="is no ledger"):
        Ledger(path.with_name("missing.db"), plan)


def test_records_hold_no_customer_count_or_seed(ledger):
    ledger.record_release(
        ledger.debit("popularity", 1, request=ASKED), b"blob", "seeded chacha20: no claim"
    )
    text = json.dumps(ledger.records())
    assert not any(word in text for word in ("n_users", "n_customers", '"seed"', "user_id"))


def _release_all(path, plan, outside, ready):
    """Debit, compute, record, send: `outside` is what the rest of the world has seen."""
    with Ledger.open_or_create(path, "north", plan) as ledger:
        os.write(ready, b"!")
        for event in plan.releases:
            debit = ledger.debit(event.kind, event.round_num, request=ASKED)
            if not debit.released:
                blob = os.urandom(16)
                ledger.record_release(debit, blob, "test")
                os.write(outside, f"{event.round_num} {_sha(blob)}\n".encode())


def test_kill_at_any_point_leaves_no_release_without_a_debit(tmp_path, path, long_plan):
    sent = tmp_path / "sent"
    outside = os.open(sent, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    opened, ready = os.pipe()
    long_plan.epsilons()  # so that no child spends its life on accounting
    for num in range(21):
        child = _in_child(lambda: _release_all(path, long_plan, outside, ready))
        if num % 4 and select.select([opened], [], [], 10)[0]:
            os.read(opened, 1)
        if num < 20:
            time.sleep(0.0011 * (num * 7 % 20))
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    assert status == 0
    for handle in (outside, opened, ready):
        os.close(handle)
    with Ledger(path, long_plan) as ledger:
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


def test_full_disk_refuses_clearly_and_recovers_without_a_free_release(path, plan):
    def work():
        with Ledger.create(path, "north", plan) as ledger:
            wal = path.with_name("north.db-wal").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (wal + 100, resource.RLIM_INFINITY))
            with pytest.raises(LedgerError, match="nothing was released"):
                ledger.debit("popularity", 1, request=ASKED)
            assert _types(ledger) == ["GENESIS", "PLAN"]
            resource.setrlimit(
                resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            )
            ledger.record_release(ledger.debit("popularity", 1, request=ASKED), b"blob", "test")

    assert os.waitpid(_in_child(work), 0)[1] == 0
    with Ledger(path, plan) as ledger:
        assert _types(ledger) == ["GENESIS", "PLAN", "DEBIT", "RELEASE"]


def test_copy_without_its_write_ahead_log_still_verifies_as_a_prefix(ledger, path, plan, tmp_path):
    ledger.debit("popularity", 1, request=ASKED)
    ledger._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    ledger.debit("gram", 2, request=ASKED)
    shutil.copy(path, tmp_path / "copy.db")
    with closing(sqlite3.connect(tmp_path / "copy.db")) as db:
        assert [r["type"] for r in verify_chain(db, path)] == ["GENESIS", "PLAN", "DEBIT"]
