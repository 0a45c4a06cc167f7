"""A filter in the kernel that takes sockets and programs from this process, for good.

Where the agent shares a network with others (a Kubernetes pod, a plain process), nothing outside
of it takes the network away. This does: it holds for every thread started later, for native code,
and for whatever the process would turn into; nobody can take it off again.

What stays: Unix sockets, and netlink, by which libraries ask for the names of interfaces and
which reaches the own kernel only. What goes: every other kind of socket, io_uring (which opens
sockets past such filters), system calls of other architectures, and on demand other programs.

Source: seccomp(2), and Linux' Documentation/userspace-api/seccomp_filter.rst.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from fondaco.shared.errors import ConfigError

AF_UNIX, AF_NETLINK = 1, 16
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_X32 = 0x40000000
_IO_URING_SETUP = 425


@dataclass(frozen=True)
class _Calls:
    """Numbers of system calls on one architecture."""

    architecture: int
    socket: int
    execve: int
    execveat: int


CALLS = {
    "x86_64": _Calls(0xC000003E, socket=41, execve=59, execveat=322),
    "aarch64": _Calls(0xC00000B7, socket=198, execve=221, execveat=281),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def forbid_network(*, programs: bool = False) -> None:
    """Refuse every socket but Unix ones from here on, and with `programs` every other program.

    Raises:
        ConfigError: the kernel, or the machine's architecture, has no such filter.
    """
    calls = CALLS.get(platform.machine())
    if calls is None:
        raise ConfigError(f"no filter is known for the architecture {platform.machine()!r}")
    steps = b"".join(_steps(calls, programs=programs))
    program = _Program(len(steps) // 8, steps)
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    done = done and libc.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0) == 0
    if not done:
        reason = os.strerror(ctypes.get_errno())
        raise ConfigError(f"the kernel does not take the network away ({reason})")


def _steps(calls: _Calls, *, programs: bool) -> Iterator[bytes]:
    """Yield the filter's instructions; jumps count those that are left out."""
    yield _step(_LOAD, _ARCHITECTURE)
    yield _step(_EQUAL, calls.architecture, yes=1)
    yield _step(_RETURN, _FAIL | errno.ENOSYS)
    yield _step(_LOAD, _NUMBER)
    yield _step(_AT_LEAST, _X32, no=1)
    yield _step(_RETURN, _FAIL | errno.ENOSYS)
    refused = {_IO_URING_SETUP: errno.ENOSYS}
    if programs:
        refused |= {calls.execve: errno.EACCES, calls.execveat: errno.EACCES}
    for number, error in refused.items():
        yield _step(_EQUAL, number, no=1)
        yield _step(_RETURN, _FAIL | error)
    yield _step(_EQUAL, calls.socket, yes=1)
    yield _step(_RETURN, _ALLOW)
    yield _step(_LOAD, _FIRST_ARGUMENT)
    for family in (AF_UNIX, AF_NETLINK):
        yield _step(_EQUAL, family, no=1)
        yield _step(_RETURN, _ALLOW)
    yield _step(_RETURN, _FAIL | errno.EAFNOSUPPORT)


def _step(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    """Return one instruction of classic BPF (`struct sock_filter`)."""
    return struct.pack("=HBBI", code, yes, no, value)
