"""Files -> records, notes, plans and test results; nothing is believed yet, nothing is changed.

A file that cannot be read is an error in one line; one that can be read but is spelled in
another way than its writer would is a record with an `odd` note, for the rules to report.
"""

import json
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ConfigError, LedgerError
from ..plan_text import from_toml
from .formats import ZEROS, Note, canonical, is_plain, read_note, strangers, unbase64, unreadable

LEDGERS = (".jsonl", ".db")
NOTES = (".note", ".notes")
PLANS = (".toml", ".json")
_SQLITE = b"SQLite format 3\x00"
_COLUMNS = ("seq", "prev", "body", "hash", "sig")
_HEX = re.compile(r"[0-9a-f]{64}")
_BODY_AT = len('{"body":')
_TAIL = len(f',"hash":"{"0" * 64}","prev":"{"0" * 64}","sig":"{"A" * 88}"}}')
_COPIES = 3
MAX_LINE = 2**26
"""Longest record that is read [bytes]; a plan of twenty thousand releases has 4 MB."""

_VERDICTS: Mapping[str, tuple[str, tuple[object, ...]]] = {
    "checks": ("passed", (True, False)),
    "results": ("verdict", ("below claim", "above claim", "outside the claim", "measured")),
}


class Record(NamedTuple):
    """One record as written.

    Attributes:
        place: its line, or its number in the data base.
        prev: hash it says the record before has.
        text: canonical body, the bytes that are hashed.
        body: the same, parsed.
        hash: the hash it says it has.
        signature: 64 bytes.
        odd: what is wrong with its spelling, "" if nothing.
    """

    place: int
    prev: bytes
    text: bytes
    body: dict[str, Any]
    hash: bytes
    signature: bytes
    odd: str


def is_ledger(path: Path) -> bool:
    """Return whether a file is a ledger by its name, or by its first bytes."""
    if path.suffix in LEDGERS:
        return True
    return path.suffix not in PLANS and _is_sqlite(path)


def count_records(path: Path) -> int:
    """Return about how many records a ledger has, for a progress bar."""
    if not _is_sqlite(path):
        with path.open("rb") as file:
            return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    with _database(path) as db:
        _check_table(db, path)
        return int(_query(db, path, "SELECT count(*) FROM records").fetchone()[0])


def read_ledger(path: Path, torn: list[int] | None = None) -> Iterator[Record]:
    """Yield the records of an export (`.jsonl`) or of a ledger's own file (`.db`).

    Args:
        path: the file.
        torn: of a copy; takes the number of an unreadable last line that has no end.

    Raises:
        LedgerError: there is no such file, it is empty, or a record of it cannot be read.
    """
    if not path.is_file():
        raise LedgerError(f"{path} is no file; expected a ledger (.jsonl or .db)")
    empty = True
    for record in _read_database(path) if _is_sqlite(path) else _read_lines(path, torn):
        empty = False
        yield record
    if empty:
        raise LedgerError(f"{path} holds no records")


def _is_sqlite(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE


def _read_lines(path: Path, torn: list[int] | None) -> Iterator[Record]:
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE + 1), b""), start=1):
            try:
                if len(line) > MAX_LINE:
                    raise ValueError(f"it is longer than {MAX_LINE:,} bytes")
                yield _parse_line(number, line.removesuffix(b"\n").decode())
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                if torn is not None and not line.endswith(b"\n") and len(line) <= MAX_LINE:
                    torn.append(number)
                    return
                raise unreadable(path, f"line {number}", error or "nested too deeply") from None


def _parse_line(number: int, line: str) -> Record:
    whole = json.loads(line)
    if not isinstance(whole, dict) or set(whole) != {"body", "hash", "prev", "sig"}:
        raise ValueError("expected body, hash, prev and sig")
    signature = unbase64(whole["sig"], 64)
    prev, digest = (_unhex(whole[name]) for name in ("prev", "hash"))
    text = canonical(whole)
    body = _object(whole["body"])
    odd = "" if text == line else "it is not written as canonical JSON"
    text = text[_BODY_AT:-_TAIL]
    return Record(number, prev, text.encode(), body, digest, signature, odd or _odd(body))


def _unhex(text: object) -> bytes:
    if not isinstance(text, str) or _HEX.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no hash of 64 small hex digits")
    return bytes.fromhex(text)


def _object(body: object) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise ValueError("the body of a record must be an object")
    return body


def _odd(body: dict[str, Any]) -> str:
    return "" if is_plain(body) else next(strangers(body), "")


def _read_database(path: Path) -> Iterator[Record]:
    with _database(path) as db:
        _check_table(db, path)
        query = f"SELECT {', '.join(_COLUMNS)} FROM records ORDER BY seq"  # noqa: S608 (constants)
        rows = _query(db, path, query)
        number = 0
        while True:
            try:
                row = rows.fetchone()
                if row is None:
                    return
                number = int(row[0])
                yield _parse_row(*row)
            except (sqlite3.Error, ValueError, TypeError, RecursionError) as error:
                raise unreadable(path, f"the record after {number - 1}", error) from None


def _parse_row(number: int, prev: bytes, text: str, digest: bytes, signature: bytes) -> Record:
    sizes = [len(blob) if isinstance(blob, bytes) else -1 for blob in (prev, digest, signature)]
    if sizes != [len(ZEROS), len(ZEROS), 2 * len(ZEROS)]:
        raise ValueError("a hash or signature has another length")
    body = _object(json.loads(text))
    plain = canonical(body)
    odd = "" if plain == text else "its body is not written as canonical JSON"
    return Record(number, prev, plain.encode(), body, digest, signature, odd or _odd(body))


def _check_table(db: sqlite3.Connection, path: Path) -> None:
    """Refuse what computes records instead of holding them: it could do so for ever."""
    found = _query(db, path, "SELECT type, sql FROM sqlite_master WHERE name = 'records'")
    made = _query(db, path, "SELECT count(*) FROM pragma_table_xinfo('records') WHERE hidden")
    plain = [kind == "table" and str(sql)[:12].upper() == "CREATE TABLE" for kind, sql in found]
    if plain != [True] or made.fetchone() != (0,):
        raise LedgerError(f"{path} cannot be read as a ledger: it has no plain table records")


def _query(db: sqlite3.Connection, path: Path, query: str) -> sqlite3.Cursor:
    try:
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_LINE)
        return db.execute(query)
    except sqlite3.Error as error:
        raise LedgerError(f"{path} cannot be read as a ledger: {error}") from None


@contextmanager
def _database(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a data base without touching it: what lies in its write-ahead log counts as well.

    SQLite cannot read such a log without writing beside it, so both are copied first.
    """
    log = Path(f"{path}-wal")
    if not log.is_file() or not log.stat().st_size:
        with closing(_connect(path, "mode=ro&immutable=1")) as db:
            yield db
        return
    with tempfile.TemporaryDirectory(prefix="fondaco-audit-") as folder:
        copy = Path(folder) / "copy.db"
        _copy_quietly(path, log, copy)
        with closing(_connect(copy, "mode=rw")) as db:
            yield db


def _connect(path: Path, how: str) -> sqlite3.Connection:
    try:
        return sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True)
    except sqlite3.Error as error:
        raise LedgerError(f"{path} cannot be opened as a ledger: {error}") from None


def _copy_quietly(path: Path, log: Path, copy: Path) -> None:
    """Copy a data base and its log as they stood at one moment."""
    for _ in range(_COPIES):
        before = _stamps(path, log)
        shutil.copyfile(path, copy)
        if log.is_file():
            shutil.copyfile(log, f"{copy}-wal")
        if _stamps(path, log) == before:
            return
    raise LedgerError(f"{path} is being written to; stop its agent, or export it and check that")


def _stamps(*paths: Path) -> list[tuple[int, int]]:
    return [(p.stat().st_mtime_ns, p.stat().st_size) if p.is_file() else (0, 0) for p in paths]


def witness_files(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    """Return the files of notes and the copies of ledgers among files and folders.

    Raises:
        LedgerError: a path does not exist, or a folder holds neither.
    """
    notes: list[Path] = []
    copies: list[Path] = []
    for path in paths:
        if not path.exists():
            raise LedgerError(f"{path} does not exist; expected notes, or a folder of them")
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        if path.is_dir():
            files = [file for file in files if file.suffix in (*NOTES, *LEDGERS)]
        if not files:
            raise LedgerError(f"{path} holds neither notes (.note, .notes) nor ledgers (.jsonl)")
        copies += [file for file in files if is_ledger(file)]
        notes += [file for file in files if not is_ledger(file)]
    return notes, copies


def read_notes(path: Path) -> list[Note]:
    """Return the notes that stand one after another in a file.

    Raises:
        LedgerError: something in it is no note.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if not text.endswith("\n"):
            text += "\n"
        starts = [m.start() for m in re.finditer(r"^fondaco", text, re.MULTILINE)]
        if not starts or text[: starts[0]].strip():
            raise ValueError("expected an origin such as fondaco/shop first")
        ends = [*starts[1:], len(text)]
        parts = [text[a:b].rstrip("\n") for a, b in zip(starts, ends, strict=True)]
        return [read_note(f"{part}\n") for part in parts]
    except ValueError as error:
        raise LedgerError(f"{path} cannot be read as signed notes: {error}") from None


def read_plan_text(path: Path) -> str:
    """Return the canonical text of a plan in `.toml` or in JSON.

    Raises:
        LedgerError: there is no such file, or it holds no plan.
    """
    if not path.is_file():
        raise LedgerError(f"{path} is no file; expected a plan (.toml or .json)")
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".toml":
            return from_toml(text).to_json()
        whole = _object(json.loads(text))
        stranger = next(strangers(whole), "")
        if stranger:
            raise ValueError(stranger)
        return canonical(whole)
    except (ValueError, RecursionError, ConfigError) as error:
        raise LedgerError(f"{path} cannot be read as a plan: {error}") from None


def read_results(path: Path, kind: str, key: str) -> dict[str, Any]:
    """Return a result file of `kind` ("attacks", "conformance") with a list of objects at `key`.

    Raises:
        LedgerError: there is no such file, or it holds something else.
    """
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
        items = whole[key]
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise TypeError
        name, known = _VERDICTS[key]
        if whole.get("kind", kind) != kind or not items:
            raise TypeError
        if not all(item.get(name) in known for item in items):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError, RecursionError, AttributeError):
        expected = f"JSON with a list {key!r}, each with a known {_VERDICTS[key][0]!r}"
        raise LedgerError(f"{path} holds no {kind}; expected {expected}") from None
    return dict(whole)
