"""`fondaco-server start` with real programs of Flower: killed, renewed, stopped."""

import json
import os
import signal
import socket
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fondaco.server import tls
from fondaco.server.nodes import keep, known_nodes
from fondaco.server.services import answers, is_running
from fondaco.shared.audit_log import verify

pytestmark = pytest.mark.slow


def children(pid):
    """Return name -> process id of a process's children."""
    done = subprocess.run(  # noqa: S603
        ["/usr/bin/pgrep", "-a", "-P", str(pid)], capture_output=True, text=True, check=False
    )
    found = {}
    for line in done.stdout.splitlines():
        number, _, command = line.partition(" ")
        found |= {name: int(number) for name in ("superlink", "superexec") if name in command}
    return found


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def events(log):
    lines = [line for line in log.read_text().splitlines() if line.startswith("{")]
    return [fact for line in lines if (fact := json.loads(line)).get("event")]


def test_house_survives_its_programs_and_stops_when_told(
    make_home, make_silo, run_house, waiting, programs
):
    home = make_home()
    keep(home, make_silo("alpha").file)
    process, log = run_house(home)
    node_id = known_nodes(home)["alpha"].node_id
    before = children(process.pid)
    assert set(before) == {"superlink", "superexec"}
    assert is_running(home)

    again = subprocess.run(  # noqa: S603
        [programs / "fondaco-server", "start", "--home", home.folder],
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 2
    assert f"is running already (process {process.pid})" in again.stderr

    beta = make_silo("beta")
    done = subprocess.run(  # noqa: S603
        [programs / "fondaco-server", "register", beta.file, "--home", home.folder, "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not json.loads(done.stdout)["pending"]

    gamma = make_silo("gamma")
    keep(home, gamma.file)  # as another container would, which does not reach the SuperLink
    waiting(lambda: "gamma" in known_nodes(home), 150, "the services let it in themselves")

    for number in before.values():
        os.kill(number, signal.SIGKILL)
    waiting(lambda: set(children(process.pid)) == set(before) and answers(home), 150, "both return")
    assert not set(children(process.pid).values()) & set(before.values())
    ended = [e for e in events(log) if e["event"] == "coordinator.ended"]
    assert {(e["program"], e["signal"]) for e in ended} >= {
        ("flower-superlink", 9),
        ("flower-superexec", 9),
    }
    assert known_nodes(home)["alpha"].node_id == node_id

    last = children(process.pid)
    process.terminate()
    assert process.wait(90) == 0
    assert not any(map(alive, last.values()))
    assert not is_running(home)
    actions = [entry.action for entry in verify(home.folder / "audit.jsonl").entries]
    assert actions == ["start", "register", "stop"]


def test_new_certificate_is_shown_without_a_restart_of_the_house(make_home, run_house, waiting):
    home = make_home()
    process, _ = run_house(home)
    before = children(process.pid)
    old = home.tls.expires()
    home.tls.announce_next("market")
    home.tls.finish_next(home.settings.hosts)
    waiting(lambda: set(children(process.pid).values()).isdisjoint(before.values()), 150, "restart")
    waiting(lambda: answers(home), 150, "the new authority is used")
    assert home.tls.expires() >= old


def test_certificate_that_ends_soon_is_renewed_at_the_start(make_home, run_house, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(tls, "SERVER_DAYS", 5)
        home = make_home()
    assert (home.tls.expires() - datetime.now(UTC)).days < 5
    run_house(home)
    assert (home.tls.expires() - datetime.now(UTC)).days > 80
    assert answers(home)


def test_nothing_is_left_of_a_house_that_was_killed(make_home, run_house, waiting):
    home = make_home()
    process, _ = run_house(home)
    left = children(process.pid)
    assert len(left) == 2
    process.kill()
    process.wait()
    waiting(lambda: not any(map(alive, left.values())), 90, "its programs end")
    run_house(home, "again")


def test_port_that_somebody_has_is_named(make_home, programs):
    home = make_home()
    with socket.create_server(("127.0.0.1", home.settings.port)):
        done = subprocess.run(  # noqa: S603
            [programs / "fondaco-server", "start", "--home", home.folder],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert "Address already in use" in done.stderr
    assert "change host and port in" in done.stderr
