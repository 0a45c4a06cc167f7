"""An agent in a container: its socket is for the courier's group, its network is gone."""

import os
import socket
import stat
import subprocess
import sys
import time

import pytest

ECHO = """
import os, socket
assert os.environ["LISTEN_PID"] == str(os.getpid()) and os.environ["LISTEN_FDS"] == "1"
listening = socket.socket(fileno=3)
connection, _ = listening.accept()
try:
    socket.socket(socket.AF_INET)
    connection.sendall(b"has a network")
except OSError:
    connection.sendall(b"has none")
"""


@pytest.fixture
def link(tmp_path):
    folder = tmp_path / "link"
    folder.mkdir()
    folder.chmod(0o2770)
    return folder / "agent.sock"


def handover(path, *command):
    words = [sys.executable, "-m", "fondaco.client.boundary.handover", str(path), *command]
    return subprocess.Popen(words, stderr=subprocess.PIPE, text=True)  # noqa: S603


def answer(path):
    until = time.monotonic() + 30
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(30)
        while True:
            try:
                connection.connect(str(path))
                break
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
        return connection.recv(100)


def test_the_agent_gets_a_socket_for_the_group_and_no_network(link):
    with handover(link, sys.executable, "-c", ECHO) as agent:
        said = answer(link)
        mode = stat.S_IMODE(os.stat(link).st_mode)
    assert (said, mode, agent.returncode) == (b"has none", 0o660, 0)


def test_a_socket_of_a_dead_agent_is_replaced(link):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(link))
    with handover(link, sys.executable, "-c", ECHO):
        assert answer(link) == b"has none"


def test_a_folder_that_shares_with_nobody_is_refused(tmp_path):
    with handover(tmp_path / "agent.sock", "true") as agent:
        said = agent.stderr.read()
    assert "setgid" in said
    assert said.count("\n") == 1
    assert agent.returncode == 2


def test_a_command_that_is_not_there_is_named(link):
    with handover(link, "fondaco-clent", "run") as agent:
        said = agent.stderr.read()
    assert "fondaco-clent" in said
    assert said.count("\n") == 1
    assert agent.returncode == 2


def test_words_that_are_missing_are_asked_for():
    with handover("agent.sock") as agent:
        assert "usage" in agent.stderr.read()
