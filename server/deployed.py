"""Runs that a coordinator has prepared: one folder each, by the plan's digest."""

import errno
import fcntl
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flwr.serverapp import Grid

from fondaco.shared.catalogue import Catalogue
from fondaco.shared.errors import ConfigError, RoundError
from fondaco.shared.files import is_locked, takes_lock
from fondaco.shared.privacy.plan import RunPlan
from fondaco.shared.workspace import Workspace

from .app import Job, coordinator_of, run_job
from .home import ServerHome
from .status import ENDED, StatusFile, read_status

RUNS, STATUS, REHEARSAL = "runs", "status.json", "preflight.json"
LOCK = "run.lock"
TASKS = ("run", "preflight")
SPARE_BYTES = 2**20
"""More than any status file is long."""
_NAME = re.compile("[0-9a-f]{16}")


@dataclass(frozen=True)
class PreparedRun:
    """The folder of one plan's run at a coordinator."""

    folder: Path

    @classmethod
    def of(cls, home: ServerHome, name: str) -> "PreparedRun":
        """Return the run of that name.

        Raises:
            ConfigError: it is none, or was not prepared here.
        """
        folder = home.runs / name
        if not _NAME.fullmatch(name) or not folder.is_dir():
            raise ConfigError(f"no run {name[:40]!r} was prepared here; see fondaco-server run")
        return cls(folder)

    @property
    def name(self) -> str:
        """The first of the plan's digest."""
        return self.folder.name

    @property
    def workspace(self) -> Workspace:
        """Plan, catalogue, checkpoints, journals, witness book, model."""
        return Workspace(self.folder)

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Wait for another ServerApp of this run to end; give whether there was one.

        Whoever gives the same command twice has Flower start two of them.
        """
        with (self.folder / LOCK).open("w") as lock:
            waited = not takes_lock(lock)
            if waited:
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield waited

    def at_work(self) -> bool:
        """Return whether a ServerApp has the run in hand."""
        return is_locked(self.folder / LOCK)

    def status(self, task: str) -> Path:
        """The file that says how the run, or its rehearsal, goes."""
        return self.folder / (STATUS if task == "run" else REHEARSAL)


def prepare_run(home: ServerHome, plan: RunPlan, catalogue: Catalogue) -> PreparedRun:
    """Write what the ServerApp reads; a run that was prepared before is left as it is.

    Raises:
        ConfigError: the plan names another coordinator, or the catalogue is another one.
    """
    if plan.coordinator != home.identity.public.text():
        raise ConfigError("the plan names another coordinator's key than this folder's")
    if plan.catalogue_digest != catalogue.digest:
        raise ConfigError(f"the plan was made for another catalogue, {plan.catalogue_digest[:19]}")
    name = plan.digest.removeprefix("sha256:")[:16]
    run = PreparedRun(home.runs / name)
    run.workspace.prepare(plan, catalogue, list(plan.roster), seed=0)
    return run


def run_prepared(grid: Grid, home_folder: Path, name: str, task: str) -> None:
    """Run a prepared plan, or rehearse it; the status file says how it went.

    Raises:
        ConfigError: no such run or task.
        RoundError: too few silos took part.
    """
    home = ServerHome.open(home_folder)
    run = PreparedRun.of(home, name)
    if task not in TASKS:
        raise ConfigError(f"task {task[:40]!r} must be one of {TASKS}")
    with run.alone() as waited:
        # Whoever follows the run was told of that end, and asks anew if there is to be more.
        ended = run.status(task).is_file() and read_status(run.status(task)).state in ENDED
        if not (waited and ended):
            _take_up(grid, home, run, task)


def _take_up(grid: Grid, home: ServerHome, run: PreparedRun, task: str) -> None:
    plan = run.workspace.read_plan()
    status = StatusFile(run.status(task), plan)
    status.begin(task)
    job = Job(
        plan=plan,
        catalogue=run.workspace.read_catalogue(plan),
        workspace=run.workspace,
        deadline_s=home.settings.deadline_s,
        progress=_quiet,
        identity=home.identity,
        watch=status,
    )
    try:
        with _spare(run.folder):
            if task == "run":
                run_job(grid, job)
            else:
                _rehearse(grid, job)
    except Exception as error:
        if not _is_flowers(error):  # else the run is taken up again where it stopped
            status.finish("failed", str(error) or type(error).__name__)
        raise
    status.finish("finished")


@contextmanager
def _spare(folder: Path) -> Iterator[None]:
    """Take room that is given up at the end: a run that a full disk stops can still say so.

    Raises:
        RoundError: there is none.
    """
    path = folder / "spare"
    try:
        path.write_bytes(hashlib.shake_256(b"spare").digest(SPARE_BYTES))  # cannot be compressed
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise RoundError(
            f"the disk under {folder} is full ({error}); make room there and run this again"
        ) from error
    finally:
        path.unlink(missing_ok=True)


def _rehearse(grid: Grid, job: Job) -> None:
    """Go the way of a round without data: roll call, witnesses, as many bytes both ways.

    Raises:
        RoundError: too few silos came through.
    """
    coordinator = coordinator_of(grid, job)
    cohort = coordinator.roll_call()
    coordinator.witness(cohort)
    coordinator.rehearse(cohort)


def _is_flowers(error: Exception) -> bool:
    """Return whether the SuperLink went away or gave the run up, which says nothing of ours."""
    return type(error).__module__.partition(".")[0] in ("flwr", "httpx", "httpcore")


def _quiet(stage: str, heard: int, asked: int) -> None:
    del stage, heard, asked
