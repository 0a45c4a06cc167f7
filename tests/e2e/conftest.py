"""The console commands as processes, without paying for the imports each time."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("kill_world")

TINY = (
    "dataset.n_users=80",
    "dataset.n_items=50",
    "dataset.declared_users=80",
    "silos.count=4",
    "privacy.head=16",
    "evaluation.bootstrap=10",
    "evaluation.headline=ndcg@10",
    "baselines=[]",
)
QUIET = {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}


@dataclass(frozen=True)
class Done:
    """What a finished command said."""

    code: int
    out: str
    err: str


class Console:
    """Runs `fondaco-simulate` and `fondaco-client` in a folder of its own each."""

    def __init__(self, folder):
        self._folder = folder
        self._numbers = count()
        self._server = subprocess.Popen(  # noqa: S603
            [sys.executable, str(Path(__file__).with_name("warm_console.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **QUIET},
            cwd=folder,
        )

    def __call__(self, program, *argv, cwd=None, die=None):
        place = self._folder / f"call-{next(self._numbers)}"
        (place / "empty").mkdir(parents=True)
        request = {
            "program": program,
            "argv": [str(part) for part in argv],
            "cwd": str(cwd or place / "empty"),
            "out": str(place / "out"),
            "err": str(place / "err"),
            "die": die,
        }
        print(json.dumps(request), file=self._server.stdin, flush=True)
        code = int(self._server.stdout.readline())
        return Done(code, *((place / name).read_text(encoding="utf-8") for name in ("out", "err")))

    def close(self):
        self._server.communicate(timeout=60)


@pytest.fixture(scope="session")
def console(tmp_path_factory):
    """Return a function: program and its arguments -> `Done`."""
    console = Console(tmp_path_factory.mktemp("console"))
    yield console
    console.close()


@pytest.fixture(scope="session")
def simulate(console):
    """Return a function that runs `fondaco-simulate`."""
    return lambda *argv, **options: console("fondaco-simulate", *argv, **options)


@pytest.fixture(scope="session")
def client(console):
    """Return a function that runs `fondaco-client`."""
    return lambda *argv, **options: console("fondaco-client", *argv, **options)


@pytest.fixture(scope="session")
def tiny():
    """Arguments that make a scenario tiny."""
    return [part for setting in TINY for part in ("--set", setting)]


@pytest.fixture(scope="session")
def finished(simulate, tiny, tmp_path_factory):
    """The folder of a finished tiny run, silos kept; no test may change it."""
    out = tmp_path_factory.mktemp("finished") / "out"
    done = simulate("run", "synthetic", *tiny, "--out", out, "--keep-silos")
    assert done.code == 0, done.err
    return out
