"""One agent at a time for an owner's folder, and what it notes of its coordinator's calls.

The note (`contact.json`) is for `fondaco-client status` alone: numbers of messages and of bytes,
which the plan fixes, and times. What was promised and spent stands in the ledger.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from fondaco.shared import logs
from fondaco.shared.codec import Parts
from fondaco.shared.config import build
from fondaco.shared.errors import ConfigError
from fondaco.shared.workspace import write_whole

CONTACT, LOCK = "contact.json", "agent.lock"
PATIENCE_S = 2.0
"""`status` looks at the lock for a moment; an agent that starts then waits this long [s]."""

Answer = Callable[[str, Parts], Parts]
"""(action, what came) -> what is answered."""


@dataclass(frozen=True, kw_only=True)
class Calls:
    """Messages of one kind.

    Attributes:
        received: from the coordinator [bytes].
        sent: to it [bytes].
        last: ISO, UTC.
    """

    action: str
    answered: int = 0
    refused: int = 0
    received: int = 0
    sent: int = 0
    last: str = ""


@dataclass(frozen=True, kw_only=True)
class Contact:
    """What an agent noted.

    Attributes:
        started: when the agent was last started (ISO, UTC).
        calls: by action, since the folder was made.
    """

    started: str = ""
    calls: tuple[Calls, ...] = ()

    @property
    def last(self) -> str:
        """When the coordinator last called, "" if it never did."""
        return max((calls.last for calls in self.calls), default="")


class Duty:
    """An agent's claim on an owner's folder; notes every call."""

    def __init__(self, home: Path) -> None:
        self._path = home / CONTACT
        self._calls = {calls.action: calls for calls in _known(home)}
        self._started = _now()
        self._write()

    def watched(self, answer: Answer) -> Answer:
        """Return `answer`, with every call noted and logged."""

        def watch(action: str, parts: Parts) -> Parts:
            start, received = time.perf_counter(), sum(map(len, parts))
            try:
                said = answer(action, parts)
            except Exception as error:
                self._note(action, refused=1, received=received)
                logs.failed(error, "agent.refused", action=action)
                raise
            sent, seconds = sum(map(len, said)), round(time.perf_counter() - start, 3)
            self._note(action, answered=1, received=received, sent=sent)
            logs.event(
                "agent.answered", action=action, received=received, sent=sent, seconds=seconds
            )
            return said

        return watch

    def _note(self, action: str, **more: int) -> None:
        calls = self._calls.get(action, Calls(action=action))
        sums = {name: getattr(calls, name) + value for name, value in more.items()}
        self._calls[action] = replace(calls, last=_now(), **sums)
        self._write()

    def _write(self) -> None:
        contact = Contact(started=self._started, calls=tuple(self._calls.values()))
        with suppress(OSError):  # a full disk stops no answer that is paid for
            write_whole(self._path, json.dumps(asdict(contact)))


@contextmanager
def on_duty(home: Path) -> Iterator[Duty]:
    """Hold an owner's folder for one agent.

    Raises:
        ConfigError: another agent holds it.
    """
    handle = os.open(home / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(handle, home)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield Duty(home)
    finally:
        os.close(handle)


def agent_pid(home: Path) -> int | None:
    """Return the process of the agent that holds an owner's folder, None if none runs.

    In a container the number may be that of another namespace.
    """
    try:
        handle = os.open(home / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.pread(handle, 20, 0) or b"0")
    finally:
        os.close(handle)
    return None


def read_contact(home: Path) -> Contact:
    """Return what the agent noted; nothing if none ever ran.

    Raises:
        ConfigError: the note is damaged.
    """
    path = home / CONTACT
    if not path.is_file():
        return Contact()
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is damaged: {error}") from error
    if not isinstance(body, dict):
        raise ConfigError(f"{path} is damaged: it holds no table")
    return build(Contact, body, f"{path.name}: ")


def _known(home: Path) -> tuple[Calls, ...]:
    try:
        return read_contact(home).calls
    except ConfigError:
        return ()  # a damaged note is begun anew


def _lock(handle: int, home: Path) -> None:
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise ConfigError(f"another agent runs for {home}; stop it first") from None
            time.sleep(0.05)
        else:
            return


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
