"""Flower ServerApp: the coordinator's main, the same in a simulation and between machines."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from numpy.typing import NDArray

from fondaco.shared.catalogue import Catalogue
from fondaco.shared.codec import Shapes
from fondaco.shared.privacy.plan import RunPlan
from fondaco.shared.records import GlobalModel
from fondaco.shared.workspace import Workspace

from .checkpoint import Checkpoints, Dropped, RoundResult
from .global_model import build_global_model, choose_head, save_global_model
from .rounds import Coordinator, Progress


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of one plan.

    Attributes:
        deadline_s: time after which a round goes on without the missing silos [s].
    """

    plan: RunPlan
    catalogue: Catalogue
    workspace: Workspace
    deadline_s: float
    progress: Progress


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run gave."""

    model: GlobalModel
    rounds: tuple[RoundResult, ...]
    dropped: tuple[Dropped, ...]


def run_job(grid: Grid, job: Job) -> Outcome:
    """Run every planned round that has no checkpoint yet, then build and publish the model.

    Raises:
        RoundError: too few silos took part in a round.
    """
    coordinator = Coordinator(
        grid,
        job.plan,
        Shapes.of_plan(job.plan),
        deadline_s=job.deadline_s,
        progress=job.progress,
    )
    checkpoints = Checkpoints(job.workspace.checkpoints, job.plan.digest)
    cohort = coordinator.roll_call()

    def finished(kind: str, round_num: int, head: NDArray[np.int64]) -> RoundResult:
        result = checkpoints.load(round_num)
        if result is None:
            result = coordinator.collect(cohort, kind, round_num, head)
            checkpoints.save(result)
        return result

    popularity = finished("popularity", 1, np.empty(0, dtype=np.int64))
    gram = finished("gram", 2, choose_head(job.plan, popularity.total))
    model = build_global_model(job.plan, job.catalogue, popularity, gram)
    save_global_model(model, job.workspace.model)
    unreached = coordinator.publish(cohort, model)
    dropped = (*cohort.dropped, *popularity.dropped, *gram.dropped, *unreached)
    return Outcome(model=model, rounds=(popularity, gram), dropped=dropped)


def make_app(job: Job, done: Callable[[Outcome], None]) -> ServerApp:
    """Return a ServerApp that runs `job` and hands its outcome to `done`."""
    server_app = ServerApp()

    @server_app.main()
    def run(grid: Grid, context: Context) -> None:
        del context  # nothing that matters may come from a run config
        done(run_job(grid, job))

    return server_app


app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the workspace that the run config names (`flwr run`)."""
    workspace = Workspace(Path(str(context.run_config["workspace"])))
    plan = workspace.read_plan()
    job = Job(
        plan=plan,
        catalogue=workspace.read_catalogue(plan),
        workspace=workspace,
        deadline_s=600.0,
        progress=_print_progress,
    )
    run_job(grid, job)


def _print_progress(stage: str, heard: int, asked: int) -> None:
    if heard == asked:
        print(f"{stage}: {heard} of {asked} silos answered")  # noqa: T201  (Flower's log)
