"""`fondaco-server start`: SuperLink and SuperExec, kept going until somebody stops them.

Their state is in `superlink.db`, and a ServerApp outlives both of them, so a run goes on after a
crash. Neither outlives this process. Certificates and secret may be changed meanwhile: both are
started anew, and a certificate that ends soon is renewed.
"""

import fcntl
import http.client
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

from fondaco.shared import logs
from fondaco.shared.address import split_address
from fondaco.shared.errors import ConfigError
from fondaco.shared.supervisor import dies_with_us
from fondaco.shared.tls_check import explain_exit

from .home import ServerHome
from .nodes import enrol, pending, program
from .tls import RENEW_DAYS

SUPERLINK, SUPEREXEC = "flower-superlink", "flower-superexec"
READY_S = 120.0
STOP_S, LAST_WORDS_S = 15.0, 5.0
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
STEADY_S = 60.0
"""A program that ran for so long starts at once when it ends."""
MAX_LOG = 20 * 2**20
_TICK_S = 0.25
_CARE_S = 10.0
_TAIL = 4096


@contextmanager
def only_one(home: ServerHome) -> Iterator[None]:
    """Hold a home's lock.

    Raises:
        ConfigError: another process holds it.
    """
    with home.lock.open("a+", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            pid = lock.read(20).strip()
            raise ConfigError(
                f"{home.folder} is running already (process {pid}); stop that one first"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def is_running(home: ServerHome) -> bool:
    """Return whether a process keeps this home's services going."""
    try:
        with home.lock.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def serve(home: ServerHome, ready: Callable[[], None]) -> None:
    """Keep SuperLink and SuperExec going until SIGTERM or SIGINT.

    Args:
        home: whose.
        ready: called once, when silos may connect.

    Raises:
        ConfigError: it runs already, its port is taken, or a file of it is not as it should be.
    """
    with only_one(home):
        os.umask(0o077)
        home.refresh()
        renew_in_time(home)
        home.tls.check(home.settings.hosts)
        _check_port(home)
        supervisor = _Supervisor(home)
        try:
            supervisor.begin()
            home.audit.write("start", address=home.settings.local)
            logs.event("coordinator.started", address=home.settings.local)
            ready()
            while True:
                supervisor.look_after()
                time.sleep(_TICK_S)
        finally:
            supervisor.stop()
            logs.event("coordinator.stopped")


def renew_in_time(home: ServerHome) -> bool:
    """Renew a certificate that ends within RENEW_DAYS; return whether it did.

    Raises:
        ConfigError: the authority's files are not as they should be.
    """
    if home.tls.expires() - datetime.now(UTC) > timedelta(days=RENEW_DAYS):
        return False
    home.tls.renew(home.settings.hosts)
    home.audit.write("rotate", what="certificate")
    return True


@dataclass
class _Program:
    """One of Flower's programs.

    Attributes:
        failures: how often in a row it ended soon after its start.
        due: when to start it again [s, monotonic].
        groups: of processes that may still have members.
    """

    name: str
    command: Sequence[str | Path]
    environment: dict[str, str]
    log: Path
    process: "subprocess.Popen[bytes] | None" = None
    failures: int = 0
    started: float = 0.0
    due: float = 0.0
    groups: list[int] = field(default_factory=list)

    def start(self, folder: Path) -> None:
        with _appended(self.log) as log:
            self.process = subprocess.Popen(  # noqa: S603  (Flower's program, our own words)
                [*dies_with_us(), *self.command],
                cwd=folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.started = time.monotonic()
        self.groups.append(self.process.pid)

    def ended(self) -> int | None:
        """Return its exit code if it ran and has ended."""
        return None if self.process is None else self.process.poll()

    def plan_restart(self) -> float:
        """Forget the ended process; return after how long it starts again [s]."""
        steady = time.monotonic() - self.started > STEADY_S
        self.failures = 1 if steady else self.failures + 1
        wait = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** (self.failures - 1))
        self.process, self.due = None, time.monotonic() + wait
        return wait

    def stop(self) -> None:
        """End the program, but not what it started."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def stop_group(self) -> None:
        """End the program and all that it started."""
        self._signal(signal.SIGTERM)
        self.stop()
        until = time.monotonic() + LAST_WORDS_S
        while time.monotonic() < until and self._signal(0):
            time.sleep(_TICK_S)
        self._signal(signal.SIGKILL)
        self.groups.clear()

    def _signal(self, number: int) -> bool:
        """Send a signal to all that it started; return whether anything is left of it."""
        left = []
        for group in self.groups:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)
                left.append(group)
        self.groups = left
        return bool(left)

    def tail(self) -> str:
        """Return the last lines of its log."""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - _TAIL))
            return log.read().decode(errors="replace")


class _Supervisor:
    """SuperLink and SuperExec of one home."""

    def __init__(self, home: ServerHome) -> None:
        self._home = home
        self._superlink, self._superexec = _superlink(home), _superexec(home)
        self._programs = (self._superlink, self._superexec)
        self._stamp = _stamp(home)
        self._cared = time.monotonic()
        self._tried: frozenset[tuple[str, str]] = frozenset()

    def begin(self) -> None:
        """Start both; return when the SuperLink answers."""
        self._superlink.start(self._home.folder)
        _wait_for(self._home, self._superlink)
        self._superexec.start(self._home.folder)

    def look_after(self) -> None:
        """Start again what ended, and all if a key or certificate changed."""
        if time.monotonic() - self._cared > _CARE_S:
            self._cared = time.monotonic()
            renew_in_time(self._home)
            self._enrol()
            for each in self._programs:
                _cut_log(each.log)
        stamp = _stamp(self._home)
        if stamp != self._stamp:
            self._stamp = stamp
            for each in self._programs:
                each.stop()
                each.due = 0.0
        for each in self._programs:
            self._revive(each)

    def stop(self) -> None:
        """End both, and the ServerApp."""
        for each in reversed(self._programs):
            each.stop_group()

    def _enrol(self) -> None:
        """Let in whoever was registered from another host or container, once per key."""
        with suppress(ConfigError):  # `register` said it already; the SuperLink may be away
            waiting = pending(self._home)
            if waiting - self._tried:
                enrol(self._home)
            self._tried = waiting

    def _revive(self, each: _Program) -> None:
        code = each.ended()
        if code is not None:
            how = {"signal": -code} if code < 0 else {"exit_code": code}
            logs.event("coordinator.ended", program=each.name, **how)
            wait = each.plan_restart()
            logs.event("coordinator.waits", program=each.name, seconds=wait)
        if each.process is None and time.monotonic() >= each.due:
            each.start(self._home.folder)


def _superlink(home: ServerHome) -> _Program:
    command: list[str | Path] = [
        program(SUPERLINK),
        *("--ssl-ca-certfile", home.tls.ca),
        *("--ssl-certfile", home.tls.certificate),
        *("--ssl-keyfile", home.tls.key),
        *("--host", home.settings.host),
        *("--port", str(home.settings.port)),
        *("--database", home.database),
        *("--isolation", "process"),
        *("--superexec-auth-secret-file", home.secret),
        "--enable-supernode-auth",
        "--disable-runtime-dependency-installation",
    ]
    log = home.logs / "superlink.log"
    return _Program(name=SUPERLINK, command=command, environment=home.environment(), log=log)


def _superexec(home: ServerHome) -> _Program:
    """Return SuperExec, which finds our own launchers and none of Flower's."""
    command: list[str | Path] = [
        program(SUPEREXEC),
        *("--root-certificates", home.tls.ca),
        *("--runtime-api-address", home.settings.local),
        *("--superexec-auth-secret-file", home.secret),
    ]
    environment = {**home.environment(), "PATH": f"{home.bin}:/usr/bin:/bin"}
    log = home.logs / "superexec.log"
    return _Program(name=SUPEREXEC, command=command, environment=environment, log=log)


def _wait_for(home: ServerHome, superlink: _Program) -> None:
    until = time.monotonic() + READY_S
    while not answers(home):
        code = superlink.ended()
        if code is not None:
            why = explain_exit(code, superlink.tail())
            raise ConfigError(f"the SuperLink ended: {why} ({superlink.log})")
        if time.monotonic() > until:
            raise ConfigError(f"the SuperLink is silent after {READY_S:.0f} s; see {superlink.log}")
        time.sleep(_TICK_S)


def answers(home: ServerHome) -> bool:
    """Return whether the SuperLink says over TLS, by our own authority, that it is well."""
    host, port = split_address(home.settings.local)
    context = ssl.create_default_context(cafile=str(home.tls.ca))
    connection = http.client.HTTPSConnection(host, port, timeout=5, context=context)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _check_port(home: ServerHome) -> None:
    """Refuse a port that somebody else has, whom we would take for our own SuperLink."""
    host, port = home.settings.host, home.settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise ConfigError(
            f"cannot listen at {host}:{port} ({error.strerror}); stop whatever does, or change "
            f"host and port in {home.folder / 'server.toml'}"
        ) from None


def _stamp(home: ServerHome) -> tuple[int, ...]:
    """Return when what both programs read at their start was changed [ns]."""
    paths = home.tls.ca, home.tls.key, home.tls.certificate, home.secret
    return tuple(path.stat().st_mtime_ns for path in paths)


def _appended(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def _cut_log(path: Path) -> None:
    """Keep a long log once under another name, and go on in the same file."""
    if path.is_file() and path.stat().st_size > MAX_LOG:
        shutil.copyfile(path, path.with_suffix(".log.1"))
        os.truncate(path, 0)
