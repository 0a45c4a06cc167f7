"""A chain of signed records in one SQLite file, and the lines it is exported as.

hash = SHA-256(DOMAIN, previous hash, SHA-256(canonical body)); every hash is signed. Whoever has
one later head can tell that an earlier record was edited, dropped or moved. Records are
appended in transactions (WAL, synchronous FULL): what was committed survives a power cut as far
as the disk keeps its word.
"""

import base64
import hashlib
import json
import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from ..errors import ConfigError, LedgerError
from .canonical import canonical_json
from .keys import Identity, PublicKey
from .notes import Checkpoint

DOMAIN = b"fondaco-ledger-v3\x00"
ROTATION = b"fondaco-keyrot-v1\x00"
NOTHING = bytes(32)
CLOCK_SLACK = timedelta(minutes=5)
MAX_LINE = 1 << 24

_TABLES = (
    """CREATE TABLE records (seq INTEGER PRIMARY KEY, prev BLOB NOT NULL, body TEXT NOT NULL,
       hash BLOB NOT NULL UNIQUE, sig BLOB NOT NULL) STRICT""",
    """CREATE TRIGGER no_update BEFORE UPDATE ON records
       BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END""",
    """CREATE TRIGGER no_delete BEFORE DELETE ON records
       BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END""",
)


@dataclass(frozen=True, kw_only=True)
class Record:
    """One link of a chain.

    Attributes:
        prev: hash of the record before it, 32 bytes.
        body: canonical text.
        digest: its own hash, 32 bytes.
        signature: of its hash, 64 bytes.
    """

    prev: bytes
    body: str
    digest: bytes
    signature: bytes

    def line(self) -> str:
        """Return the record as a line of an exported ledger, without the line's end."""
        whole = {
            "body": json.loads(self.body),
            "hash": self.digest.hex(),
            "prev": self.prev.hex(),
            "sig": base64.b64encode(self.signature).decode(),
        }
        return canonical_json(whole)

    @classmethod
    def from_line(cls, line: str) -> "Record":
        """Return the record in an exported line; links and signature are not checked yet.

        Raises:
            LedgerError: it is no such line.
        """
        try:
            raw = json.loads(line[:MAX_LINE])
            if type(raw["body"]["seq"]) is not int or not isinstance(raw["body"]["type"], str):
                raise ValueError("a record needs a number and a type")
            return cls(
                prev=bytes.fromhex(raw["prev"]),
                body=canonical_json(raw["body"]),
                digest=bytes.fromhex(raw["hash"]),
                signature=base64.b64decode(raw["sig"], validate=True),
            )
        except (ValueError, KeyError, TypeError, RecursionError, ConfigError) as error:
            raise LedgerError(f"{line[:60]!r} is no line of a ledger: {error}") from None

    def parsed(self) -> dict[str, Any]:
        """Return the body."""
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed


def check_links(records: Iterable[Record], seq: int = 0, head: bytes = NOTHING) -> list[bytes]:
    """Return the hash after each record, which must follow record number `seq` of hash `head`.

    Raises:
        LedgerError: naming the first record that does not fit.
    """
    hashes = []
    for number, record in enumerate(records, start=seq + 1):
        sound = record.prev == head and record.digest == link(head, record.body)
        if not sound or record.parsed().get("seq") != number:
            raise LedgerError(f"the ledger is damaged at record {number}; restore it, do not edit")
        head = record.digest
        hashes.append(head)
    return hashes


def link(prev: bytes, body: str) -> bytes:
    """Return the hash of a record with this body after the record with hash `prev`."""
    return hashlib.sha256(DOMAIN + prev + hashlib.sha256(body.encode()).digest()).digest()


def rotation_message(prev: bytes, key: PublicKey) -> bytes:
    """Return what a new key signs to take over a chain whose head is `prev`."""
    return ROTATION + prev + key.raw


class Chain:
    """One owner's chain, open for appending.

    Raises (all methods):
        LedgerError: the file is damaged, locked, full or somebody else's.
    """

    def __init__(self, path: Path, owner: Identity) -> None:
        """Open an existing chain and check all of it."""
        if not path.is_file():
            raise LedgerError(f"{path} is no ledger; create it before the first round")
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise LedgerError(f"{path} may be read by others; run chmod 600 {path}")
        self.path = path
        self._owner = owner
        self._db = _connect(path)
        try:
            self._records = list(_read(self._db, path))
            check_links(self._records)
            _check_owner(self._records, owner, path)
        except BaseException:
            self._db.close()
            raise
        self.bodies: list[dict[str, Any]] = []
        self._by_type: dict[str, list[dict[str, Any]]] = {}
        for record in self._records:
            self._index(record)

    @classmethod
    def create(cls, path: Path, owner: Identity, bodies: Iterable[Mapping[str, Any]]) -> Self:
        """Create a chain with its first records, all or none, and open it.

        A file left half-made by a crash holds no records and is started again.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        path.chmod(0o600)
        db = _connect(path)
        with _transaction(db, path):
            if has_tables(db):
                raise LedgerError(f"{path} exists already; a budget is never started afresh")
            for statement in _TABLES:
                db.execute(statement)
            seq, head = 0, NOTHING
            for body in bodies:
                seq, head = seq + 1, _insert(db, _made(seq, head, body, owner)).digest
        db.close()
        _sync_folder(path.parent)
        return cls(path, owner)

    @classmethod
    def restore(cls, path: Path, owner: Identity, lines: Iterable[str]) -> Self:
        """Bring back a chain whose file was lost, from all of its exported lines, and open it.

        Raises:
            LedgerError: they are no whole chain of this owner's, or there is a file already.
        """
        records = [Record.from_line(line) for line in lines]
        check_links(records)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        db = _connect(path)
        try:
            with _transaction(db, path):
                if has_tables(db):
                    raise LedgerError(f"{path} exists already; it only takes back what it lost")
                for statement in _TABLES:
                    db.execute(statement)
                for record in records:
                    _insert(db, record)
                _check_owner(records, owner, path)
        finally:
            db.close()
        return cls(path, owner)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @property
    def owner(self) -> PublicKey:
        """The key that signs."""
        return self._owner.public

    @property
    def head(self) -> Checkpoint:
        """The newest record's number and hash."""
        root = self._records[-1].digest
        return Checkpoint(origin=self._owner.public.name, size=len(self._records), root=root)

    def note(self) -> str:
        """Return the head, signed."""
        return self.head.signed_by(self._owner)

    def root_at(self, size: int) -> bytes:
        """Return the hash of record number `size`, nothing if there is none."""
        return self._records[size - 1].digest if 0 < size <= len(self._records) else b""

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        """Return the bodies of all records of one type, oldest first."""
        return self._by_type.get(kind, [])

    def lines(self, since: int = 0) -> list[str]:
        """Return the records after number `since` as exported lines."""
        return [record.line() for record in self._records[max(since, 0) :]]

    def append(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Append one record inside of `writing` and return its stamped body."""
        self._check_clock()
        record = _made(len(self._records), self._records[-1].digest, body, self._owner)
        self._keep(record)
        return self.bodies[-1]

    def absorb(self, lines: Iterable[str]) -> int:
        """Take back records that this owner once signed and has lost; return how many.

        Raises:
            LedgerError: they do not follow this chain's head, or others signed them.
        """
        records = [Record.from_line(line) for line in lines]
        with self.writing():
            records = records[self._overlap(records) :]
            self._check_newer(records)
            for record in records:
                self._keep(record)
        return len(records)

    def _check_newer(self, records: list[Record]) -> None:
        """Check records that were not appended here: they must follow and be the owner's."""
        check_links(records, len(self._records), self._records[-1].digest)
        for record in records:
            if record.parsed()["type"] == "KEYROT":
                raise LedgerError(f"{self.path} has been handed over to another key; use that one")
            if not self._owner.public.verifies(record.signature, DOMAIN + record.digest):
                raise LedgerError(f"records of {self.path} were not signed by its owner's key")

    def _overlap(self, records: list[Record]) -> int:
        """Return how many of the first records are here already."""
        known = {record.digest for record in self._records}
        return sum(record.digest in known for record in records)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Run the body in one transaction; what it appended is forgotten if it is not kept."""
        known = len(self._records)
        try:
            with _transaction(self._db, self.path):
                self._catch_up()
                yield
        except BaseException:
            del self._records[known:]
            for body in reversed(self.bodies[known:]):
                self._by_type[body["type"]].pop()
            del self.bodies[known:]
            raise

    def rotate(self, new: Identity) -> None:
        """Hand the chain over to a new key, which signs from the next record on."""
        with self.writing():
            message = rotation_message(self._records[-1].digest, new.public)
            proof = base64.b64encode(new.sign(message)).decode()
            self.append({"type": "KEYROT", "key": new.public.text(), "proof": proof})
        self._owner = new

    def _keep(self, record: Record) -> None:
        _insert(self._db, record)
        self._records.append(record)
        self._index(record)

    def _index(self, record: Record) -> None:
        body = record.parsed()
        self.bodies.append(body)
        self._by_type.setdefault(body["type"], []).append(body)

    def _catch_up(self) -> None:
        """Read records that another connection appended since we looked."""
        newer = list(_read(self._db, self.path, since=len(self._records)))
        self._check_newer(newer)
        for record in newer:
            self._records.append(record)
            self._index(record)

    def _check_clock(self) -> None:
        newest = datetime.fromisoformat(self.bodies[-1]["ts"])
        if datetime.now(UTC) < newest - CLOCK_SLACK:
            raise LedgerError(f"the clock is behind the ledger's newest record of {newest}; set it")


def _check_owner(records: list[Record], owner: Identity, path: Path) -> None:
    """Check that `owner` may write on, and that the newest signature, which covers all, is good."""
    keys = [r["key"] for r in (x.parsed() for x in records) if "key" in r]
    if not keys or keys[-1] != owner.public.text():
        raise LedgerError(f"{path} belongs to another key; use the one that wrote it")
    last = records[-1]
    signer = PublicKey.from_text(keys[-2 if last.parsed()["type"] == "KEYROT" else -1])
    if not signer.verifies(last.signature, DOMAIN + last.digest):
        raise LedgerError(f"{path} was not signed by its owner's key")


def has_tables(db: sqlite3.Connection) -> bool:
    """Return whether a chain was begun in this file."""
    return bool(db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])


def is_begun(path: Path) -> bool:
    """Return whether the file holds a chain; one left half-made by a crash holds none."""
    if not path.is_file() or not path.stat().st_size:
        return False
    db = _connect(path)
    try:
        return has_tables(db)
    except sqlite3.DatabaseError as error:
        raise LedgerError(f"{path} cannot be read as a ledger: {error}") from error
    finally:
        db.close()


def _read(db: sqlite3.Connection, path: Path, since: int = 0) -> Iterator[Record]:
    query = "SELECT seq, prev, body, hash, sig FROM records WHERE seq > ? ORDER BY seq"
    try:
        rows = db.execute(query, (since,)).fetchall()
    except sqlite3.DatabaseError as error:
        raise LedgerError(f"{path} cannot be read as a ledger: {error}") from error
    for number, (seq, prev, body, digest, signature) in enumerate(rows, start=since + 1):
        if seq != number:
            raise LedgerError(f"{path} is damaged at record {number}; restore it, do not edit")
        yield Record(prev=prev, body=body, digest=digest, signature=signature)
    if not rows and not since:
        raise LedgerError(f"{path} holds no records")


def _made(seq: int, prev: bytes, body: Mapping[str, Any], owner: Identity) -> Record:
    stamp = datetime.now(UTC).isoformat(timespec="seconds")
    text = canonical_json({**body, "seq": seq + 1, "ts": stamp})
    digest = link(prev, text)
    return Record(prev=prev, body=text, digest=digest, signature=owner.sign(DOMAIN + digest))


def _insert(db: sqlite3.Connection, record: Record) -> Record:
    db.execute(
        "INSERT INTO records VALUES (?, ?, ?, ?, ?)",
        (record.parsed()["seq"], record.prev, record.body, record.digest, record.signature),
    )
    return record


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
            with suppress(sqlite3.Error):  # of a disk that is gone: the file is as it was
                db.execute("ROLLBACK")


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made durable: {error}") from error
    finally:
        os.close(handle)
