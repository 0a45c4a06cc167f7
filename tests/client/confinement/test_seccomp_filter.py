"""What a process can no longer do once the kernel holds the filter: each in a child."""

import ctypes
import os
import socket
import subprocess
import sys
import threading

import pytest

from fondaco.client.boundary import seccomp
from fondaco.shared.errors import ConfigError

FAMILIES = [socket.AF_INET, socket.AF_INET6, socket.AF_PACKET, socket.AF_VSOCK, socket.AF_ALG]


def refused(work):
    try:
        work()
    except OSError:
        return
    raise RuntimeError("the kernel let it pass")


def test_every_family_but_local_ones_is_refused(children):
    def work():
        seccomp.forbid_network()
        for family in FAMILIES:
            refused(lambda family=family: socket.socket(family, socket.SOCK_DGRAM))
        refused(lambda: socket.create_connection(("127.0.0.1", 1), timeout=1))

    assert children.ended(work) == 0


def test_unix_sockets_and_names_of_interfaces_stay(children):
    def work():
        seccomp.forbid_network()
        left, right = socket.socketpair()
        left.send(b"x")
        if right.recv(1) != b"x":
            raise RuntimeError("a Unix socket lost a byte")
        socket.if_nameindex()

    assert children.ended(work) == 0


def test_native_code_and_threads_are_held_too(children):
    def work():
        seccomp.forbid_network()
        found = []
        libc = ctypes.CDLL(None)
        thread = threading.Thread(target=lambda: found.append(libc.socket(2, 1, 0)))
        thread.start()
        thread.join()
        if found != [-1]:
            raise RuntimeError("libc opened a socket")

    assert children.ended(work) == 0


def test_sockets_through_io_uring_are_refused(children):
    def work():
        seccomp.forbid_network()
        room = ctypes.create_string_buffer(120)
        if ctypes.CDLL(None).syscall(425, 8, room) != -1:
            raise RuntimeError("io_uring was set up")

    assert children.ended(work) == 0


def test_other_programs_are_refused_on_demand_only(children):
    def both():
        seccomp.forbid_network()
        subprocess.run(["/bin/true"], check=True)
        seccomp.forbid_network(programs=True)
        refused(lambda: subprocess.run(["/bin/true"], check=True))
        refused(lambda: os.execv("/bin/true", ["true"]))  # noqa: S606

    assert children.ended(both) == 0


def test_the_filter_outlives_the_program_that_set_it(children):
    def work():
        seccomp.forbid_network()
        connect = "import socket; socket.socket(socket.AF_INET)"
        words = [sys.executable, "-c", connect]
        done = subprocess.run(words, capture_output=True, check=False)  # noqa: S603
        if b"not supported" not in done.stderr:
            raise RuntimeError("another program has a network")

    assert children.ended(work) == 0


def test_an_unknown_machine_is_refused_and_keeps_its_network(monkeypatch):
    monkeypatch.setattr(seccomp.platform, "machine", lambda: "pdp11")
    with pytest.raises(ConfigError, match="pdp11"):
        seccomp.forbid_network()
