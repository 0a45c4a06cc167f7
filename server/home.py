"""A coordinator's folder: keys, certificates, settings, and what Flower's programs read."""

import os
import secrets
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import tomli_w

from fondaco.shared.address import is_host, split_address
from fondaco.shared.audit_log import AuditLog
from fondaco.shared.chain.keys import COORDINATOR, Identity
from fondaco.shared.config import build, read_toml
from fondaco.shared.errors import ConfigError
from fondaco.shared.files import folder_name, write_durably
from fondaco.shared.supervisor import FLOWER_ENV

from .proxy import nginx_example
from .tls import TlsFiles, private_file

SETTINGS, KEY, PUBLIC, SILOS = "server.toml", "coordinator.pem", "coordinator.pub", "silos"
CONNECTION = "fondaco"
"""How `flwr` calls our SuperLink."""
HOME_VARIABLE = "FONDACO_SERVER_HOME"
_WILDCARDS: Mapping[str, str] = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (read, not bound)
_KEPT = ("FLWR_LOG_LEVEL", "FLWR_SUPEREXEC_TASK_POLL_INTERVAL")
_OTHER_TASKS = ("agentapp", "clientapp", "connector", "model", "simulation")
_LICENSE = "Apache License, Version 2.0: https://www.apache.org/licenses/LICENSE-2.0\n"


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """`SHOME/server.toml`.

    Raises:
        ConfigError: a value is out of range.
    """

    name: str
    """What the coordinator is called, in certificates and logs."""
    host: str = "127.0.0.1"
    """Where the SuperLink listens; a loopback address behind a proxy."""
    port: int
    """Where the SuperLink listens."""
    public_address: str
    """Where silos connect to, `host:port`: the proxy's address if there is one."""
    deadline_s: int = 600
    """How long a silo may take to answer before a round goes on without it [s]."""

    def __post_init__(self) -> None:
        if not (self.name.strip() and self.name.isprintable()):
            raise ConfigError(f"name={self.name!r} is no name for a coordinator")
        if not is_host(self.host):
            raise ConfigError(f"host={self.host!r} is no host name and no IP address")
        split_address(f"host:{self.port}")
        split_address(self.public_address)
        if not 0 < self.deadline_s <= 7 * 86_400:
            raise ConfigError(f"deadline_s={self.deadline_s} must lie between 1 and a week")

    @property
    def hosts(self) -> list[str]:
        """What the server's certificate must name."""
        own = [self.host] if self.host not in _WILDCARDS else []
        return [split_address(self.public_address)[0], *own]

    @property
    def local(self) -> str:
        """The SuperLink's address for programs on this machine, `host:port`."""
        host = _WILDCARDS.get(self.host, self.host)
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class ServerHome:
    """A coordinator's folder, for its eyes alone.

    Attributes:
        folder: absolute.
        identity: signs kits and co-signs ledgers' heads.
    """

    folder: Path
    settings: ServerSettings
    identity: Identity

    @classmethod
    def make(cls, folder: Path, settings: ServerSettings) -> "ServerHome":
        """Make a folder with fresh keys; a `coordinator.pem` that is there already is taken.

        Whoever is interrupted runs it again.

        Raises:
            ConfigError: there is a home already.
        """
        folder = folder.resolve()
        if (folder / SETTINGS).exists():
            raise ConfigError(f"{folder} is a coordinator's home already")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        if not (folder / KEY).exists():
            Identity.generate(COORDINATOR).save(folder / KEY)
        identity = Identity.load(folder / KEY, COORDINATOR)
        home = cls(folder=folder, settings=settings, identity=identity)
        if not (home.tls.ca.exists() and home.tls.ca_key.exists()):
            for path in (home.tls.ca, home.tls.ca_key):
                path.unlink(missing_ok=True)
            home.tls.make(settings.name, settings.hosts)
        home.tls.renew(settings.hosts)
        home.new_secret()
        home.refresh()
        write_durably(folder / SETTINGS, tomli_w.dumps(asdict(settings)).encode())
        return home

    @classmethod
    def open(cls, folder: Path) -> "ServerHome":
        """Return the home in a folder.

        Raises:
            ConfigError: there is none, or somebody else may read its secrets.
        """
        folder = folder.resolve()
        if not (folder / SETTINGS).is_file():
            raise ConfigError(
                f"{folder} is no coordinator's home; make one with fondaco-server init"
            )
        settings = build(ServerSettings, read_toml(folder / SETTINGS), f"{SETTINGS}: ")
        identity = Identity.load(folder / KEY, COORDINATOR)
        home = cls(folder=folder, settings=settings, identity=identity)
        for path in (home.tls.ca_key, home.tls.key, home.secret):
            private_file(path)
        return home

    @property
    def tls(self) -> TlsFiles:
        """Authority and certificate."""
        return TlsFiles(self.folder / "tls")

    @property
    def secret(self) -> Path:
        """What SuperLink and SuperExec share."""
        return self.folder / "superexec.secret"

    @property
    def database(self) -> Path:
        """The SuperLink's state."""
        return self.folder / "superlink.db"

    @property
    def flwr(self) -> Path:
        """FLWR_HOME, where `flwr` finds the connection CONNECTION."""
        return self.folder / "flwr"

    @property
    def app(self) -> Path:
        """The bundle that `flwr run` sends: settings, no code."""
        return self.folder / "app"

    @property
    def bin(self) -> Path:
        """The only programs that SuperExec finds."""
        return self.folder / "bin"

    @property
    def silos(self) -> Path:
        """A registration per silo."""
        return self.folder / SILOS

    @property
    def nodes(self) -> Path:
        """Which node of the SuperLink is which silo."""
        return self.folder / "nodes.json"

    @property
    def runs(self) -> Path:
        """A workspace per plan."""
        return self.folder / "runs"

    @property
    def logs(self) -> Path:
        """What Flower's programs print."""
        return self.folder / "logs"

    @property
    def lock(self) -> Path:
        """Held while the coordinator runs; holds its process id."""
        return self.folder / "server.lock"

    @property
    def audit(self) -> AuditLog:
        """Who did what."""
        return AuditLog(self.folder / "audit.jsonl")

    def kit(self, silo_id: str) -> Path:
        """Where a silo's newest kit is kept."""
        return self.folder / "kits" / f"{folder_name(silo_id)}.kit"

    def registration(self, silo_id: str) -> Path:
        """Where a silo's registration is kept."""
        return self.silos / f"{folder_name(silo_id)}.json"

    def environment(self) -> dict[str, str]:
        """Return the environment of every program of Flower's at the coordinator.

        They call nobody outside: no proxy of the host's is theirs.
        """
        own = {name: value for name, value in os.environ.items() if _is_kept(name)}
        return {
            **own,
            HOME_VARIABLE: str(self.folder),
            "FLWR_HOME": str(self.flwr),
            **FLOWER_ENV,
            "NO_PROXY": "*",
        }

    def new_secret(self) -> None:
        """Write a new secret for SuperLink and SuperExec."""
        write_durably(self.secret, secrets.token_hex(32).encode())

    def refresh(self) -> None:
        """Write anew whatever follows from settings, keys and this installation."""
        for folder in (self.flwr, self.app, self.bin, self.silos, self.runs, self.logs):
            folder.mkdir(mode=0o700, exist_ok=True)
        write_durably(self.folder / PUBLIC, f"{self.identity.public.text()}\n".encode())
        write_durably(self.flwr / "config.toml", tomli_w.dumps(self._connection()).encode())
        write_durably(self.app / "pyproject.toml", tomli_w.dumps(_bundle()).encode())
        write_durably(self.app / "LICENSE", _LICENSE.encode())
        launcher = f'exec {shlex.quote(sys.executable)} -P -m fondaco.server.launcher "$@"'
        refusal = "echo 'this coordinator runs its own ServerApp only' >&2; exit 1"
        _write_script(self.bin / "flwr-serverapp", launcher)
        for task in _OTHER_TASKS:
            _write_script(self.bin / f"flwr-{task}", refusal)
        example = nginx_example(self.settings.public_address, self.settings.local, self.tls)
        write_durably(self.folder / "proxy" / "nginx.conf", example.encode())

    def _connection(self) -> dict[str, object]:
        address = {"address": self.settings.local, "root-certificates": str(self.tls.ca)}
        return {"superlink": {"default": CONNECTION, CONNECTION: address}}


def _is_kept(name: str) -> bool:
    return name in _KEPT or not (name.startswith("FLWR_") or name.lower().endswith("_proxy"))


def _bundle() -> dict[str, object]:
    """Return a bundle's pyproject.toml; the launchers run installed code, whatever it names."""
    apps = {"serverapp": "fondaco.server.app:app", "clientapp": "fondaco.client.app:app"}
    flower = {
        "publisher": "fondaco",
        "fab-include": ["LICENSE"],
        "components": apps,
        "config": {"run": "", "task": "run"},
    }
    project = {"name": "fondaco", "version": version("fondaco"), "license": "Apache-2.0"}
    return {"project": project, "tool": {"flwr": {"app": flower}}}


def _write_script(path: Path, command: str) -> None:
    write_durably(path, f"#!/bin/sh\n{command}\n".encode())
    path.chmod(0o700)
