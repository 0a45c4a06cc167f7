"""Who did what: one line of JSON per command that changed something, each naming the one before.

What this holds and what it does not: a line that was changed, removed or put in is found by
`verify`. Whoever may write the file can cut lines off its end, or write all of it anew: keep a
head (`Trail.head`) elsewhere to notice that.
"""

import fcntl
import hashlib
import json
import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .errors import ConfigError, DataError
from .fields import Fields, Value, misfits

_PLAN: Fields = {"plan": "digest"}
_SILO: Fields = {"silo_id": "silo"}

ACTIONS: Mapping[str, Fields] = {
    "init": {**_SILO, "kit": "digest", "coordinator": "digest", "address": "address"},
    "invite": {**_SILO, **_PLAN, "kit": "digest"},
    "register": {**_SILO, "key": "digest", "node_key": "digest"},
    "shut-out": _SILO,
    "start": {"address": "address"},
    "stop": {},
    "run": {**_PLAN, "task": "word", "outcome": "word"},
    "rotate": {**_SILO, "what": "word", "key": "digest"},
    "policy": {
        "epsilon_per_year": "decimal",
        "epsilon_if_masking_broke": "decimal",
        "target_delta": "decimal",
        "pinned": "count",
    },
    "approve": _PLAN,
    "load": {"source": "word", "outcome": "word"},
    "recommend": {"count": "count"},
    "erase": {},
    "leave": _PLAN,
    "restore": {},
}
"""Action -> the fields it may have. No customer, no item, no path, no free text."""

FIRST = "0" * 64
"""What the first line names as the one before it."""
_ALWAYS = ("time", "user", "action", "prev")
_TAIL = 8192


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line.

    Attributes:
        num: of the line, from 1.
        time: ISO, UTC.
        user: of the operating system.
        prev: SHA-256 of the line before.
    """

    num: int
    time: str
    user: str
    action: str
    fields: Mapping[str, Value]
    prev: str


@dataclass(frozen=True, kw_only=True)
class Trail:
    """What a log says, and what is wrong with it.

    Attributes:
        findings: in words; none if every line is whole and names the one before.
        head: SHA-256 of the last line.
    """

    entries: tuple[Entry, ...]
    findings: tuple[str, ...]
    head: str


class AuditLog:
    """Appends to the log at `path`; several processes may at once."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, action: str, **fields: Value) -> None:
        """Append one line; it is on disk once this returns.

        A last line that was cut off (power, full disk) stays as it is, for `verify` to report.

        Raises:
            ConfigError: the action, or one of its fields, is not in ACTIONS.
            OSError: the file cannot be written.
        """
        wrong = misfits(ACTIONS[action], fields) if action in ACTIONS else [action]
        if wrong:
            raise ConfigError(f"the audit log has no place for {', '.join(wrong)}")
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        handle = os.open(self._path, flags, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            last, whole = _last_line(handle)
            body = {"time": _now(), "user": _user(), "action": action, **fields}
            line = _text({**body, "prev": FIRST if last is None else _digest(last)})
            _write_all(handle, (b"" if whole else b"\n") + line + b"\n")
            os.fsync(handle)
        finally:
            os.close(handle)


def verify(path: Path) -> Trail:
    """Return what the log at `path` says, and whether its lines follow upon each other.

    Raises:
        DataError: there is no log.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist: nothing was done here yet, or it was removed")
    entries, findings, before = [], [], FIRST
    lines = path.read_bytes().split(b"\n")
    for num, line in enumerate(lines[:-1] if not lines[-1] else lines, start=1):
        entry = _read(num, line)
        if entry is None:
            findings.append(f"line {num} was cut off, or is none of this log's")
        else:
            entries.append(entry)
            if entry.prev != before:
                findings.append(f"line {num} follows upon another line than the one before it")
        before = _digest(line)
    return Trail(entries=tuple(entries), findings=tuple(findings), head=before)


def _read(num: int, line: bytes) -> Entry | None:
    try:
        body: Any = json.loads(line)
        time, user, action, prev = (body.pop(name) for name in _ALWAYS)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if not all(isinstance(text, str) and text.isprintable() for text in (time, user, action, prev)):
        return None
    try:
        datetime.fromisoformat(time)
    except ValueError:
        return None
    if action not in ACTIONS or misfits(ACTIONS[action], body):
        return None
    return Entry(num=num, time=time, user=user, action=action, fields=body, prev=prev)


def _last_line(handle: int) -> tuple[bytes | None, bool]:
    """Return the last line without its end, None if there is none, and whether it has an end."""
    size, reach = os.fstat(handle).st_size, _TAIL
    if not size:
        return None, True
    while True:
        start = max(0, size - reach)
        tail = os.pread(handle, size - start, start)
        body = tail[:-1] if tail.endswith(b"\n") else tail
        if b"\n" in body or not start:
            return body.rpartition(b"\n")[2], body != tail
        reach *= 2


def _write_all(handle: int, blob: bytes) -> None:
    while blob:
        blob = blob[os.write(handle, blob) :]


def _text(body: Mapping[str, Value]) -> bytes:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _user() -> str:
    """Return who runs this process, by name where the system knows one."""
    uid = os.getuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
