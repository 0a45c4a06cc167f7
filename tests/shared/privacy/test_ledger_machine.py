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
from fondaco.shared.errors import LedgerError, RefusalError
from fondaco.shared.privacy.ledger import Ledger

OWNER = Identity.seeded(0, key_name("north"))
KEYS = st.tuples(st.integers(1, 4), st.integers(1, 2))
REQUESTS = st.sampled_from(["sha256:one", "sha256:other"])
PLANS = []


@pytest.fixture(scope="module", autouse=True)
def machine_plans(make_plan, make_masked):
    """Three plans of four rounds, the last of masked sums; each budget covers the rounds once."""
    for epsilon, terms in ((1.0, {}), (2.0, {}), (3.0, make_masked())):
        PLANS.append(make_plan([("popularity", 1, 5)] * 4, epsilon=epsilon, **terms))
        PLANS[-1].epsilons()
    yield
    PLANS.clear()


class LedgerMachine(RuleBasedStateMachine):
    """What the world has seen must always be paid for, once, by what the ledger says."""

    @initialize(num=st.integers(0, 2))
    def begin(self, num):
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "ledgers" / "north.db"
        self.plan = PLANS[num]
        self.outside = {}
        self.proofs = {}
        self.answers = {}
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
        known = self.outside.get((self.plan.digest, key))
        masked = _sha(b"all") if self.plan.ring_bits else ""
        refused = _refusal(self.ledger.record_release, debit, blob, "test", masked)
        if known is None:
            assert refused in ("", "left", "not-approved")
        else:
            assert (refused == "") == (known == blob)
        if not refused:
            self.outside[self.plan.digest, key] = blob

    @rule(key=KEYS, survivors=REQUESTS, answer=st.binary(max_size=1))
    def unmask(self, key, survivors, answer):
        given, asked = (self.plan.digest, key), {"survivors": survivors, "answer": answer}
        refused = _refusal(self.ledger.record_unmask, "popularity", *key, **asked)
        if given not in self.outside or not self.plan.ring_bits:
            assert refused == "out-of-order"
        elif self.answers.setdefault(given, asked) == asked:
            assert refused == ""
        else:
            assert refused == "other-survivors"

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

    @rule(num=st.integers(0, 2))
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
            assert blobs[key] == _sha(blob)
        masked = {_key(r) for r in releases if r["masked"]}
        assert all((r["plan_digest"] == PLANS[2].digest) == bool(r["masked"]) for r in releases)
        unmasked = [r for r in records if r["type"] == "UNMASK"]
        answers = {_key(r): r["answer"] for r in unmasked}
        assert len(answers) == len(unmasked)
        assert answers.keys() <= masked
        assert answers == {key: _sha(asked["answer"]) for key, asked in self.answers.items()}

    @invariant()
    def nothing_is_debited_without_a_plan_in_force(self):
        in_force = ""
        for record in self.ledger.records():
            if record["type"] == "PLAN":
                in_force = record["plan_digest"] if record["approved"] else ""
            if record["type"] == "DEBIT":
                assert record["plan_digest"] == in_force


def _refusal(attempt, *args, **options):
    """Return the code with which something was refused, "" if it was not."""
    try:
        attempt(*args, **options)
    except RefusalError as error:
        return error.code
    return ""


def _sha(blob):
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _key(record):
    return record["plan_digest"], (record["round_num"], record["attempt"])


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(
    max_examples=8,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
