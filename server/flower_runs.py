"""A prepared run under Flower: submitted, followed, and submitted again when Flower loses it.

The SuperLink gives a run up once its ServerApp is silent for a minute. The checkpoints are ours,
so the next submission goes on where the last one stopped, and nothing is released twice.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fondaco.shared.errors import ConfigError, RoundError

from .deployed import SPARE_BYTES, PreparedRun
from .home import CONNECTION, ServerHome
from .nodes import said_yes
from .status import ENDED, Status, read_status

POLL_S = 1.0
ASK_FLOWER_S = 15.0
"""A status file that is older than this may be of a run that Flower has given up [s]."""
MOST_SUBMISSIONS = 5
START_S = 300.0
"""How long a ServerApp may take to begin where no other one has the run in hand [s]."""

Tell = Callable[[Status], None]


@dataclass(frozen=True, kw_only=True)
class Followed:
    """How a run, or its rehearsal, went.

    Attributes:
        submissions: how often Flower was given it.
        seconds: wall time [s].
    """

    status: Status
    submissions: int
    seconds: float


def run_to_its_end(home: ServerHome, run: PreparedRun, task: str, tell: Tell) -> Followed:
    """Submit a prepared run, or its rehearsal, until it has finished or failed.

    Args:
        home: the coordinator, which `fondaco-server start` keeps going.
        run: what is run.
        task: `run` or `preflight`.
        tell: told of every change.

    Raises:
        ConfigError: the SuperLink does not answer, or does not take the run.
        RoundError: Flower lost it again and again, or never began it.
    """
    start = time.monotonic()
    for submission in range(1, MOST_SUBMISSIONS + 1):
        before = _stamp(run.status(task))
        flower_id = _submit(home, run, task)
        status = _follow(home, flower_id, run, task, tell, before=before)
        if status is not None:
            seconds = time.monotonic() - start
            return Followed(status=status, submissions=submission, seconds=seconds)
    raise RoundError(
        f"Flower lost run {run.name} {MOST_SUBMISSIONS} times; what is finished is kept, see "
        f"{home.logs} and run the same command again"
    )


def _submit(home: ServerHome, run: PreparedRun, task: str) -> int:
    config = f'run="{run.name}" task="{task}"'
    said = said_yes(home, "run", str(home.app), CONNECTION, "--run-config", config)
    return int(said["run-id"])


def _follow(
    home: ServerHome, flower_id: int, run: PreparedRun, task: str, tell: Tell, *, before: int
) -> Status | None:
    """Return how the run ended, None if Flower lost it.

    A ServerApp of the same run that was submitted earlier goes first, and may say nothing while
    it waits for a silo: that is no reason to give up.
    """
    path = run.status(task)
    alive = looked = time.monotonic()
    begun = False
    while True:
        time.sleep(POLL_S)
        stamp = _stamp(path)
        if stamp != before:
            before, looked, begun = stamp, time.monotonic(), True
            status = read_status(path)
            tell(status)
            if status.state in ENDED:
                return status
        if not begun and time.monotonic() - alive > START_S:
            alive = time.monotonic()
            if not run.at_work():
                _require_room(home)
                raise RoundError(
                    f"the ServerApp did not begin within {START_S:g} s; see {home.logs}, and "
                    "whether this machine has enough of its processors to itself"
                )
        if time.monotonic() - looked > ASK_FLOWER_S:
            looked = time.monotonic()
            if _is_over(home, flower_id) and _stamp(path) == before:
                _require_room(home)
                return None


def _require_room(home: ServerHome) -> None:
    """Tell a full disk from all else: no ServerApp could write down how its run goes.

    Raises:
        RoundError: there is less room than a ServerApp needs.
    """
    free = shutil.disk_usage(home.folder).free
    if free < SPARE_BYTES:
        raise RoundError(
            f"the disk under {home.folder} is full, {free} bytes are free; make room there and "
            "run the same command again"
        )


def _is_over(home: ServerHome, flower_id: int) -> bool:
    """Return whether Flower has ended a run; a SuperLink that is away says nothing yet."""
    try:
        said = said_yes(home, "ls", CONNECTION, "--run-id", str(flower_id))
    except ConfigError:
        return False
    return any(str(run.get("status", "")).startswith("finished") for run in said.get("runs", []))


def _stamp(path: Path) -> int:
    return path.stat().st_mtime_ns if path.is_file() else 0
