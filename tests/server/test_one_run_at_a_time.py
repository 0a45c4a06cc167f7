"""The same command given twice: the second ServerApp of a run waits, and finds it done."""

import fcntl
import json
import threading
from types import SimpleNamespace

import pytest

from fondaco.server import deployed
from fondaco.server.deployed import LOCK, PreparedRun, run_prepared
from fondaco.shared import files

NAME = "0" * 16


class Home:
    """As much of a coordinator's folder as this needs."""

    def __init__(self, folder):
        self.runs = folder


@pytest.fixture
def run(tmp_path, monkeypatch):
    home = Home(tmp_path)
    (tmp_path / NAME).mkdir()
    monkeypatch.setattr(deployed.ServerHome, "open", lambda folder: home)
    return PreparedRun.of(home, NAME)


def _end(run, state):
    status = {"plan": "p", "dataset": "", "epsilon": "", "target_delta": "", "expires": ""}
    body = {"schema": 1, "state": state, "planned": 1, **status}
    run.status("run").write_text(json.dumps(body), encoding="utf-8")


def test_nobody_waits_who_is_alone(run):
    with run.alone() as waited:
        assert not waited
    with run.alone() as waited:
        assert not waited


def test_whoever_only_asks_for_an_instant_is_no_other_server_app(run, monkeypatch):
    with run.alone():
        pass
    with (run.folder / LOCK).open("rb") as asked:
        fcntl.flock(asked, fcntl.LOCK_SH)  # as `is_locked` does, until we wait
        done = SimpleNamespace(sleep=lambda _: fcntl.flock(asked, fcntl.LOCK_UN))
        monkeypatch.setattr(files, "time", done)
        with run.alone() as waited:
            assert not waited


@pytest.mark.parametrize("state", ["finished", "failed", "running", None])
def test_second_server_app_waits_and_takes_up_only_what_has_no_end(run, monkeypatch, state):
    """A failed run is told to whoever follows it: silos pay for no attempt that nobody asks for."""
    taken = []
    monkeypatch.setattr(deployed, "_take_up", lambda *asked: taken.append(asked))
    second = threading.Thread(target=run_prepared, args=(None, run.folder, NAME, "run"))
    with run.alone():
        second.start()
        second.join(0.3)
        assert second.is_alive()
        assert not taken
        if state:
            _end(run, state)
    second.join(10)
    assert len(taken) == (state not in ("finished", "failed"))


@pytest.mark.parametrize("state", ["finished", "failed"])
def test_run_that_has_ended_and_is_given_again_is_taken_up(run, monkeypatch, state):
    taken = []
    monkeypatch.setattr(deployed, "_take_up", lambda *asked: taken.append(asked))
    _end(run, state)
    run_prepared(None, run.folder, NAME, "run")
    assert len(taken) == 1
