"""The courier's folder: what Flower's processes need to carry messages, and nothing of the owner's.

It may belong to another OS user than the owner's folder. Whoever is root then writes into it as
that user, so that a link put there by a hijacked courier leads nowhere that user could not go.
"""

import os
import pwd
import secrets
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fondaco.shared.errors import ConfigError
from fondaco.shared.files import write_durably

from .deployment import COURIER, FOLDER, SOCKET, CourierSettings, read_courier, write_courier

CA, NODE_KEY, SECRET, FLOWER = "ca.pem", "node-key", "superexec.secret", "flwr"
LAUNCHER = Path("bin") / "flwr-clientapp"
OTHER_TASKS = ("agentapp", "connector", "model", "serverapp", "simulation")
"""What else Flower's SuperExec would start if it were asked to, and never may here."""
SECRET_BYTES = 32
MAX_SOCKET_PATH = 107
"""Longest path that a Unix socket can have [bytes]."""


@dataclass(frozen=True)
class Account:
    """An OS user."""

    name: str
    uid: int
    gid: int


def named_account(name: str) -> Account:
    """Return the OS user `name`.

    Raises:
        ConfigError: there is none, or only root could act for them.
    """
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(
            f"there is no OS user {name!r}; make one with useradd --system --no-create-home {name}"
        ) from None
    if os.geteuid() not in (0, entry.pw_uid):
        raise ConfigError(f"only root can make files of {name!r}; run this with sudo")
    return Account(name, entry.pw_uid, entry.pw_gid)


def account_of(folder: Path) -> Account:
    """Return whose folder this is.

    Raises:
        ConfigError: another user's, and this process is not root's.
    """
    there = folder.lstat()
    try:
        name = pwd.getpwuid(there.st_uid).pw_name
    except KeyError:
        name = f"#{there.st_uid}"  # as sudo takes it
    if os.geteuid() not in (0, there.st_uid):
        raise ConfigError(f"{folder} belongs to {name!r}; run this as root (sudo) or as that user")
    return Account(name, there.st_uid, there.st_gid)


@contextmanager
def acting_as(account: Account) -> Iterator[None]:
    """Do the body with the rights of an OS user; anybody but root does it with their own."""
    uid, gid, groups = os.geteuid(), os.getegid(), os.getgroups()
    if uid or not account.uid:
        yield
        return
    try:
        os.setgroups([account.gid])
        os.setegid(account.gid)
        os.seteuid(account.uid)
        yield
    finally:
        os.seteuid(uid)
        os.setegid(gid)
        os.setgroups(groups)


def check_place(folder: Path, home: Path) -> None:
    """Refuse a place where a courier's folder would open, or hide in, the owner's.

    Raises:
        ConfigError: one lies within the other, something else is there, or it is too deep.
    """
    if folder.is_relative_to(home) or home.is_relative_to(folder):
        raise ConfigError(
            f"the courier's folder {folder} and the owner's {home} must not lie within each other; "
            "choose another --courier"
        )
    if len(os.fsencode(folder / SOCKET)) > MAX_SOCKET_PATH:
        raise ConfigError(f"{folder} is too long a path for a socket; choose a shorter --courier")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ConfigError(f"{folder} is no folder; choose another --courier")


def check_courier(folder: Path, silo_id: str, account: Account) -> None:
    """Refuse a folder that holds something else than this silo's courier.

    Raises:
        ConfigError: it does.
    """
    if not folder.exists():
        return
    with acting_as(account):
        if (folder / COURIER).is_file():
            known = read_courier(folder).silo_id
            if known != silo_id:
                raise ConfigError(f"{folder} is the courier's folder of {known!r}; choose another")
            return
        torn = Path(COURIER).with_suffix(".part").name
        others = [path.name for path in folder.iterdir() if path.name != torn]
    if others:
        raise ConfigError(f"{folder} holds {others[0]!r} and is no courier's; choose another")


def make_courier(folder: Path, settings: CourierSettings, ca: str, account: Account) -> None:
    """Make or renew a courier's folder; keys that are there stay.

    Args:
        folder: absolute.
        settings: what it is to know.
        ca: certificates (PEM) that sign the coordinator's.
        account: whose it becomes.

    Raises:
        ConfigError: that user cannot work there.
    """
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
        os.chown(folder, account.uid, account.gid)
    with acting_as(account):
        try:
            _check_python(account)
            folder.chmod(0o700)
            write_courier(folder, settings)  # first: it says whose folder this is
            write_durably(folder / CA, ca.encode())
            (folder / FLOWER).mkdir(mode=0o700, exist_ok=True)
            _write_launcher(folder)
            _keep(folder / SECRET, secrets.token_bytes(SECRET_BYTES))
            if not (folder / NODE_KEY).exists():
                _keep(folder / NODE_KEY, _new_key())
            _write_public(folder)
        except PermissionError as error:
            raise ConfigError(
                f"{account.name!r} cannot work in {folder} ({error.strerror}: {error.filename}); "
                "choose another --courier"
            ) from error


def node_public(folder: Path) -> str:
    """Return the public text of the node key: type and base64, no comment.

    Raises:
        ConfigError: the key is missing, damaged or of another kind.
    """
    public = load_node_key(folder).public_key()
    encoded = public.public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return encoded.decode()


def load_node_key(folder: Path) -> ec.EllipticCurvePrivateKey:
    """Return the key by which the coordinator knows this silo's SuperNode.

    Raises:
        ConfigError: it is missing, damaged or of another kind.
    """
    path = folder / NODE_KEY
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; make it with fondaco-client init --kit KIT")
    try:
        key = serialization.load_ssh_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path} holds no private key: {error}") from error
    if not (isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP384R1)):
        raise ConfigError(f"{path} holds another kind of key than ECDSA P-384")
    return key


def rotate_node_key(folder: Path) -> str:
    """Replace the node key and return the new one's public text; the old one stays as `.old`.

    Whoever is killed on the way and runs this again ends with the same new key.

    Raises:
        ConfigError: the key before the last is still kept, and may be the one in use.
    """
    path, new, old = (folder / f"{NODE_KEY}{end}" for end in ("", ".new", ".old"))
    if not new.exists():
        if old.exists():
            raise ConfigError(
                f"{old} is still there: the coordinator may know only that one. Once "
                f"fondaco-client doctor says that the newer key is registered, remove {old}"
            )
        load_node_key(folder)
        _keep(new, _new_key())
    if not old.exists():
        os.link(path, old)
    new.replace(path)
    _write_public(folder)
    return node_public(folder)


def _check_python(account: Account) -> None:
    if not os.access(sys.executable, os.X_OK, effective_ids=True):
        raise ConfigError(
            f"OS user {account.name!r} cannot run {sys.executable}; install fondaco where it can, "
            "such as in /opt/fondaco"
        )


def _write_launcher(folder: Path) -> None:
    """Write what Flower finds as `flwr-clientapp`: this interpreter, this installation."""
    path = folder / LAUNCHER
    path.parent.mkdir(mode=0o700, exist_ok=True)
    words = shlex.quote(sys.executable), "-PE", "-m", "fondaco.client.launcher"
    lines = [
        "#!/bin/sh",
        "# Runs the installed courier, whatever bundle the coordinator sent.",
        f"{FOLDER}={shlex.quote(str(folder))}",
        f"export {FOLDER}",
        f'exec {" ".join(words)} "$@"',
    ]
    _write_script(path, lines)
    refusal = ["#!/bin/sh", "echo 'this courier runs its own ClientApp only' >&2", "exit 1"]
    for task in OTHER_TASKS:
        _write_script(path.with_name(f"flwr-{task}"), refusal)


def _write_script(path: Path, lines: list[str]) -> None:
    write_durably(path, "".join(f"{line}\n" for line in lines).encode())
    path.chmod(0o700)


def _write_public(folder: Path) -> None:
    write_durably(folder / f"{NODE_KEY}.pub", f"{node_public(folder)}\n".encode())


def _new_key() -> bytes:
    return ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )


def _keep(path: Path, blob: bytes) -> None:
    """Write a file unless it is there; whole or not at all, and never over another."""
    if path.exists():
        return
    partial = path.with_name(f"{path.name}.making")
    write_durably(partial, blob)
    try:
        os.link(partial, path)
    except FileExistsError:
        pass
    finally:
        partial.unlink()
