"""A data owner at the console: its script, its key, and a plan that waits for the signature."""

import io
import sys
from pathlib import Path

import pytest

from fondaco.client.owner import Owner
from fondaco.shared.plan_text import to_toml

sys.path.insert(0, str(Path(__file__).parent))


class Script:
    """The console script in this process: what it prints, and how it ends."""

    def __init__(self, monkeypatch, capsys, home):
        self._monkeypatch, self._capsys, self.home = monkeypatch, capsys, home

    def __call__(self, *words, code=0, said=""):
        self._monkeypatch.setattr(sys, "argv", ["fondaco-client", *map(str, words)])
        self._monkeypatch.setattr(sys, "stdin", io.StringIO(said))
        self._capsys.readouterr()
        # Flower may be imported only after pytest knows which of its warnings to ignore.
        from fondaco.client import cli  # noqa: PLC0415

        ended = 0
        try:
            cli.main()
        except SystemExit as end:
            ended = end.code or 0
        printed = self._capsys.readouterr()
        assert ended == code, printed
        self.err = printed.err
        return printed.out

    def own(self, command, *words, **options):
        return self(command, *words, "--home", self.home, **options)

    def refused(self, *words):
        """Hold that a command ends with 2 and one clear line; return the line."""
        out = self.own(*words, code=2)
        assert self.err.startswith("error: ")
        assert self.err.count("\n") == 1
        assert "Traceback" not in out + self.err
        return self.err


@pytest.fixture
def script(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    return Script(monkeypatch, capsys, tmp_path / "shop")


@pytest.fixture
def owner(script):
    """The owner of a fresh key, made on the command line."""
    script.own("keys", "--silo", "north")
    return Owner.open(script.home)


@pytest.fixture
def make_deployed(make_plan, make_roster):
    """Return a plan of ten owners in which `owner` holds its own key."""

    def make(owner, **changes):
        terms = make_roster(mode="deploy", **changes)
        terms["roster"] = {**terms["roster"], owner.silo_id: owner.identity.public.text()}
        return make_plan(trust="silo", **terms)

    return make


@pytest.fixture
def ready(script, owner, make_deployed):
    """An owner with limits and pinned peers, and the file of a plan that waits."""
    plan = make_deployed(owner)
    keys = [key for silo, key in plan.roster.items() if silo != "north"]
    peers = [word for key in (*keys, plan.coordinator) for word in ("--peer", key)]
    limits = "--epsilon-per-year", 3, "--epsilon-if-masking-broke", 4, "--target-delta", "1e-6"
    script.own("policy", *limits, *peers)
    path = script.home.parent / "plan.toml"
    path.write_text(to_toml(plan))
    return plan, path
