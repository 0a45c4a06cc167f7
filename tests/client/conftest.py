"""Everybody's model as a server sends it, and the console script in this process."""

import io
import sys

import pytest
from builders import HEAD, zero_model

from fondaco.shared import codec


@pytest.fixture(scope="session")
def make_model():
    """Return a function: plan, changed fields -> the bytes of a model of zeros."""
    return lambda plan, **changes: codec.encode(zero_model(plan, **{"head": HEAD, **changes}))


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
