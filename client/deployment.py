"""Where a deployed silo's coordinator is, and where its courier works: no secrets, no data."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from fondaco.shared.config import build
from fondaco.shared.errors import ConfigError
from fondaco.shared.files import write_durably

DEPLOYMENT, COURIER = "deployment.json", "courier.json"
SOCKET = "agent.sock"
PORT = 9094
FOLDER = "FONDACO_COURIER"
"""Environment variable that tells the launcher the courier's folder; no bundle can set it."""
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """`HOME/deployment.json`, for the agent."""

    superlink: str
    """The coordinator's address, `host:port`."""
    coordinator: str
    """The coordinator's public key, as its kit named it."""
    courier: str
    """The courier's folder, which holds the agent's socket."""

    @property
    def socket(self) -> Path:
        """Where the agent listens."""
        return Path(self.courier) / SOCKET


@dataclass(frozen=True, kw_only=True)
class CourierSettings:
    """`COURIER/courier.json`, for the courier, which cannot read the owner's folder."""

    silo_id: str
    superlink: str
    """The coordinator's address, `host:port`."""
    socket: str
    """Where the agent listens."""
    port: int = PORT
    """Port on the loopback address between SuperNode and SuperExec."""


def read_deployment(home: Path) -> Deployment:
    """Return where an owner's folder is deployed.

    Raises:
        ConfigError: it is not, or the file is damaged.
    """
    return _read(Deployment, home / DEPLOYMENT, "fondaco-client init --kit KIT")


def read_courier(folder: Path) -> CourierSettings:
    """Return what a courier's folder says.

    Raises:
        ConfigError: it is none, or the file is damaged.
    """
    return _read(CourierSettings, folder / COURIER, "fondaco-client init --kit KIT")


def write_deployment(home: Path, deployment: Deployment) -> None:
    """Write `deployment.json`."""
    write_durably(home / DEPLOYMENT, json.dumps(asdict(deployment)).encode())


def write_courier(folder: Path, settings: CourierSettings) -> None:
    """Write `courier.json`."""
    write_durably(folder / COURIER, json.dumps(asdict(settings)).encode())


def _read(kind: type[T], path: Path, fix: str) -> T:
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; make it with {fix}")
    try:
        body: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(body, dict):
        raise ConfigError(f"{path} holds no settings; make it again with {fix}")
    return build(kind, body, f"{path.name}: ")
