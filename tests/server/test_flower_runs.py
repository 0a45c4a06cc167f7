"""A run under Flower: submitted, followed, and submitted again when Flower loses it."""

import json
import os
from dataclasses import asdict
from types import SimpleNamespace

import pytest

from fondaco.server import flower_runs, nodes
from fondaco.server.deployed import PreparedRun
from fondaco.server.flower_runs import MOST_SUBMISSIONS, START_S, run_to_its_end
from fondaco.server.status import Status
from fondaco.shared.errors import ConfigError, RoundError


class World:
    """A coordinator's folder, a clock that waiting moves, and a Flower that does as it is told."""

    def __init__(self, folder):
        self.home = SimpleNamespace(
            app="app",
            logs=folder / "logs",
            folder=folder,
            settings=SimpleNamespace(local="127.0.0.1:8000"),
        )
        self.run = PreparedRun(folder)
        self.now, self.later, self.submitted, self.told = 0.0, {}, 0, []
        self.ls = "running"

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        for moment in [moment for moment in self.later if moment <= self.now]:
            self.later.pop(moment)()

    def flwr(self, home, verb, *rest):
        assert home is self.home
        if verb == "run":
            self.submitted += 1
            return {"success": True, "run-id": str(self.submitted)}
        return {"success": True, "runs": [{"status": self.ls}]}

    def says(self, state):
        """Have a ServerApp write the status file."""
        status = Status(
            state=state,
            plan="p",
            dataset="",
            epsilon="",
            target_delta="",
            expires="",
            planned=1,
            updated=str(self.now),
        )
        path = self.run.status("run")
        path.write_text(json.dumps(asdict(status)))
        os.utime(path, (self.now, self.now))  # several within one tick of the disk's clock

    def follow(self):
        return run_to_its_end(self.home, self.run, "run", self.told.append)


@pytest.fixture
def world(tmp_path, monkeypatch):
    world = World(tmp_path)
    monkeypatch.setattr(flower_runs, "time", world)
    monkeypatch.setattr(nodes, "flwr", world.flwr)
    return world


def test_run_is_followed_until_it_has_finished(world):
    world.later = {2.0: lambda: world.says("running"), 9.0: lambda: world.says("finished")}
    followed = world.follow()
    assert (followed.status.state, followed.submissions, followed.seconds) == ("finished", 1, 9.0)
    assert [status.state for status in world.told] == ["running", "finished"]


def test_server_app_that_never_begins_is_told_from_one_that_does(world):
    with pytest.raises(RoundError, match="did not begin within 300 s"):
        world.follow()
    assert START_S < world.now < START_S + 3


def test_second_command_waits_while_an_earlier_server_app_is_silent_at_work(world):
    """After Ctrl-C the first ServerApp goes on; it says nothing while it waits for a silo."""
    world.says("running")
    world.later = {2 * START_S: lambda: world.says("finished")}
    with world.run.alone():
        followed = world.follow()
    assert (followed.status.state, followed.submissions) == ("finished", 1)


def test_server_app_that_never_begins_after_the_earlier_one_is_found_out(world):
    earlier = world.run.alone()
    earlier.__enter__()
    world.later = {START_S + 9: lambda: earlier.__exit__(None, None, None)}
    with pytest.raises(RoundError, match="did not begin"):
        world.follow()
    assert 2 * START_S < world.now < 2 * START_S + 5


def test_run_that_flower_loses_is_submitted_again_so_often(world):
    world.ls = "finished:failed"
    with pytest.raises(RoundError, match=f"Flower lost run .* {MOST_SUBMISSIONS} times"):
        world.follow()
    assert world.submitted == MOST_SUBMISSIONS


@pytest.mark.parametrize("ls", ["running", "finished:failed"])
def test_full_disk_is_named_and_no_other_run_submitted(world, monkeypatch, ls):
    world.ls = ls
    usage = SimpleNamespace(free=4096)
    monkeypatch.setattr(flower_runs.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(RoundError, match="is full, 4096 bytes are free"):
        world.follow()
    assert world.submitted == 1


def test_superlink_that_is_away_for_a_while_says_nothing_about_the_run(world, monkeypatch):
    def away(home, verb, *rest):
        if verb == "run":
            return world.flwr(home, verb, *rest)
        raise ConfigError("away")

    monkeypatch.setattr(nodes, "flwr", away)
    world.later = {2.0: lambda: world.says("running"), 99.0: lambda: world.says("finished")}
    assert world.follow().submissions == 1


REFUSALS = {
    "Using SuperLink: fondaco\n Listing all runs...\n\nConnection refused": "Connection refused",
    "": "no reason given",
}


@pytest.mark.parametrize("text", REFUSALS)
def test_what_flower_refuses_is_one_line(world, monkeypatch, text):
    said = {"success": False, "error-message": text}
    monkeypatch.setattr(nodes, "flwr", lambda *asked: said)
    with pytest.raises(ConfigError) as error:
        world.follow()
    assert str(error.value) == (
        "the SuperLink at 127.0.0.1:8000 did not do as it was asked; is it running "
        f"(fondaco-server start --home {world.home.folder})? ({REFUSALS[text]})"
    )


def test_superlink_that_does_not_answer_is_said_once(world, monkeypatch):
    world.home.environment = dict
    monkeypatch.undo()
    monkeypatch.setattr(nodes, "program", lambda name: "/bin/false")
    with pytest.raises(ConfigError) as error:
        world.follow()
    assert str(error.value).count("did not do as it was asked") == 1
