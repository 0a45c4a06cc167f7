"""What a silo has promised and spent: an append-only, hash-chained SQLite file.

Rules held here, each by a test:
1. A DEBIT is committed (WAL, synchronous FULL) before the debited number exists outside.
2. A debit must be in the plan, once per (kind, round, attempt), and fit the filter's budget:
   an integer comparison inside the transaction that writes it.
3. No refunds: a crash after a DEBIT leaves it spent. The same request, byte for byte, may be
   retried under it, because nothing left the silo before its RELEASE was written; afterwards
   only the byte-identical blob may be sent again.
4. Records hold no customer, no count and no seed.
5. A refused request is written down as REFUSAL.
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from ..errors import BudgetError, ConfigError, LedgerError, RefusalError
from .events import EVERYBODY, MECHANISM, PrivacyEvent
from .plan import RunPlan, canonical_json

SCHEMA = 2
DOMAIN = b"fondaco-ledger-v1\x00"
GENESIS_PREV = bytes(32)

_TABLES = (
    """CREATE TABLE records (seq INTEGER PRIMARY KEY, prev BLOB NOT NULL, body TEXT NOT NULL,
       hash BLOB NOT NULL UNIQUE) STRICT""",
    """CREATE TRIGGER no_update BEFORE UPDATE ON records
       BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END""",
    """CREATE TRIGGER no_delete BEFORE DELETE ON records
       BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END""",
)


@dataclass(frozen=True, kw_only=True)
class Head:
    """The newest record of a ledger."""

    seq: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class Debit:
    """Proof that a release has been paid for. Only `Ledger.debit` makes it.

    Attributes:
        seq: the DEBIT record's number.
        released: SHA-256 of the blob already released under it, "" if none was.
        used: whether `release` has drawn noise for it; a proof serves once.
    """

    silo_id: str
    plan_digest: str
    event: PrivacyEvent
    attempt: int
    seq: int
    released: str
    used: bool = field(default=False, init=False, compare=False)


class Ledger:
    """One silo's ledger, open for one process; use as a context manager.

    Raises (all methods):
        LedgerError: the file is damaged, locked, full or written under another plan.
    """

    def __init__(self, path: Path, plan: RunPlan) -> None:
        """Open an existing ledger and check its whole chain."""
        if not path.is_file():
            raise LedgerError(f"{path} is no ledger; create it before the first round")
        self._path = path
        self._plan = plan
        self._db = _connect(path)
        self._records = list(verify_chain(self._db, path))
        genesis = self._records[0]
        self.silo_id = str(genesis["silo_id"])
        if genesis.get("schema") != SCHEMA:
            self._db.close()
            raise LedgerError(
                f"{path} has schema {genesis.get('schema')}; this code reads {SCHEMA}"
            )
        planned = [r["plan_digest"] for r in self._records if r["type"] == "PLAN"]
        if not planned or planned[-1] != plan.digest:
            self._db.close()
            raise LedgerError(f"{path} was opened for another plan than {plan.digest[:19]}")

    @classmethod
    def create(cls, path: Path, silo_id: str, plan: RunPlan) -> Self:
        """Create a ledger with its GENESIS and PLAN records, and open it.

        A file left half-made by a crash holds no records and is started again.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        db = _connect(path)
        with _transaction(db, path):
            if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise LedgerError(f"{path} exists already; a budget is never started afresh")
            for statement in _TABLES:
                db.execute(statement)
            _append(db, {"type": "GENESIS", "schema": SCHEMA, "silo_id": silo_id})
            _append(db, _plan_body(plan))
        db.close()
        _sync_folder(path.parent)
        return cls(path, plan)

    @classmethod
    def open_or_create(cls, path: Path, silo_id: str, plan: RunPlan) -> Self:
        """Open the ledger at `path`, creating it if it has no records yet."""
        if path.is_file() and path.stat().st_size:
            db = _connect(path)
            empty = not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            db.close()
            if not empty:
                return cls(path, plan)._owned_by(silo_id)
        return cls.create(path, silo_id, plan)

    def _owned_by(self, silo_id: str) -> Self:
        if self.silo_id != silo_id:
            self._db.close()
            raise LedgerError(f"{self._path} belongs to another silo than {silo_id!r}")
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def records(self) -> tuple[Mapping[str, Any], ...]:
        """Return every record's body, oldest first."""
        return tuple(self._records)

    def head(self) -> Head:
        """Return number and hash of the newest record."""
        seq, digest = _head(self._db)
        return Head(seq=seq, digest=f"sha256:{digest.hex()}")

    def spent_units(self) -> int:
        """Return what this plan's debits have taken from its budget [1e-9 RDP]."""
        debits = (r for r in self._records if r["type"] == "DEBIT")
        return sum(r["cost"] for r in debits if r["plan_digest"] == self._plan.digest)

    def debit(self, kind: str, round_num: int, attempt: int = 1, *, request: str) -> Debit:
        """Pay for one release and return the proof; asking again returns the first proof.

        Args:
            kind: name of the statistic.
            round_num: federated round.
            attempt: each is paid for.
            request: SHA-256 of the request that the release answers, as `sha256:...`.

        Raises:
            RefusalError: the plan has no such release, or another request was paid for.
            BudgetError: what is left does not cover it; a REFUSAL record says so.
        """
        event = self._plan.event_for(kind, round_num)
        cost = self._plan.cost(event)
        with self._writing():
            known = self._find("DEBIT", kind, round_num, attempt)
            left = self._plan.budget_units - self.spent_units()
            if known is None and cost <= left:
                body = _debit_body(self._plan, event, attempt, cost, left)
                known = self._write({**body, "request": request})
        if known is None:
            self.refuse(kind, round_num, attempt, f"{left} of the budget left, {cost} needed")
            raise BudgetError(
                f"{left / self._plan.budget_units:.2f} of the budget left, "
                f"{kind} in round {round_num} costs {cost / self._plan.budget_units:.2f}; "
                "a new plan is needed"
            )
        if known["request"] != request:
            raise RefusalError(f"another request for {kind} in round {round_num} was paid for")
        refused = self._find("REFUSAL", kind, round_num, attempt)
        if refused is not None and refused["failed"]:
            raise RefusalError(f"{kind} of round {round_num} failed; it needs a new attempt")
        done = self._find("RELEASE", kind, round_num, attempt)
        return Debit(
            silo_id=self.silo_id,
            plan_digest=self._plan.digest,
            event=event,
            attempt=attempt,
            seq=known["seq"],
            released=done["blob"] if done else "",
        )

    def record_release(self, debit: Debit, blob: bytes, rng: str) -> None:
        """Write down that `blob`, paid for by `debit`, is about to leave; once per debit.

        Raises:
            BudgetError: another blob was released under this debit.
            LedgerError: this ledger holds no such debit.
        """
        digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
        key = debit.event.kind, debit.event.round_num, debit.attempt
        with self._writing():
            paid = self._find("DEBIT", *key)
            if paid is None or (paid["seq"], self.silo_id) != (debit.seq, debit.silo_id):
                raise LedgerError(f"{self._path} holds no such debit, nothing was released")
            done = self._find("RELEASE", *key)
            if done is None:
                self._write(
                    {
                        "type": "RELEASE",
                        **_key(*key),
                        "plan_digest": debit.plan_digest,
                        "debit_seq": debit.seq,
                        "blob": digest,
                        "size_bytes": len(blob),
                        "rng": rng,
                    }
                )
        if done is not None and done["blob"] != digest:
            raise BudgetError("another number was released under this debit already")

    def refuse(
        self, kind: str, round_num: int, attempt: int, reason: str, *, failed: int = 0
    ) -> None:
        """Write down that a request was refused and why (public facts only).

        `failed` = 1 closes the attempt: whoever could repeat a computation that fails for some
        data would learn about them.
        """
        body = {"type": "REFUSAL", **_key(kind, round_num, attempt), "reason": reason}
        with self._writing():
            self._write({**body, "plan_digest": self._plan.digest, "failed": failed})

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Run the body in one transaction; what it wrote is forgotten if it is not kept."""
        known = len(self._records)
        try:
            with _transaction(self._db, self._path):
                self._catch_up()
                yield
        except BaseException:
            del self._records[known:]
            raise

    def _catch_up(self) -> None:
        """Read records that another connection appended since we looked."""
        rows = self._db.execute(
            "SELECT body FROM records WHERE seq > ? ORDER BY seq", (len(self._records),)
        )
        self._records.extend(json.loads(body) for (body,) in rows)

    def _find(self, kind: str, name: str, round_num: int, attempt: int) -> dict[str, Any] | None:
        wanted = {"type": kind, **_key(name, round_num, attempt), "plan_digest": self._plan.digest}
        matches = [r for r in self._records if wanted.items() <= r.items()]
        return max(matches, key=lambda r: int(r.get("failed", 0)), default=None)

    def _write(self, body: Mapping[str, Any]) -> dict[str, Any]:
        written = _append(self._db, body)
        self._records.append(written)
        return written


def verify_chain(db: sqlite3.Connection, path: Path) -> Iterator[dict[str, Any]]:
    """Yield every record's body after checking numbering, links and hashes.

    Raises:
        LedgerError: naming the first record that does not fit.
    """
    expected_seq, expected_prev = 1, GENESIS_PREV
    try:
        rows = db.execute("SELECT seq, prev, body, hash FROM records ORDER BY seq").fetchall()
    except sqlite3.DatabaseError as error:
        raise LedgerError(f"{path} cannot be read as a ledger: {error}") from error
    for seq, prev, body, digest in rows:
        sound = (
            seq == expected_seq and prev == expected_prev and digest == _hash(prev, body.encode())
        )
        if not sound or json.loads(body)["seq"] != seq:
            raise LedgerError(
                f"{path} is damaged at record {expected_seq}; restore it, do not edit"
            )
        yield json.loads(body)
        expected_seq, expected_prev = seq + 1, digest
    if expected_seq == 1:
        raise LedgerError(f"{path} holds no records")


def _plan_body(plan: RunPlan) -> dict[str, Any]:
    epsilons = plan.epsilons()
    return {
        "type": "PLAN",
        "plan_digest": plan.digest,
        "plan": json.loads(plan.to_json()),
        "claims": "none (simulation)" if plan.mode == "simulation" else "as planned",
        **{name: f"{value:.6f}" for name, value in epsilons.items()},
    }


def _debit_body(
    plan: RunPlan, event: PrivacyEvent, attempt: int, cost: int, left: int
) -> dict[str, Any]:
    return {
        "type": "DEBIT",
        **_key(event.kind, event.round_num, attempt),
        "plan_digest": plan.digest,
        "unit": plan.unit,
        "adjacency": plan.adjacency,
        "mechanism": MECHANISM,
        "event": asdict(event),
        "grid": plan.grid,
        "sampling": "none" if event.sampling_ppm == EVERYBODY else "poisson",
        "n_min": plan.cohort.n_min,
        "t_collude": plan.cohort.t_collude,
        "order": plan.order,
        "cost": cost,
        "left": left - cost,
        "budget": plan.budget_units,
    }


def _key(kind: str, round_num: int, attempt: int) -> dict[str, Any]:
    return {"kind": kind, "round_num": round_num, "attempt": attempt}


def _connect(path: Path) -> sqlite3.Connection:
    try:
        db = sqlite3.connect(path, isolation_level=None, timeout=10)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
    except sqlite3.Error as error:
        raise LedgerError(f"{path} cannot be opened as a ledger: {error}") from error
    return db


@contextmanager
def _transaction(db: sqlite3.Connection, path: Path) -> Iterator[None]:
    """Run the body in one immediate transaction; nothing is kept when it fails."""
    try:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("COMMIT")
    except sqlite3.Error as error:
        raise LedgerError(f"{path} could not be written, nothing was released: {error}") from error
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def _head(db: sqlite3.Connection) -> tuple[int, bytes]:
    row = db.execute("SELECT seq, hash FROM records ORDER BY seq DESC LIMIT 1").fetchone()
    return (int(row[0]), bytes(row[1])) if row else (0, GENESIS_PREV)


def _append(db: sqlite3.Connection, body: Mapping[str, Any]) -> dict[str, Any]:
    seq, prev = _head(db)
    stamped = {**body, "seq": seq + 1, "ts": datetime.now(UTC).isoformat(timespec="seconds")}
    text = canonical_json(stamped)
    digest = _hash(prev, text.encode())
    db.execute("INSERT INTO records VALUES (?, ?, ?, ?)", (seq + 1, prev, text, digest))
    return stamped


def _hash(prev: bytes, body: bytes) -> bytes:
    return hashlib.sha256(DOMAIN + prev + hashlib.sha256(body).digest()).digest()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made durable: {error}") from error
    finally:
        os.close(handle)
