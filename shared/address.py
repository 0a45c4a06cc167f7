"""`host:port`, as plans of a deployment write where somebody listens."""

import ipaddress
import re

from .errors import ConfigError

_PORTS = range(1, 65536)
_HOST = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_MAX_HOST = 253


def split_address(text: str) -> tuple[str, int]:
    """Return host and port of `host:port`; an IPv6 address stands in square brackets.

    Raises:
        ConfigError: it is neither a host name nor an IP address, or the port is no port.
    """
    host, colon, digits = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    inner = host[1:-1] if bracketed else host
    sound = bool(colon) and digits.isascii() and digits.isdigit() and len(digits) < 6  # noqa: PLR2004
    if not sound or int(digits) not in _PORTS or bracketed != (":" in inner) or not is_host(inner):
        raise ConfigError(f"{text[:80]!r} is no address; expected HOST:PORT")
    return inner, int(digits)


def is_address(text: str) -> bool:
    """Return whether `split_address` takes `text`."""
    try:
        split_address(text)
    except ConfigError:
        return False
    return True


def is_host(text: str) -> bool:
    """Return whether `text` is an IP address or could be a host's name in the DNS."""
    if is_ip(text):
        return True
    return len(text) <= _MAX_HOST and _HOST.fullmatch(text) is not None


def is_ip(text: str) -> bool:
    """Return whether `text` is an IPv4 or IPv6 address that means the same on every machine."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text
