"""`fondaco-simulate loopback`: real processes give the model of one process, to the last bit."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from builders import SMALL_DATA

from fondaco.simulation.loopback import environment

BIN = Path(sys.executable).parent
SMALL = ("silos.count=3", *SMALL_DATA)

pytestmark = pytest.mark.slow


def _loopback(folder, *options):
    settings = [word for setting in SMALL for word in ("--set", setting)]
    return subprocess.run(  # noqa: S603  (our own program)
        [
            str(BIN / "fondaco-simulate"),
            "loopback",
            "synthetic",
            "--out",
            "run",
            *settings,
            *options,
        ],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )


def test_processes_give_the_model_of_one_process_and_ledgers_that_hold(tmp_path):
    done = _loopback(tmp_path, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    went = json.loads(done.stdout)
    assert went["same"]
    assert went["status"]["state"] == "finished"
    assert [seen["phases"] for seen in went["status"]["rounds"]] == [5, 5]
    assert set(went["audited"].values()) == {0}
    assert all(Path(path).stat().st_size > 0 for path in went["lists"].values())


def test_a_folder_that_holds_something_is_left_as_it_is(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("keep")
    done = _loopback(tmp_path)
    assert done.returncode == 2
    assert "holds something already" in done.stderr
    assert (tmp_path / "run" / "mine.txt").read_text() == "keep"
