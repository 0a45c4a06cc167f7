"""What the agent's process denies itself: the network, other programs, and traces of memory.

A belt beside the braces: systemd units and containers take the network away for good. An audit
hook cannot be removed once it is there, but native code does not pass it.
"""

import os
import resource
import socket
import sys

from fondaco.shared.errors import RefusalError

_NAMES = (
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.gethostbyaddr",
    "socket.getnameinfo",
)
"""Of events that ask a name server, whose question may hold anything."""
_PROGRAMS = ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system", "pty.spawn")


def confine() -> None:
    """Refuse every socket but Unix ones, every other program, and core dumps, from here on."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    if event in _NAMES or (event == "socket.__new__" and arguments[1] != socket.AF_UNIX):
        raise RefusalError("the agent has no network", "network")
    if event in _PROGRAMS:
        raise RefusalError("the agent starts no other program", "program")


def has_network() -> bool:
    """Return whether any interface but the loopback one is up: the host's network is shared."""
    return any(name != "lo" for _, name in socket.if_nameindex())
