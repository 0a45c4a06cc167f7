"""Flower ServerApp: the coordinator's main, the same in a simulation and between machines."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from numpy.typing import NDArray

from fondaco.shared.catalogue import Catalogue
from fondaco.shared.chain.keys import COORDINATOR, Identity
from fondaco.shared.codec import Shapes
from fondaco.shared.errors import ConfigError
from fondaco.shared.models import PublicFacts
from fondaco.shared.models.terms import FUSION, POPULARITY, PlannedModels, combiner_of
from fondaco.shared.privacy.events import PrivacyEvent
from fondaco.shared.privacy.plan import MASKED, RunPlan
from fondaco.shared.records import GlobalModel
from fondaco.shared.workspace import Workspace

from .checkpoint import Checkpoints, Dropped, RoundResult
from .cohort import Cohort
from .fusion import choose_weights
from .global_model import (
    Artefact,
    build_base,
    choose_head,
    continue_model,
    joint_stddev,
    model_digest,
    save_global_model,
)
from .journal import Journals
from .learning import Learner
from .masked import collect_masked
from .rounds import NOTHING_MORE, About, Coordinator, Progress
from .watch import Watch
from .witness import WitnessBook


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of one plan.

    Attributes:
        deadline_s: time after which a round goes on without the missing silos [s].
        weights: public weight of each silo in an average.
        identity: the coordinator's key.
        watch: told how the run goes.
        continued: an earlier run whose popularity, Gram and parameters this one starts from.
    """

    plan: RunPlan
    catalogue: Catalogue
    workspace: Workspace
    deadline_s: float
    progress: Progress
    identity: Identity
    watch: Watch = field(default_factory=Watch)
    weights: Mapping[str, float] = field(default_factory=dict)
    continued: Artefact | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run gave.

    Attributes:
        seconds: kind of release -> wall time of its rounds, silos included [s].
    """

    model: GlobalModel
    rounds: tuple[RoundResult, ...]
    dropped: tuple[Dropped, ...]
    seconds: Mapping[str, float]


def run_job(grid: Grid, job: Job) -> Outcome:
    """Run every planned round that has no checkpoint yet, then build and publish the model.

    Raises:
        RoundError: too few silos took part in a round.
    """
    coordinator = coordinator_of(grid, job)
    return _Run(coordinator, job, coordinator.roll_call()).finish()


def coordinator_of(grid: Grid, job: Job) -> Coordinator:
    """Return what runs the rounds of `job`."""
    return Coordinator(
        grid,
        job.plan,
        Shapes.of_plan(job.plan),
        deadline_s=job.deadline_s,
        progress=job.progress,
        weights=job.weights,
        book=WitnessBook(job.workspace.witness, job.plan, job.identity),
        watch=job.watch,
    )


class _Run:
    """Goes through the plan's releases in order, with what each needs of those before it."""

    def __init__(self, coordinator: Coordinator, job: Job, cohort: Cohort) -> None:
        self._coordinator = coordinator
        self._job = job
        self._plan = job.plan
        self._cohort = cohort
        self._checkpoints = Checkpoints(job.workspace.checkpoints, job.plan.digest)
        self._journals = Journals(job.workspace.journals)
        self._rounds: list[RoundResult] = []
        self._published: GlobalModel | None = None
        self._unreached: list[Dropped] = []
        self._seconds: dict[str, float] = {}

    def finish(self) -> Outcome:
        """Run what is missing, publish the model and say how it went."""
        model = self._base()
        if PlannedModels.of_plan(self._plan).iterative:
            model = replace(model, parameters=self._learn(model))
        if self._events(FUSION):
            digest = self._publish(model)
            gains = self._once(FUSION, About(model_digest=digest))
            noise = joint_stddev(self._plan, gains)
            model = replace(model, fusion=choose_weights(self._plan, gains.total, noise))
        self._publish(model)
        self._coordinator.witness(self._cohort)
        model = replace(model, after_round=len(self._plan.releases))
        save_global_model(model, self._plan, self._job.workspace.model)
        lost = [drop for result in self._rounds for drop in result.dropped]
        return Outcome(
            model=model,
            rounds=tuple(self._rounds),
            dropped=(*self._cohort.dropped, *lost, *self._unreached),
            seconds=self._seconds,
        )

    def _base(self) -> GlobalModel:
        """Popularity and Gram: released now, or those of the run that is continued."""
        if self._job.continued is not None:
            return continue_model(self._plan, self._job.continued)
        popularity = self._once(POPULARITY)
        gram = None
        if self._events("gram"):
            head = choose_head(self._plan, popularity.total)
            gram = self._once("gram", About(head=head))
        return build_base(self._plan, self._job.catalogue, popularity, gram)

    def _learn(self, model: GlobalModel) -> NDArray[np.float32]:
        """Learn every iterative model on top of `model`; return all their parameters."""
        digest = self._publish(model)
        facts = PublicFacts(catalogue=self._job.catalogue, model=model)
        planned = PlannedModels.of_plan(self._plan)
        known = self._job.continued
        learned = []
        for name in planned.iterative:
            start = known.parameters_of(name, planned.n_parameters[name]) if known else None
            learner = Learner(name, self._plan, facts, start)
            for event in self._events(name):
                sent = learner.parameters
                learner.absorb(self._finished(event, About(parameters=sent, model_digest=digest)))
            learned.append(learner.final())
        return np.concatenate(learned)

    def _events(self, kind: str) -> list[PrivacyEvent]:
        return [event for event in self._plan.releases if event.kind == kind]

    def _once(self, kind: str, about: About = NOTHING_MORE) -> RoundResult:
        return self._finished(self._events(kind)[0], about)

    def _finished(self, event: PrivacyEvent, about: About) -> RoundResult:
        """Return the round's result, from its checkpoint if it has been finished."""
        start = time.perf_counter()
        result = self._checkpoints.load(event.round_num)
        if result is None:
            self._cohort = self._coordinator.welcome(self._cohort, self._published)
            result = self._collected(event, about)
            self._checkpoints.save(result)
        self._journals.remove(event.round_num)
        self._rounds.append(result)
        spent = time.perf_counter() - start
        self._job.watch.round_done(result, spent)
        self._seconds[event.kind] = self._seconds.get(event.kind, 0.0) + spent
        return result

    def _collected(self, event: PrivacyEvent, about: About) -> RoundResult:
        if self._plan.secure_aggregation == MASKED:
            return collect_masked(self._coordinator, self._cohort, event, self._journals, about)
        aggregator = combiner_of(self._plan, event.kind)
        return self._coordinator.collect(self._cohort, event, about, aggregator=aggregator)

    def _publish(self, model: GlobalModel) -> str:
        """Send the model to all silos; return its digest."""
        model = replace(model, after_round=len(self._rounds))
        self._published = model
        self._unreached += self._coordinator.publish(self._cohort, model)
        return model_digest(model)


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
    """Run the simulation's workspace that the run config names (`flwr run`).

    Raises:
        ConfigError: its plan is none of a simulation: a deployed one runs under
            `fondaco-server start`, which names no folder.
    """
    workspace = Workspace(Path(str(context.run_config["workspace"])))
    plan = workspace.read_plan()
    if plan.mode != "simulation":
        raise ConfigError(f"{workspace.folder} holds a plan for {plan.mode!r}; see fondaco-server")
    _, seed = workspace.read_silos()
    job = Job(
        plan=plan,
        catalogue=workspace.read_catalogue(plan),
        workspace=workspace,
        deadline_s=600.0,
        progress=_print_progress,
        identity=Identity.seeded(seed, COORDINATOR),
    )
    run_job(grid, job)


def _print_progress(stage: str, heard: int, asked: int) -> None:
    if heard == asked:
        print(f"{stage}: {heard} of {asked} silos answered")  # noqa: T201  (Flower's log)
