"""The courier's end: it waits for an agent that is restarted, and tells one that is gone."""

import contextlib
import os
import signal
import socket
import threading
import time

import pytest
from owned_folder import OwnedFolder

from fondaco.client import agent as agent_module
from fondaco.client.answers import public_reason
from fondaco.client.boundary import desk, link
from fondaco.client.boundary.desk import Desk, listen
from fondaco.client.boundary.frames import ACTIONS, OK, Limits, receive_frame, send_frame
from fondaco.client.boundary.link import AgentAwayError, AgentError, ask
from fondaco.client.deployed import DeployedAgent
from fondaco.shared.parts import Parts


class Script:
    """An agent that does with each connection what it is told to."""

    def __init__(self, path, *acts):
        self._listening = listen(path)
        self.asked = []
        self._thread = threading.Thread(target=self._run, args=(acts,), daemon=True)
        self._thread.start()

    def _run(self, acts):
        with contextlib.suppress(OSError):  # closed
            for act in acts:
                connection, _ = self._listening.accept()
                with connection, contextlib.suppress(EOFError):
                    act(connection, self.asked)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(10)


def _die_at_once(connection, asked):
    asked.append("died")


def _die_on_the_way(connection, asked):
    asked.append(receive_frame(connection, ACTIONS, Limits(record=1 << 20), 10.0))


def _die_in_the_answer(connection, asked):
    asked.append(receive_frame(connection, ACTIONS, Limits(record=1 << 20), 10.0))
    connection.sendall(b"FND1\x02")


def _garbage(connection, asked):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def _answer(connection, asked):
    asked.append(receive_frame(connection, ACTIONS, Limits(record=1 << 20), 10.0))
    send_frame(connection, OK, Parts(b"answer"))


@pytest.mark.parametrize(
    "accident",
    [_die_at_once, _die_on_the_way, _die_in_the_answer, _garbage],
    ids=lambda a: a.__name__,
)
def test_agent_that_dies_is_asked_the_same_again(sockets, accident):
    path = sockets / "agent.sock"
    with Script(path, accident, accident, _answer) as agent:
        assert ask(path, "release", Parts(b"r" * 1000)) == Parts(b"answer")
    assert agent.asked[-1] == ("release", Parts(b"r" * 1000))


def test_agent_that_dies_after_long_work_is_still_waited_for(sockets):
    path = sockets / "agent.sock"

    def die_late(connection, asked):
        _die_on_the_way(connection, asked)
        time.sleep(1.5)

    with Script(path, die_late, _answer):
        assert ask(path, "release", Parts(), patience_s=1.0) == Parts(b"answer")


def test_agent_that_dies_of_a_request_is_not_killed_for_ever(sockets, monkeypatch):
    monkeypatch.setattr(link, "PAUSE_S", 0.01)
    path = sockets / "agent.sock"
    with Script(path, *[_die_on_the_way] * 1000) as agent, pytest.raises(AgentAwayError):
        ask(path, "release", Parts(), patience_s=1.0)
    assert len(agent.asked) == link.MOST_DEATHS


@pytest.mark.parametrize("there", ["nothing", "a dead agent's socket", "a file"])
def test_agent_that_stays_away_is_told_after_the_patience(sockets, there):
    path = sockets / "agent.sock"
    if there == "a file":
        path.write_text("")
    if there == "a dead agent's socket":
        listen(path).close()
    start = time.monotonic()
    with pytest.raises(AgentAwayError, match="the silo's agent does not answer") as caught:
        ask(path, "status", Parts(), patience_s=0.6)
    assert 0.6 <= time.monotonic() - start < 2
    assert str(path) not in str(caught.value)


def test_agent_that_comes_late_answers(sockets):
    path = sockets / "agent.sock"
    agents = []
    timer = threading.Timer(0.7, lambda: agents.append(Script(path, _answer)))
    timer.start()
    assert ask(path, "status", Parts(), patience_s=20) == Parts(b"answer")
    timer.join()
    agents[0].__exit__()


def test_refusal_is_not_asked_again(serve, sockets):
    asked = []

    def refuse(action, parts):
        asked.append(action)
        raise ValueError

    serve(refuse)
    with pytest.raises(AgentError, match="public ValueError"):
        ask(sockets / "agent.sock", "release", Parts())
    assert asked == ["release"]


def test_answer_that_is_larger_than_a_reason_can_be_is_no_refusal(sockets):
    def shout(connection, asked):
        connection.sendall(b"FND1\x05" + (1 << 40).to_bytes(8, "big") + bytes(16) + b"error")

    path = sockets / "agent.sock"
    with Script(path, *[shout] * 100), pytest.raises(AgentAwayError):
        ask(path, "status", Parts(), patience_s=0.5)


def _serve_until_it_dies(owned: OwnedFolder, listening: socket.socket):
    deployed = DeployedAgent(owned.home)
    Desk(
        listening,
        deployed.answer,
        reason=public_reason,
        actions=ACTIONS,
        limits=deployed.limits,
        uids={0},
        refused=lambda why: None,
    ).serve()


@pytest.mark.parametrize(
    ("where", "when"),
    [("sent", "before"), ("record", "before"), ("record", "after"), ("send_frame", "before")],
)
def test_agent_killed_while_it_answers_pays_once_and_sends_the_same(
    owned, sockets, children, where, when
):
    """Killed before or after the outbox holds the bytes, or with the answer in its hands."""
    points = {
        "sent": (agent_module, "write_durably"),
        "record": (agent_module.SiloAgent, "run_round"),
        "send_frame": (desk, "send_frame"),
    }
    request = owned.request()
    with listen(sockets / "agent.sock") as listening:

        def die():
            children.die_in(*points[where], when)
            _serve_until_it_dies(owned, listening)

        first = children.fork(die)
        seen = []
        asker = threading.Thread(
            target=lambda: seen.append(ask(sockets / "agent.sock", "release", request))
        )
        asker.start()
        assert os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) == -signal.SIGKILL
        second = children.fork(lambda: _serve_until_it_dies(owned, listening))
        asker.join(60)
        again = ask(sockets / "agent.sock", "release", request)
        os.kill(second, signal.SIGKILL)
        os.waitpid(second, 0)
    assert again.record == seen[0].record
    assert len(owned.records("DEBIT")) == 1
