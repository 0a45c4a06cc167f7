"""Addresses of databases: from a private file or the environment, and never into a message."""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

from fondaco.shared.errors import ConfigError

from .config import SourceConfig

_SECRETS = ("password", "passwd", "sslpassword")


@dataclass(frozen=True)
class Address:
    """A database's address; printing it shows no secret.

    Attributes:
        text: all of it, the password included.
        origin: where it was found, for messages.

    Raises:
        ConfigError: it cannot be told where the password ends.
    """

    text: str = field(repr=False)
    origin: str

    def __post_init__(self) -> None:
        if self.text.count("@") > 1:
            raise ConfigError(f"{self.origin}: more than one @; in a password write %40 instead")

    def hide(self, message: object) -> str:
        """Return the first line of a driver's message with every trace of the password removed."""
        line = next(iter(str(message).strip().splitlines()), "no reason given").strip()
        for secret in sorted(self._secrets(), key=len, reverse=True):
            line = line.replace(secret, "***")
        return line

    def _secrets(self) -> set[str]:
        """Every form in which the password could come back, and the whole address."""
        before, at, _ = self.text.partition("://")[2].rpartition("@")
        found = {before.partition(":")[2]} if at else set()
        for pair in self.text.partition("?")[2].split("&"):
            name, _, value = pair.partition("=")
            if name.lower() in _SECRETS:
                found.add(value)
        every = {self.text, *found, *map(unquote, found), *(quote(s, safe="") for s in found)}
        return {secret for secret in every if secret}


def find_address(config: SourceConfig) -> Address:
    """Return the address of a database on a server.

    Raises:
        ConfigError: the file or variable is missing or empty, or others may read the file.
    """
    if config.url:
        return Address(config.url, "source.url")
    if config.url_env:
        text = os.environ.get(config.url_env, "").strip()
        if not text:
            raise ConfigError(f"environment variable {config.url_env} is not set; source.url_env")
        return Address(text, f"environment variable {config.url_env}")
    return Address(_read_private(Path(config.url_file)), config.url_file)


def _read_private(path: Path) -> str:
    """Return the one line of a file that nobody but its owner may read."""
    try:
        with path.open(encoding="utf-8") as file:
            facts = os.fstat(file.fileno())
            if stat.S_IMODE(facts.st_mode) & 0o077:
                raise ConfigError(f"{path} can be read by others; run chmod 600 {path}")
            if facts.st_uid not in (os.geteuid(), 0):
                raise ConfigError(f"{path} belongs to another user; its owner must be who reads it")
            lines = file.read().split()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise ConfigError(f"{path} cannot be read: {reason}") from None
    if len(lines) != 1:
        raise ConfigError(f"{path} must hold one line, the database's address")
    return lines[0]
