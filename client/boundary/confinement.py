"""What the agent's process denies itself: the network, other programs, and traces of memory.

Twice: an audit hook of Python, which says why, and a filter in the kernel, which native code
passes too. Neither can be taken off again. systemd units, containers and network namespaces take
the network away from outside as well.
"""

import os
import resource
import socket
import sys

from fondaco.shared.errors import ConfigError, RefusalError

from .seccomp import forbid_network

_NAMES = (
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.gethostbyaddr",
    "socket.getnameinfo",
)
"""Of events that ask a name server, whose question may hold anything."""
_PROGRAMS = ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system", "pty.spawn")


def confine() -> str:
    """Refuse every socket but Unix ones, every other program, and core dumps, from here on.

    Returns:
        What keeps the network away: `none` where there is none, `kernel`, or `process` alone
        where the kernel has no such filter.
    """
    alone = not has_network()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    sys.addaudithook(_refuse)
    try:
        forbid_network(programs=True)
    except ConfigError:
        return "none" if alone else "process"
    return "none" if alone else "kernel"


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    if event in _NAMES or (event == "socket.__new__" and arguments[1] != socket.AF_UNIX):
        raise RefusalError("the agent has no network", "network")
    if event in _PROGRAMS:
        raise RefusalError("the agent starts no other program", "program")


def has_network() -> bool:
    """Return whether any interface but the loopback one is up: the host's network is shared."""
    try:
        return any(name != "lo" for _, name in socket.if_nameindex())
    except OSError:  # a unit that allows Unix sockets alone does not even let us look
        return False
