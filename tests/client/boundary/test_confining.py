"""What an agent's process denies itself; each in a child, for it cannot be taken back."""

import asyncio
import ctypes
import os
import resource
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from fondaco.client.boundary.confinement import confine
from fondaco.shared.errors import RefusalError


def _udp():
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9))


def _spawned_by_asyncio():
    asyncio.run(asyncio.create_subprocess_exec("true"))


REFUSED = {
    "tcp": lambda: socket.create_connection(("127.0.0.1", 9)),
    "tcp over IPv6": lambda: socket.socket(socket.AF_INET6),
    "udp": _udp,
    "raw": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
    "packets": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "http": lambda: urllib.request.urlopen("http://127.0.0.1:9"),
    "a name": lambda: socket.getaddrinfo("secret.example.org", 80),
    "an old name": lambda: socket.gethostbyname("secret.example.org"),
    "an address' name": lambda: socket.gethostbyaddr("192.0.2.1"),
    "subprocess": lambda: subprocess.run(["/bin/true"], check=False),
    "shell": lambda: os.system("/bin/true"),  # noqa: S605
    "popen": lambda: os.popen("/bin/true"),  # noqa: S605
    "exec": lambda: os.execv("/bin/true", ["true"]),  # noqa: S606
    "spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
    "asyncio": _spawned_by_asyncio,
}


@pytest.mark.parametrize("name", REFUSED)
def test_agent_can_do_without(children, name):
    def work():
        confine()
        with pytest.raises(RefusalError, match=r"no network|no other program"):
            REFUSED[name]()

    assert children.ended(work) == 0


def test_unix_sockets_files_and_threads_go_on(children, sockets):
    def work():
        confine()
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(sockets / "s"))
            listening.listen()
            with socket.socket(socket.AF_UNIX) as caller:
                caller.connect(str(sockets / "s"))
                connection, _ = listening.accept()
                connection.close()
        (sockets / "file").write_text("x")
        assert (sockets / "file").stat().st_mode & 0o077 == 0
        left, right = socket.socketpair()
        left.close()
        right.close()

    assert children.ended(work) == 0


def test_agent_that_crashes_leaves_no_core(children):
    def work():
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)
        confine()
        assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        ctypes.string_at(0)

    pid = children.fork(work)
    status = os.waitpid(pid, 0)[1]
    assert os.WTERMSIG(status) == signal.SIGSEGV
    assert not os.WCOREDUMP(status)


def test_hook_cannot_be_taken_off(children):
    def work():
        confine()
        sys.addaudithook(lambda event, arguments: None)
        import fondaco.client.boundary.confinement as ours  # noqa: PLC0415

        ours._PROGRAMS = ()
        ours._NAMES = ()
        with pytest.raises(RefusalError):
            socket.socket(socket.AF_INET)

    assert children.ended(work) == 0
