"""`flwr run` with the bundle that holds no code gives the model of the in-process run."""

import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from builders import SMALL_RUN
from safetensors import safe_open

from fondaco.simulation.library import load_scenario
from fondaco.simulation.run import prepare, simulate, write_workspace

REPOSITORY = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SMALL = ("silos.count=3", *SMALL_RUN)
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # everywhere: keeps Ray on the loopback address
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(REPOSITORY / ".namespace"),
}
START_TO_END_S = 300.0
NODES = "num-supernodes=3 client-resources-num-cpus=1 init-args-num-cpus=2"

pytestmark = pytest.mark.slow


@contextmanager
def flwr(folder):
    """A function that runs the `flwr` command in a neutral folder, with a home of its own.

    At the end the detached SuperLink and all it started have ended.
    """
    home, neutral = folder / "flwr-home", folder / "neutral"
    neutral.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    paths = os.pathsep.join([str(BIN), os.environ["PATH"]])
    ours = {"PATH": paths, "FLWR_HOME": str(home), "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": port}

    def run(*arguments):
        done = subprocess.run(  # noqa: S603  (arguments of this file)
            [str(BIN / "flwr"), *arguments],
            cwd=neutral,
            env={**os.environ, **QUIET, **ours},
            capture_output=True,
            text=True,
            timeout=START_TO_END_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    try:
        yield run
    finally:
        end(lambda: processes_with(str(home)) | processes_with(f"127.0.0.1:{port}"))


def processes_with(text):
    """Processes whose command line holds `text`."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in path.read_bytes():
                found.add(int(path.parent.name))
        except OSError:
            continue
    return found


def end(find):
    """Ask the processes that `find` names to stop, until there are none."""
    until = time.monotonic() + 60.0
    while pids := find():
        late = time.monotonic() > until - 30.0
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
            except ProcessLookupError:
                continue
        assert time.monotonic() < until, f"still there: {pids}"
        time.sleep(1.0)


def facts_in(path):
    with safe_open(path, framework="numpy") as file:
        return file.metadata()["facts"]


def test_flwr_run_gives_the_model_of_the_in_process_run(tmp_path):
    prepared = prepare(load_scenario("synthetic", SMALL))
    here, there = tmp_path / "here", tmp_path / "there"
    expected = simulate(prepared, here).result["model_digest"]
    write_workspace(prepared, there)
    with flwr(tmp_path) as run:
        text = run(
            *("run", str(REPOSITORY), "--stream"),
            *("--run-config", f'workspace="{there}"', "--federation-config", NODES),
        )
        unpacked = list((tmp_path / "flwr-home" / "apps").rglob("*.*"))
    assert "publish: 3 of 3 silos answered" in text, text
    assert expected in facts_in(there / "model.safetensors")
    assert (there / "model.safetensors").read_bytes() == (here / "model.safetensors").read_bytes()
    assert not [path for path in unpacked if path.suffix == ".py"]


def test_bundle_holds_no_code(tmp_path):
    with flwr(tmp_path) as run:
        run("build", "--app", str(REPOSITORY))
    (bundle,) = (tmp_path / "neutral").glob("*.fab")
    names = {name for name in zipfile.ZipFile(bundle).namelist() if not name.startswith(".info/")}
    assert names == {"pyproject.toml", "LICENSE"}


def test_flwr_run_without_a_workspace_ends_with_the_reason(tmp_path):
    with flwr(tmp_path) as run:
        text = run("run", str(REPOSITORY), "--stream", "--federation-config", NODES)
    assert "does not exist; prepare it with fondaco-simulate prepare" in text
