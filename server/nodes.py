"""Registrations of silos -> nodes that the SuperLink lets in, kept the same as each other.

`silos/` says which silo speaks with which keys; `nodes.json` which node of the SuperLink that is.
A SuperLink takes no node key twice: one that was removed is lost, and its silo makes another.
"""

import fcntl
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fondaco.shared.chain.keys import PublicKey
from fondaco.shared.errors import ConfigError
from fondaco.shared.files import write_durably
from fondaco.shared.kit import MAX_REGISTRATION, Registration

from .home import CONNECTION, ServerHome

_KEY_IN_USE = "[code: 23]"
_GONE = "unregistered"
_TIMEOUT_S = 60


@dataclass(frozen=True, kw_only=True)
class Node:
    """A silo at the SuperLink.

    Attributes:
        node_key: OpenSSH public text.
        node_id: Flower's, as decimal text; "" while it is being registered.
    """

    node_key: str
    node_id: str


@dataclass(frozen=True, kw_only=True)
class Enrolment:
    """What `enrol` changed.

    Attributes:
        let_in: ids of silos that may connect from now on.
        shut_out: ids of silos that may not any more, or not with the key before.
        refused: in words, whom the SuperLink does not let in, and what to do.
    """

    let_in: tuple[str, ...] = ()
    shut_out: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


def program(name: str) -> Path:
    """Return a program of Flower's that was installed with this Python.

    Raises:
        ConfigError: it is not there.
    """
    path = Path(sys.executable).with_name(name)
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; install fondaco with its dependencies again")
    return path


def flwr(home: ServerHome, *arguments: str) -> Mapping[str, Any]:
    """Return what `flwr ... --format json` answers, its refusals included (`success` is false).

    Raises:
        ConfigError: it did not answer.
    """
    try:
        done = subprocess.run(  # noqa: S603  (Flower's program, our own words)
            [program("flwr"), *arguments, "--format", "json"],
            cwd=home.folder,
            env=home.environment(),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        said = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        said = None
    if not isinstance(said, dict):
        raise ConfigError(_unreachable(home))
    return said


def said_yes(home: ServerHome, *arguments: str) -> Mapping[str, Any]:
    """Return what `flwr` answers to what it may not refuse.

    Raises:
        ConfigError: it did not answer, or refused.
    """
    said = flwr(home, *arguments)
    if not said.get("success"):
        raise ConfigError(f"{_unreachable(home)} ({_why(said)})")
    return said


def registrations(home: ServerHome) -> dict[str, Registration]:
    """Return every silo's registration, sorted by silo.

    Raises:
        ConfigError: naming the file that is damaged.
    """
    found = {}
    for path in sorted(home.silos.glob("*.json")):
        registration = read_registration(path)
        found[registration.silo_id] = registration
    return dict(sorted(found.items()))


def read_registration(path: Path) -> Registration:
    """Return the registration in a file.

    Raises:
        ConfigError: naming the file, it is missing or no whole registration.
    """
    try:
        with path.open("rb") as file:
            return Registration.from_bytes(file.read(MAX_REGISTRATION + 1))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def keep(home: ServerHome, file: Path, *, replace: bool = False) -> tuple[Registration, bool]:
    """Keep a silo's registration; return it, and whether that changed anything.

    Raises:
        ConfigError: the file is no registration, the silo has other keys already and `replace`
            is false, or another silo has one of these keys.
    """
    registration, others = read_registration(file), registrations(home)
    silo_id = registration.silo_id
    before = others.pop(silo_id, None)
    if before == registration:
        return registration, False
    for other in others.values():
        if other.node_key == registration.node_key or _raw(other) == _raw(registration):
            raise ConfigError(f"{other.silo_id!r} is registered with one of these keys already")
    if before is not None and not replace:
        same_identity = before.identity == registration.identity
        raise ConfigError(
            f"{silo_id!r} is registered with another {'node key' if same_identity else 'identity'}"
            "; if its owner says that this is right, run it again with --replace"
        )
    write_durably(home.registration(silo_id), file.read_bytes())
    return registration, True


def enrol(home: ServerHome) -> Enrolment:
    """Let every registered silo into the SuperLink, and shut out whoever is not any more.

    Raises:
        ConfigError: the SuperLink does not answer, or `nodes.json` is not the one of its database.
    """
    with _one_at_a_time(home):
        return _Enroller(home).run()


def pending(home: ServerHome) -> frozenset[tuple[str, str]]:
    """Return (silo id, node key) of everybody whom `enrol` would let in or shut out.

    Raises:
        ConfigError: a registration or `nodes.json` is damaged.
    """
    wanted = {(silo_id, each.node_key) for silo_id, each in registrations(home).items()}
    known = {(silo, node.node_key): node.node_id for silo, node in known_nodes(home).items()}
    noted = {who for who, node_id in known.items() if node_id or who not in wanted}
    return frozenset(wanted ^ noted)


def known_nodes(home: ServerHome) -> dict[str, Node]:
    """Return silo id -> its node, as far as the SuperLink was told.

    Raises:
        ConfigError: `nodes.json` is damaged.
    """
    if not home.nodes.is_file():
        return {}
    try:
        raw = json.loads(home.nodes.read_text(encoding="utf-8"))
        return {str(silo): Node(**node) for silo, node in raw.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{home.nodes} is damaged ({error}); {_both_or_none(home)}") from None


class _Enroller:
    """One comparison of registrations and nodes."""

    def __init__(self, home: ServerHome) -> None:
        self._home = home
        self._registered = registrations(home)
        self._nodes = known_nodes(home)
        self._let_in: list[str] = []
        self._shut_out: list[str] = []
        self._refused: list[str] = []

    def run(self) -> Enrolment:
        if self._registered or self._nodes:
            live = self._live()
            if live and not self._home.nodes.is_file():
                raise ConfigError(f"{self._home.nodes} is gone; {_both_or_none(self._home)}")
            for silo_id in [*self._nodes]:
                self._drop_if_changed(silo_id, live)
            for silo_id in self._registered:
                self._add_if_missing(silo_id, live)
        return Enrolment(
            let_in=tuple(self._let_in),
            shut_out=tuple(self._shut_out),
            refused=tuple(self._refused),
        )

    def _live(self) -> set[str]:
        """Return the ids of the nodes that the SuperLink lets in."""
        said = said_yes(self._home, "supernode", "ls", CONNECTION)
        return {str(n["node-id"]) for n in said.get("nodes", []) if n.get("status") != _GONE}

    def _drop_if_changed(self, silo_id: str, live: set[str]) -> None:
        node, registration = self._nodes[silo_id], self._registered.get(silo_id)
        if registration is not None and registration.node_key == node.node_key:
            return
        node_id = node.node_id or self._interrupted(silo_id, live)
        if node_id in live:
            said_yes(self._home, "supernode", "unregister", node_id, CONNECTION)
            self._home.audit.write("shut-out", silo_id=silo_id)
            self._shut_out.append(silo_id)
            live.discard(node_id)
        self._forget(silo_id)

    def _interrupted(self, silo_id: str, live: set[str]) -> str:
        """Return the node of a silo whose registration was interrupted, "" if that is not known.

        The SuperLink takes no key twice: registering it again tells whether it was.
        """
        said = self._register(silo_id, self._nodes[silo_id].node_key)
        unclaimed = self._unclaimed(live)
        if said.get("success"):
            live.add(str(said["node-id"]))
            return str(said["node-id"])
        if _KEY_IN_USE in _why(said) and len(unclaimed) == 1:
            return unclaimed.pop()
        if unclaimed:
            self._refused.append(
                f"the SuperLink may let {silo_id!r} in with an earlier key, as one of the nodes "
                f"{', '.join(sorted(unclaimed))}; shut them out with: FLWR_HOME={self._home.flwr} "
                f"flwr supernode unregister NODE {CONNECTION}"
            )
        return ""

    def _unclaimed(self, live: set[str]) -> set[str]:
        return live - {known.node_id for known in self._nodes.values()}

    def _add_if_missing(self, silo_id: str, live: set[str]) -> None:
        node = self._nodes.get(silo_id)
        if node is not None and node.node_id in live:
            return
        key = self._registered[silo_id].node_key
        # Noted first: whoever is interrupted behind the next call finds a node that nobody claims.
        interrupted = node is not None and not node.node_id
        self._note(silo_id, Node(node_key=key, node_id=""))
        said = self._register(silo_id, key)
        if said.get("success"):
            node_id = str(said["node-id"])
        else:
            unclaimed = self._unclaimed(live)
            if not (interrupted and len(unclaimed) == 1 and _KEY_IN_USE in _why(said)):
                self._forget(silo_id)
                self._refused.append(_refused(silo_id, said))
                return
            (node_id,) = unclaimed
        self._note(silo_id, Node(node_key=key, node_id=node_id))
        self._let_in.append(silo_id)

    def _register(self, silo_id: str, key: str) -> Mapping[str, Any]:
        path = self._home.flwr / "node.pub"
        write_durably(path, f"{key}\n".encode())
        said = flwr(self._home, "supernode", "register", str(path), CONNECTION, "--name", silo_id)
        path.unlink()
        return said

    def _note(self, silo_id: str, node: Node) -> None:
        self._nodes[silo_id] = node
        self._write()

    def _forget(self, silo_id: str) -> None:
        del self._nodes[silo_id]
        self._write()

    def _write(self) -> None:
        body = {silo_id: asdict(node) for silo_id, node in self._nodes.items()}
        write_durably(self._home.nodes, json.dumps(body).encode())


@contextmanager
def _one_at_a_time(home: ServerHome) -> Iterator[None]:
    with (home.flwr / "nodes.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _raw(registration: Registration) -> bytes:
    return PublicKey.from_text(registration.identity).raw


def _why(said: Mapping[str, Any]) -> str:
    """Return the last line of what `flwr` complains about."""
    lines = str(said.get("error-message", "")).strip().splitlines()
    return lines[-1][:200] if lines else "no reason given"


def _refused(silo_id: str, said: Mapping[str, Any]) -> str:
    if _KEY_IN_USE in _why(said):
        return (
            f"the SuperLink takes no node key twice, and it knew {silo_id!r}'s before; its owner "
            "makes another with fondaco-client keys --rotate-node and hands over the registration"
        )
    return f"the SuperLink does not let {silo_id!r} in: {_why(said)}"


def _both_or_none(home: ServerHome) -> str:
    return (
        f"restore it, or stop fondaco-server, remove it and {home.database} and start again: both "
        "are made anew from the registrations"
    )


def _unreachable(home: ServerHome) -> str:
    return (
        f"the SuperLink at {home.settings.local} did not do as it was asked; is it running "
        f"(fondaco-server start --home {home.folder})?"
    )
