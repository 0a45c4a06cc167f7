"""The agent's end of its socket: who is let in, and what is said to whom."""

import json
import os
import socket
import stat
import struct
import threading
import time
from pathlib import Path

import pytest

from fondaco.client.answers import public_reason
from fondaco.client.boundary import desk
from fondaco.client.boundary.desk import listen, passed_socket, peer_uid
from fondaco.client.boundary.frames import ERROR, OK, Limits, receive_frame, send_frame
from fondaco.client.boundary.link import AgentError, ask
from fondaco.shared.errors import ConfigError, DataError, RefusalError
from fondaco.shared.parts import Parts

CANARY = "canary-customer-4711"
NOBODY = 65534
ANY = Limits(record=1 << 20)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other OS users")


def _echo(action, parts):
    return Parts(action.encode(), parts.record, parts.masking)


def _connect(path):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(10)
    connection.connect(str(path))
    return connection


def _said(connection):
    return receive_frame(connection, (OK, ERROR), ANY, 10.0)


def test_desk_answers_one_connection_after_another(serve, sockets):
    serve(_echo)
    for num in range(20):
        asked = Parts(f"{num}".encode(), b"", b"m")
        assert ask(sockets / "agent.sock", "status", asked) == Parts(b"status", asked.record, b"m")


def test_nothing_is_turned_away_where_all_were_answered(serve, sockets):
    served = serve(lambda action, parts: Parts(b"a"))
    for _ in range(200):
        ask(sockets / "agent.sock", "status", Parts())
    assert served.turned_away == []


def test_socket_is_its_owners_alone(serve, sockets):
    serve(_echo)
    mode = (sockets / "agent.sock").lstat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


@as_root
def test_other_os_user_is_turned_away_even_where_the_file_is_open(serve, sockets, children):
    answered = []
    path = sockets / "agent.sock"
    served = serve(lambda action, parts: answered.append(action) or parts, uids={0})

    def intrude():
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        with _connect(path) as connection:
            try:
                send_frame(connection, "status", Parts(b"r"))
                assert connection.recv(1) == b""
            except (BrokenPipeError, ConnectionResetError):
                return

    assert children.ended(intrude) == 1  # the file's mode is enough
    path.chmod(0o777)
    assert children.ended(intrude) == 0
    assert served.eventually(1) == [f"a process of OS user {NOBODY} asked"]
    assert answered == []
    assert ask(path, "status", Parts()) == Parts()


@as_root
def test_peer_is_known_by_the_kernel(sockets, children):
    with listen(sockets / "s") as listening:
        (sockets / "s").chmod(0o777)

        def connect():
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            _connect(sockets / "s")

        child = children.fork(connect)
        connection, _ = listening.accept()
        with connection:
            assert peer_uid(connection) == NOBODY
        os.waitpid(child, 0)


@pytest.mark.parametrize(
    "error",
    [
        DataError(f"row 7 of {CANARY}"),
        OSError(5, CANARY, f"/home/{CANARY}"),
        KeyError(CANARY),
        EOFError(CANARY),
        TimeoutError(CANARY),
        MemoryError(CANARY),
        UnicodeDecodeError("utf-8", CANARY.encode(), 0, 1, CANARY),
    ],
    ids=repr,
)
def test_failure_of_an_answer_is_told_without_a_word_of_it(serve, sockets, error):
    def fail(action, parts):
        raise error

    served = serve(fail, reason=public_reason)
    with _connect(sockets / "agent.sock") as connection:
        send_frame(connection, "release", Parts(b"r"))
        word, parts = _said(connection)
    assert word == ERROR
    assert CANARY not in repr(parts) + repr(served.turned_away)
    assert b"details stay at the silo" in parts.record
    with pytest.raises(AgentError, match="details stay at the silo"):
        ask(sockets / "agent.sock", "release", Parts())


def test_refusal_is_told_in_its_own_words_and_no_longer_than_a_reason(serve, sockets):
    def refuse(action, parts):
        raise RefusalError("ü" * 9000)

    serve(refuse, reason=str)
    with pytest.raises(AgentError, match="üüü"):
        ask(sockets / "agent.sock", "release", Parts())


@pytest.mark.parametrize(
    "blob",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        struct.pack(">4sBQQQ", b"FND1", 5, 0, 0, 0) + b"erase",
        struct.pack(">4sBQQQ", b"FND1", 6, 2**63, 0, 0) + b"status" + b"r" * 100_000,
    ],
    ids=["http", "unknown", "huge"],
)
def test_malformed_request_gets_a_reason_and_the_next_is_answered(serve, sockets, blob):
    served = serve(_echo)
    with _connect(sockets / "agent.sock") as connection:
        connection.sendall(blob)
        assert _said(connection) == (ERROR, Parts(record=b"public CodecError"))
    assert served.eventually(1) == ["a malformed request"]
    assert ask(sockets / "agent.sock", "status", Parts()).record == b"status"


def test_owner_who_took_the_plan_back_gets_a_reason_told_and_the_desk_goes_on(
    serve, sockets, capsys
):
    plans = [RefusalError("the owner has left", "left"), None]

    def limits():
        error = plans.pop(0) if plans else None
        if error is not None:
            raise error
        return Limits(record=1 << 20)

    serve(_echo, limits=limits)
    with pytest.raises(AgentError, match="public RefusalError"):
        ask(sockets / "agent.sock", "status", Parts(b"r" * 500_000))
    said = json.loads(capsys.readouterr().err)
    assert (said["event"], said["code"]) == ("agent.refused", "left")
    assert ask(sockets / "agent.sock", "status", Parts()).record == b"status"


def test_connection_that_says_nothing_or_half_is_left_at_the_deadline(serve, sockets, monkeypatch):
    monkeypatch.setattr(desk, "REQUEST_S", 0.3)
    served = serve(_echo)
    with _connect(sockets / "agent.sock"), _connect(sockets / "agent.sock") as half:
        half.sendall(b"FND1")
        start = time.monotonic()
        assert ask(sockets / "agent.sock", "status", Parts()).record == b"status"
        assert time.monotonic() - start < 5
    assert served.eventually(2) == ["TimeoutError on the socket"] * 2


def test_client_that_leaves_before_the_answer_harms_nobody(serve, sockets):
    left = threading.Event()

    def slow(action, parts):
        left.wait(10)
        return Parts(record=b"a" * 10_000_000)

    served = serve(slow)
    with _connect(sockets / "agent.sock") as connection:
        send_frame(connection, "status", Parts())
    left.set()
    assert served.eventually(1) == ["BrokenPipeError on the socket"]
    assert len(ask(sockets / "agent.sock", "status", Parts()).record) == 10_000_000


def test_client_that_never_reads_is_left_at_the_deadline(serve, sockets, monkeypatch):
    monkeypatch.setattr(desk, "REPLY_S", 0.3)
    served = serve(lambda action, parts: Parts(record=b"a" * 10_000_000))
    with _connect(sockets / "agent.sock") as deaf:
        send_frame(deaf, "status", Parts())
        assert served.eventually(1) == ["TimeoutError on the socket"]


def test_many_ask_a_busy_agent_and_all_are_answered_one_at_a_time(serve, sockets):
    inside, most, said = [0], [0], []

    def answer(action, parts):
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.01)
        inside[0] -= 1
        return parts

    serve(answer)

    def one(num):
        said.append(ask(sockets / "agent.sock", "release", Parts(bytes([num]) * 300_000)).record)

    askers = [threading.Thread(target=one, args=(num,)) for num in range(40)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(60)
    assert most == [1]
    assert sorted(said) == sorted(bytes([num]) * 300_000 for num in range(40))


def test_socket_of_a_dead_agent_is_replaced(sockets):
    path = sockets / "agent.sock"
    listen(path).close()
    assert path.is_socket()
    with listen(path), _connect(path):
        pass


def test_socket_of_a_living_agent_is_left_alone(serve, sockets):
    serve(_echo)
    with pytest.raises(ConfigError, match=r"listens at .* already"):
        listen(sockets / "agent.sock")
    assert ask(sockets / "agent.sock", "status", Parts()).record == b"status"


def test_socket_of_an_agent_with_a_full_queue_is_left_alone(sockets, monkeypatch):
    monkeypatch.setattr(desk, "WAITING", 0)
    path = sockets / "agent.sock"
    with listen(path), _connect(path):
        with pytest.raises(ConfigError, match=r"listens at .* already"):
            listen(path)
        assert path.is_socket()


@pytest.mark.parametrize("make", ["write_text", "mkdir", "symlink_to"])
def test_anything_else_in_the_sockets_place_is_left_alone(sockets, make):
    path = sockets / "agent.sock"
    {"write_text": lambda: path.write_text("mine"), "mkdir": path.mkdir,
     "symlink_to": lambda: path.symlink_to("/dev/null")}[make]()  # fmt: skip
    before = path.lstat()
    with pytest.raises(ConfigError, match="is no socket"):
        listen(path)
    assert path.lstat().st_ino == before.st_ino


@pytest.mark.parametrize("name", ["missing/agent.sock", "a" * 120])
def test_place_where_no_socket_can_be_is_told(sockets, name):
    with pytest.raises(ConfigError, match="cannot listen"):
        listen(sockets / name)


@as_root
def test_socket_is_given_to_the_couriers_user(sockets):
    with listen(sockets / "s", NOBODY):
        there = (sockets / "s").lstat()
    assert (there.st_uid, stat.S_IMODE(there.st_mode)) == (NOBODY, 0o600)


@as_root
def test_what_the_couriers_user_put_in_the_sockets_place_is_not_given_away(sockets, monkeypatch):
    treasure = sockets / "treasure"
    treasure.touch()

    def replaced(path):
        path.unlink()
        path.symlink_to(treasure)

    bind = socket.socket.bind
    monkeypatch.setattr(
        desk.socket.socket, "bind", lambda s, path: (bind(s, path), replaced(Path(path)))
    )
    with pytest.raises(ConfigError, match="was replaced"):
        listen(sockets / "s", NOBODY)
    assert treasure.stat().st_uid == 0


def test_half_a_character_in_a_reason_stops_nothing():
    assert desk._in_words("no kind \ud800").record == b"no kind ?"


@pytest.mark.parametrize("who", ["another process", "nobody", "two"])
def test_socket_meant_for_another_process_is_not_taken(monkeypatch, who):
    pid = os.getpid() + (who == "another process")
    monkeypatch.setenv("LISTEN_PID", "" if who == "nobody" else str(pid))
    monkeypatch.setenv("LISTEN_FDS", "2" if who == "two" else "1")
    assert passed_socket() is None


def test_socket_that_run_passes_on_is_taken_once(sockets, monkeypatch):
    with listen(sockets / "s") as listening:
        monkeypatch.setenv(desk.PASSED, str(os.dup(listening.fileno())))
        with passed_socket() as taken:
            assert taken.getsockname() == str(sockets / "s")
        assert passed_socket() is None
