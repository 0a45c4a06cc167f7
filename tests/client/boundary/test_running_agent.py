"""`fondaco-client run --agent-only` as a process of its own."""

import os
import signal
import socket
import sys
from functools import partial
from pathlib import Path

import pytest
from owned_folder import AgentProcess, wait_for

from fondaco.client.boundary import link
from fondaco.client.boundary.desk import PASSED, listen
from fondaco.client.boundary.link import AgentError
from fondaco.shared.chain.witness import Call
from fondaco.shared.parts import Parts

pytestmark = pytest.mark.slow
NO_CALL = Parts(b"", Call().to_bytes())
ask = partial(link.ask, patience_s=40)


@pytest.fixture
def start(owned, sockets):
    """Return a function: options -> a running agent; all are killed at the end."""
    running = []

    def run(**options):
        running.append(AgentProcess(owned.home, sockets / "agent.sock", **options))
        return running[-1]

    yield run
    for agent in running:
        agent.stop(signal.SIGKILL)


def test_agent_on_its_own_socket_answers_and_ends_cleanly(owned, sockets, start):
    agent, path = start(), sockets / "agent.sock"
    assert ask(path, "status", NO_CALL).record.startswith(b"FNDC")
    code, said = agent.stop()
    assert code == 0
    assert "agent.started" in said
    assert "agent.stopped" in said
    assert str(owned.home) not in said
    assert "Traceback" not in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_agent_stops_at_once_when_told(sockets, start, number):
    agent = start()
    ask(sockets / "agent.sock", "status", NO_CALL)
    code, said = agent.stop(number)
    assert code in (0, 130, -number)
    assert "Traceback" not in said


@pytest.mark.parametrize("how", ["systemd", "run"])
def test_agent_on_a_passed_socket_answers(sockets, start, how):
    """As systemd passes it, through a program that becomes the agent; and as `run` does."""
    path = sockets / "agent.sock"
    with listen(path) as listening:
        number = listening.fileno()
        become = (
            f"import os, sys; os.dup2({number}, 3); os.set_inheritable(3, True); "
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1'); "
            "os.execv(sys.argv[1], sys.argv[1:])"
        )
        if how == "systemd":
            start(passed=number, command=(sys.executable, "-c", become))
        else:
            start(passed=number, environment={PASSED: str(number)})
        assert ask(path, "status", NO_CALL).record.startswith(b"FNDC")


def test_agent_killed_and_started_again_sends_the_same_bytes(owned, sockets, start):
    path, request = sockets / "agent.sock", owned.request()
    agent = start()
    first = ask(path, "release", request)
    assert agent.stop(signal.SIGKILL)[0] == -signal.SIGKILL
    start()  # replaces the socket that the dead one left
    second = ask(path, "release", request)
    assert second.record == first.record
    assert len(owned.records("DEBIT")) == 1


def test_second_agent_of_the_same_socket_is_refused(sockets, start):
    start()
    ask(sockets / "agent.sock", "status", NO_CALL)
    code, said = start().stop(signal.SIGCONT)
    assert code == 2
    assert "ConfigError" in said  # the words are for a terminal
    assert ask(sockets / "agent.sock", "status", NO_CALL).record.startswith(b"FNDC")


def test_agent_without_a_plan_says_so_and_leaves_no_socket(owned, sockets, start):
    owned.leave()
    code, said = start().stop(signal.SIGCONT)
    assert code == 2
    assert '"code": "left"' in said
    assert not (sockets / "agent.sock").exists()


def test_agent_whose_owner_leaves_says_so_and_goes_on(owned, sockets, start):
    path, request = sockets / "agent.sock", owned.request()
    agent = start()
    ask(path, "status", NO_CALL)
    owned.leave()
    for action, asked in (("status", NO_CALL), ("release", request)):
        with pytest.raises(AgentError, match="RefusalError: the owner has left: shop sold"):
            ask(path, action, asked)
    assert owned.records("DEBIT") == []
    assert agent.process.poll() is None
    _, said = agent.stop()
    assert said.count('"event": "agent.refused"') == said.count('"code": "left"') == 2
    assert "sold" not in said


def test_agent_whose_rows_go_away_tells_no_path_and_goes_on(owned, sockets, start):
    path = sockets / "agent.sock"
    agent = start()
    ask(path, "status", NO_CALL)
    (owned.home / "data" / "dataset.json").unlink()
    with pytest.raises(AgentError, match="details stay at the silo") as caught:
        ask(path, "status", NO_CALL)
    assert str(owned.home) not in str(caught.value)
    owned.write_rows()
    assert ask(path, "status", NO_CALL).record.startswith(b"FNDC")
    assert agent.process.poll() is None


def test_agents_process_has_no_internet_socket_and_only_its_own_files_open(owned, sockets, start):
    agent, path = start(), sockets / "agent.sock"
    ask(path, "release", owned.request())
    handles = [
        os.readlink(f"/proc/{agent.process.pid}/fd/{number}")
        for number in os.listdir(f"/proc/{agent.process.pid}/fd")
    ]
    opened = {handle.partition(":")[2].strip("[]") for handle in handles if "socket:" in handle}
    internet = [
        line.split()[9]
        for name in ("tcp", "tcp6", "udp", "udp6", "raw")
        for line in Path(f"/proc/net/{name}").read_text(encoding="ascii").splitlines()[1:]
    ]
    assert opened
    assert not opened & set(internet)


def test_peer_that_hangs_up_between_messages_changes_nothing(sockets, start):
    path = sockets / "agent.sock"
    agent = start()
    ask(path, "status", NO_CALL)
    for blob in (b"", b"F", b"GET / HTTP/1.1\r\n\r\n", b"FND1" + b"\xff" * 25):
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(path))
            caller.sendall(blob)
    assert ask(path, "status", NO_CALL).record.startswith(b"FNDC")
    wait_for(lambda: agent.process.poll() is None)
