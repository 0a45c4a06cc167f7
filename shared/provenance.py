"""Which code runs here, and that all of it was installed together."""

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from .errors import ConfigError

CUSTOMER_ROOMS = ("client", "shared")


def rooms_root() -> Path:
    """Return the folder that holds all rooms.

    Raises:
        ConfigError: rooms come from different installations, so one may shadow another.
    """
    shared = Path(__file__).parent
    for room in CUSTOMER_ROOMS:
        spec = find_spec(f"fondaco.{room}")
        if spec is None or spec.origin is None:
            raise ConfigError(f"fondaco.{room} is not installed")
        if Path(spec.origin).parent.parent != shared.parent:
            raise ConfigError(
                f"fondaco.{room} comes from {Path(spec.origin).parent}, fondaco.shared from "
                f"{shared}; reinstall fondaco"
            )
    return shared.parent


@cache
def code_digest() -> str:
    """Return SHA-256 over the sources that may touch customers' data, as `sha256:...`."""
    sha = hashlib.sha256()
    root = rooms_root()
    for room in CUSTOMER_ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            sha.update(path.relative_to(root).as_posix().encode() + b"\x00")
            sha.update(hashlib.sha256(path.read_bytes()).digest())
    return f"sha256:{sha.hexdigest()}"
