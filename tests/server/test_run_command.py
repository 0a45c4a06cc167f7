"""`run` and `preflight`: who asked for them is on disk before Flower hears of it."""

from dataclasses import replace

import pytest
import typer

from fondaco.server.commands import runs
from fondaco.server.flower_runs import Followed
from fondaco.server.home import ServerHome, ServerSettings
from fondaco.server.status import StatusFile, read_status
from fondaco.shared.audit_log import verify
from fondaco.shared.catalogue import save_catalogue
from fondaco.shared.errors import RoundError
from fondaco.shared.plan_text import to_toml


class World:
    """A coordinator, a plan that names it, and a Flower that ends a run as it is told."""

    def __init__(self, folder, make_plan, roster, catalogue):
        settings = ServerSettings(name="hub", port=9093, public_address="hub.example:9093")
        self.home = ServerHome.make(folder / "hub", settings)
        save_catalogue(catalogue, folder / "catalogue.json")
        roster |= {"coordinator": self.home.identity.public.text()}
        self.agreed = make_plan(**roster, catalogue_digest=catalogue.digest)
        self.plan = folder / "plan.toml"
        self.plan.write_text(to_toml(self.agreed))
        self.end, self.before = "finished", None

    def follow(self, home, run, task, tell):
        self.before = self.outcomes()
        if isinstance(self.end, BaseException):
            raise self.end
        StatusFile(run.status(task), self.agreed).begin(task)
        status = replace(read_status(run.status(task)), state=self.end)
        tell(status)
        return Followed(status=status, submissions=1, seconds=1.0)

    def outcomes(self):
        entries = verify(self.home.folder / "audit.jsonl").entries
        assert {entry.fields["plan"] for entry in entries} == {self.agreed.digest}
        return [(entry.fields["task"], entry.fields["outcome"]) for entry in entries]


@pytest.fixture
def world(tmp_path, make_plan, make_roster, catalogue, monkeypatch):
    world = World(tmp_path, make_plan, make_roster(10, witnesses=0), catalogue)
    monkeypatch.setattr(runs, "run_to_its_end", world.follow)
    return world


@pytest.mark.parametrize("task", ["run", "preflight"])
def test_run_is_written_down_before_it_begins_and_when_it_has_ended(world, task):
    getattr(runs, task)(world.plan, home=world.home.folder)
    assert world.before == [(task, "asked for")]
    assert world.outcomes() == [(task, "asked for"), (task, "finished")]


def test_run_that_failed_is_written_down_as_such(world):
    world.end = "failed"
    with pytest.raises(typer.Exit):
        runs.run(world.plan, home=world.home.folder)
    assert world.outcomes() == [("run", "asked for"), ("run", "failed")]


@pytest.mark.parametrize("end", [KeyboardInterrupt(), RoundError("Flower lost run x 5 times")])
def test_run_whose_end_nobody_saw_is_written_down_all_the_same(world, end):
    """The ServerApp goes on, and silos pay."""
    world.end = end
    with pytest.raises(type(end)):
        runs.run(world.plan, home=world.home.folder)
    assert world.outcomes() == [("run", "asked for"), ("run", "not seen")]
