"""A ledger under any sequence of debits, releases, crashes, restores, withdrawals and new plans."""

import hashlib
import shutil
import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fondaco.shared.chain.keys import Identity, key_name
from fondaco.shared.chain.store import Record, check_links
from fondaco.shared.errors import BudgetError, LedgerError, RefusalError
from fondaco.shared.privacy.ledger import Ledger

OWNER = Identity.seeded(0, key_name("north"))
KEYS = st.tuples(st.integers(1, 4), st.integers(1, 2))
REQUESTS = st.sampled_from(["sha256:one", "sha256:other"])
PLANS = []


@pytest.fixture(scope="module", autouse=True)
def machine_plans(make_plan):
    """Two plans of four rounds; the budget of each covers its rounds once."""
    for epsilon in (1.0, 2.0):
        PLANS.append(make_plan([("popularity", 1, 5)] * 4, epsilon=epsilon))
        PLANS[-1].epsilons()
    yield
    PLANS.clear()


class LedgerMachine(RuleBasedStateMachine):
    """What the world has seen must always be paid for, once, by what the ledger says."""

    @initialize()
    def begin(self):
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "ledgers" / "north.db"
        self.plan = PLANS[0]
        self.outside = {}
        self.proofs = {}
        self.replica = []
        self.backup = None
        self.left_seen = {}
        self.ledger = Ledger.open_or_create(self.path, "north", OWNER, self.plan)

    def teardown(self):
        self.ledger.close()
        shutil.rmtree(self.folder)

    def _reopen(self):
        self.ledger.close()
        self.ledger = Ledger(self.path, OWNER, self.plan)
        self.proofs = {}

    @rule(key=KEYS, request=REQUESTS)
    def debit(self, key, request):
        with suppress(RefusalError):
            debit = self.ledger.debit("popularity", *key, request=request)
            self.proofs[self.plan.digest, key] = debit

    @rule(key=KEYS, blob=st.binary(min_size=1, max_size=2))
    def release(self, key, blob):
        debit = self.proofs.get((self.plan.digest, key))
        if debit is None:
            return
        try:
            self.ledger.record_release(debit, blob, "test")
        except BudgetError:
            assert self.outside[self.plan.digest, key] != blob
        else:
            assert self.outside.setdefault((self.plan.digest, key), blob) == blob

    @rule(key=KEYS)
    def fail(self, key):
        if (self.plan.digest, key) in self.proofs:
            del self.proofs[self.plan.digest, key]
            self.ledger.refuse("popularity", *key, RefusalError("failed", "failed"), failed=1)

    @rule(key=KEYS)
    def crash_in_a_transaction(self, key):
        with suppress(RuntimeError), self.ledger.chain.writing():
            self.ledger.chain.append({"type": "DEBIT", "round_num": key[0]})
            raise RuntimeError

    @rule()
    def restart(self):
        self._reopen()

    @rule()
    def another_process_writes(self):
        with Ledger(self.path, OWNER) as other:
            other.note_erasure(3)

    @rule()
    def leave(self):
        self.ledger.approve(self.plan, approved=0, reason="enough")

    @rule(num=st.integers(0, 1))
    def agree_to(self, num):
        self.plan = PLANS[num]
        self._reopen()
        self.ledger.approve(self.plan)

    @rule()
    def back_up(self):
        self.backup = self.folder / "backup"
        self.backup.unlink(missing_ok=True)
        with closing(sqlite3.connect(self.path)) as db, closing(sqlite3.connect(self.backup)) as to:
            db.backup(to)

    @precondition(lambda self: self.backup is not None)
    @rule()
    def restore_and_take_back(self):
        """The file is an old copy; the witnesses' replica brings everything back."""
        lines = self.replica
        self.ledger.close()
        for end in ("", "-wal", "-shm"):
            self.path.with_name(f"{self.path.name}{end}").unlink(missing_ok=True)
        shutil.copy(self.backup, self.path)
        self.path.chmod(0o600)
        self.ledger = Ledger(self.path, OWNER, self.plan)
        self.proofs = {}
        self.ledger.chain.absorb(lines)
        assert self.ledger.chain.lines() == lines

    @rule(line=st.text(max_size=5))
    def absorb_garbage(self, line):
        with pytest.raises(LedgerError):
            self.ledger.chain.absorb([line])

    @invariant()
    def chain_holds_and_only_grows(self):
        with Ledger(self.path, OWNER, self.plan) as again:
            lines = again.chain.lines()
        check_links(map(Record.from_line, lines))
        assert lines[: len(self.replica)] == self.replica
        self.replica = lines

    @invariant()
    def what_left_is_paid_for_once(self):
        with Ledger(self.path, OWNER, self.plan) as again:
            records = again.records()
        debits = [r for r in records if r["type"] == "DEBIT"]
        releases = [r for r in records if r["type"] == "RELEASE"]
        paid = {r["seq"]: _key(r) for r in debits}
        assert len(set(paid.values())) == len(debits)
        for plan in PLANS:
            mine = [r for r in debits if r["plan_digest"] == plan.digest]
            assert sum(r["cost"] for r in mine) <= plan.budget_units
            spent = 0
            for record in mine:
                spent += record["cost"]
                assert record["left"] == plan.budget_units - spent >= 0
        for record in releases:
            assert paid[record["debit_seq"]] == _key(record)
            assert record["debit_seq"] < record["seq"]
        assert len({r["debit_seq"] for r in releases}) == len(releases)
        blobs = {_key(r): r["blob"] for r in releases}
        for key, blob in self.outside.items():
            assert blobs[key] == f"sha256:{hashlib.sha256(blob).hexdigest()}"

    @invariant()
    def nothing_is_debited_without_a_plan_in_force(self):
        in_force = ""
        for record in self.ledger.records():
            if record["type"] == "PLAN":
                in_force = record["plan_digest"] if record["approved"] else ""
            if record["type"] == "DEBIT":
                assert record["plan_digest"] == in_force


def _key(record):
    return record["plan_digest"], (record["round_num"], record["attempt"])


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(
    max_examples=8,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
