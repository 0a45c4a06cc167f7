"""`fondaco-server start`: SuperLink and SuperExec, kept going until somebody stops them.

Their state is in `superlink.db`, and a ServerApp outlives both of them, so a run goes on after a
crash. Neither outlives this process. Certificates and secret may be changed meanwhile: both are
started anew, and a certificate that ends soon is renewed.
"""

import http.client
import os
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fondaco.shared import logs
from fondaco.shared.address import split_address
from fondaco.shared.errors import ConfigError
from fondaco.shared.files import is_locked, takes_lock
from fondaco.shared.supervisor import Program, Supervisor

from .home import ServerHome
from .nodes import enrol, pending, program
from .tls import RENEW_DAYS

SUPERLINK, SUPEREXEC = "flower-superlink", "flower-superexec"
MAX_LOG = 20 * 2**20
_CARE_S = 10.0


@contextmanager
def only_one(home: ServerHome) -> Iterator[None]:
    """Hold a home's lock.

    Raises:
        ConfigError: another process holds it.
    """
    with home.lock.open("a+", encoding="ascii") as lock:
        if not takes_lock(lock):
            lock.seek(0)
            pid = lock.read(20).strip()
            raise ConfigError(
                f"{home.folder} is running already (process {pid}); stop that one first"
            )
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def is_running(home: ServerHome) -> bool:
    """Return whether a process keeps this home's services going."""
    return is_locked(home.lock)


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
        programs = superlink_program(home), superexec_program(home)

        def begun() -> None:
            home.audit.write("start", address=home.settings.local)
            logs.event("coordinator.started", address=home.settings.local)
            ready()

        try:
            Supervisor(programs, _tell, _Care(home)).run(begun)
        finally:
            logs.event("coordinator.stopped")
        home.audit.write("stop")


def renew_in_time(home: ServerHome) -> bool:
    """Renew a certificate that ends within RENEW_DAYS; return whether it did.

    Raises:
        ConfigError: the authority's files are not as they should be.
    """
    if home.tls.expires() - datetime.now(UTC) > timedelta(days=RENEW_DAYS):
        return False
    home.tls.renew(home.settings.hosts)
    home.audit.write("rotate", what="certificate")
    logs.event("coordinator.renewed")  # a proxy must be told
    return True


class _Care:
    """What a home needs while its programs run; called at every look of their supervisor."""

    def __init__(self, home: ServerHome) -> None:
        self._home = home
        self._stamp = _stamp(home)
        self._cared = time.monotonic()
        self._tried: frozenset[tuple[str, str]] = frozenset()
        self._failing: set[str] = set()

    def __call__(self) -> bool:
        """Return whether a key or certificate changed, so that all programs start anew."""
        if time.monotonic() - self._cared > _CARE_S:
            self._cared = time.monotonic()
            self._try("renew", lambda: renew_in_time(self._home))
            self._try("enrol", self._enrol)
            self._try("cut", lambda: _cut_logs(self._home.logs))
        before, self._stamp = self._stamp, _stamp(self._home)
        return self._stamp != before

    def _try(self, what: str, task: Callable[[], object]) -> None:
        """Do it; what fails is told once and tried again, and ends no run."""
        try:
            task()
            self._failing.discard(what)
        except (ConfigError, OSError) as error:
            if what not in self._failing:
                logs.failed(error)
            self._failing.add(what)

    def _enrol(self) -> None:
        """Let in whoever was registered from another host or container, once per key."""
        with suppress(ConfigError):  # `register` said it already; the SuperLink may be away
            waiting = pending(self._home)
            if waiting - self._tried:
                enrol(self._home)
            self._tried = waiting


def _tell(what: str, name: str, number: int) -> None:
    if what == "ended":
        how = {"signal": -number} if number < 0 else {"exit_code": number}
        logs.event("coordinator.ended", program=name, **how)


def superlink_program(home: ServerHome) -> Program:
    """Return Flower's SuperLink."""
    command = [
        program(SUPERLINK),
        *("--ssl-ca-certfile", home.tls.ca),
        *("--ssl-certfile", home.tls.certificate),
        *("--ssl-keyfile", home.tls.key),
        *("--host", home.settings.host),
        *("--port", home.settings.port),
        *("--database", home.database),
        *("--isolation", "process"),
        *("--superexec-auth-secret-file", home.secret),
        "--enable-supernode-auth",
        "--disable-runtime-dependency-installation",
    ]
    return Program(
        name=SUPERLINK,
        command=[*map(str, command)],
        environment=home.environment(),
        folder=home.folder,
        log=home.logs / "superlink.log",
        healthy=lambda: answers(home),
    )


def superexec_program(home: ServerHome) -> Program:
    """Return SuperExec, which finds our own launchers and none of Flower's."""
    command = [
        program(SUPEREXEC),
        *("--root-certificates", home.tls.ca),
        *("--runtime-api-address", home.settings.local),
        *("--superexec-auth-secret-file", home.secret),
    ]
    return Program(
        name=SUPEREXEC,
        command=[*map(str, command)],
        environment={**home.environment(), "PATH": f"{home.bin}:/usr/bin:/bin"},
        folder=home.folder,
        log=home.logs / "superexec.log",
        outlived=True,
    )


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


def _cut_logs(folder: Path) -> None:
    """Keep a long log once under another name if there is room, and go on in the same file."""
    for path in folder.glob("*.log"):
        if path.stat().st_size > MAX_LOG:
            try:
                shutil.copyfile(path, path.with_suffix(".log.1"))
            finally:
                os.truncate(path, 0)
