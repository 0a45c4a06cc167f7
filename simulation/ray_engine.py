"""The same federation through Flower's own simulation, every silo in one of Ray's processes.

`run_simulation` is deprecated in favour of `flwr run`, but that one needs a SuperLink with an
open port and no log-in; here nothing listens beyond the loopback address, nothing is sent to
Flower or Ray, and what was started has ended when the call returns.
"""

import logging
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid, ServerApp
from flwr.supercore import telemetry

from fondaco.client import app as client_app
from fondaco.client.agent import SiloAgent
from fondaco.client.boundary.app import SiloError
from fondaco.client.dataset import SiloDataset
from fondaco.client.dataset_files import save_silo
from fondaco.client.state import open_agent
from fondaco.server.app import Job, Outcome, run_job
from fondaco.shared import FLOWER_SWITCHES
from fondaco.shared.errors import ConfigError, FondacoError, RoundError

Serve = Callable[[Grid], None]
"""A server's side of a run."""
LONGEST_SCRATCH = 40
"""Ray's sockets lie 65 characters below its folder, and a socket's path has at most 104."""

_ENVIRONMENT = {
    **FLOWER_SWITCHES,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def federate_with_ray(job: Job, silos: Sequence[SiloDataset]) -> Outcome:
    """Run `job` with every silo opened from disk by Ray's processes.

    The workspace must be prepared. Silos' data that were not in it are taken out again at the
    end.

    Raises:
        ConfigError: Ray is not installed, or already runs in this process.
        RoundError: too few silos took part, or Flower's simulation broke down.
    """
    done: list[Outcome] = []
    connect = partial(_open_silo, job.workspace.folder.resolve())
    with _on_disk(job, silos):
        run_with_ray(lambda grid: done.append(run_job(grid, job)), Courier(connect), len(silos))
    if not done:
        raise RoundError("the server app ended without a result")
    return done[0]


def run_with_ray(serve: Serve, silo_app: ClientApp, n_silos: int) -> None:
    """Call `serve` with the Grid of a Flower simulation of `n_silos` nodes.

    Args:
        serve: the server's side; runs in a thread of its own.
        silo_app: what every silo runs; is copied into Ray's processes, one per core.
        n_silos: virtual nodes; `node_config["partition-id"]` counts them from 0.

    Raises:
        ConfigError: Ray is not installed, or already runs in this process.
        RoundError: Flower's simulation broke down.
        Whatever `serve` raises.
    """
    _check_ray()
    stopped = threading.Event()
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        del context  # nothing that matters may come from a run config
        serve(cast(Grid, _StoppableGrid(grid, stopped)))

    with _private_flower() as scratch:
        from flwr.simulation import run_simulation  # noqa: PLC0415  (imports half of Flower)

        try:
            run_simulation(server_app, silo_app, n_silos, backend_config=_backend(scratch))
        except FondacoError:
            raise
        except RuntimeError as error:
            raise RoundError(f"Flower's simulation ended early: {_root_of(error)}") from error
        finally:
            stopped.set()


class Courier(ClientApp):
    """`fondaco.client.app`, its failures answered as a SuperNode answers them.

    Flower's simulation would send the traceback of Ray's process instead.
    """

    def __init__(self, connect: client_app.Connect) -> None:
        super().__init__()
        self._connect = connect

    def __call__(self, message: Message, context: Context) -> Message:
        """Return the silo's reply, or the public reason for having none."""
        try:
            return client_app.make_app(self._connect)(message, context)
        except SiloError as error:
            failure = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, str(error))
            return Message(failure, reply_to=message)


class _StoppableGrid:
    """A Grid that fails once the simulation is over, so that no server waits for the dead."""

    def __init__(self, grid: Grid, stopped: threading.Event) -> None:
        self._grid = grid
        self._stopped = stopped

    def __getattr__(self, name: str) -> object:
        if self._stopped.is_set():
            raise RoundError("Flower's simulation has ended")
        return getattr(self._grid, name)


def _open_silo(folder: Path, context: Context) -> SiloAgent:
    return open_agent(folder, int(context.node_config["partition-id"]))


@contextmanager
def _on_disk(job: Job, silos: Sequence[SiloDataset]) -> Iterator[None]:
    """Write every silo's data for the body; leave behind only what was there before."""
    folders = [job.workspace.silo(silo.silo_id) for silo in silos]
    new = [folder for folder in folders if not folder.is_dir()]
    try:
        for silo, folder in zip(silos, folders, strict=True):
            save_silo(silo, folder)
        yield
    finally:
        for folder in new:
            shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            job.workspace.silo("any").parent.rmdir()


def _check_ray() -> None:
    if find_spec("ray") is None:
        raise ConfigError("engine.kind 'ray' needs Ray: pip install 'fondaco[ray]'")
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        raise ConfigError("Ray already runs in this process; call ray.shutdown() first")


def _backend(scratch: Path) -> dict[str, Any]:
    init_args = {
        "address": "local",
        "num_cpus": _cores(),
        "include_dashboard": False,
        "log_to_driver": False,
        "logging_level": "ERROR",
    }
    if len(str(scratch)) <= LONGEST_SCRATCH:
        init_args["_temp_dir"] = str(scratch)
    return {"init_args": init_args, "client_resources": {"num_cpus": 1, "num_gpus": 0.0}}


def _cores() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _private_flower() -> Iterator[Path]:
    """Keep Flower and Ray on this machine, quiet, and in a folder that is then removed."""
    with (
        tempfile.TemporaryDirectory(prefix="fondaco-", ignore_cleanup_errors=True) as scratch,
        _environment({**_ENVIRONMENT, "FLWR_HOME": scratch}),
        _loopback_only(),
        _quiet_log(logging.getLogger("flwr")),
    ):
        # Read once when imported, which may have been before the environment was set.
        telemetry.FLWR_TELEMETRY_ENABLED = "0"
        yield Path(scratch)


@contextmanager
def _quiet_log(log: logging.Logger) -> Iterator[None]:
    level = log.level
    log.setLevel(logging.WARNING)
    log.addFilter(_is_news)
    try:
        yield
    finally:
        log.removeFilter(_is_news)
        log.setLevel(level)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables for the body; Flower also changes PYTHONPATH."""
    before = {name: os.environ.get(name) for name in (*values, "PYTHONPATH")}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _loopback_only() -> Iterator[None]:
    """Let Ray listen on the loopback address: it would on all, and run what anybody sends.

    Ray has a switch for it, meant for other systems and read when Ray is imported.
    """
    from ray._private import ray_constants  # noqa: PLC0415  (an optional extra)

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        with _environment({ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}):
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _is_news(record: logging.LogRecord) -> bool:
    """Return False for the one deprecation that this module lives with."""
    return not (
        str(record.msg).startswith("DEPRECATED FEATURE") and "`run_simulation`" in str(record.args)
    )


def _root_of(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}"
