"""One scenario from rows to result: partition, federate in this process, measure."""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from fondaco.client import app as client_app
from fondaco.client.agent import SiloAgent
from fondaco.client.dataset import SiloDataset
from fondaco.client.dataset_files import save_silo
from fondaco.client.home import SiloHome
from fondaco.client.state import save_state, serving_facts
from fondaco.server import app as server_app
from fondaco.server.app import Job, Outcome
from fondaco.server.global_model import Artefact, load_global_model
from fondaco.shared import codec
from fondaco.shared.chain.keys import COORDINATOR, Identity
from fondaco.shared.errors import ConfigError, RoundError
from fondaco.shared.files import write_whole
from fondaco.shared.models.published import GlobalParts
from fondaco.shared.privacy.plan import RunPlan
from fondaco.shared.workspace import Workspace

from .datasets import load
from .evaluation import check_evaluation, measure
from .global_quality import parts_of, worth_of_parts
from .grid import InProcessGrid, run_server_app
from .marketplace import Marketplace
from .partition import partition, silo_weights
from .planning import make_plan
from .result import build_result, model_facts, write_result
from .scenario import EngineConfig, Scenario
from .step_cost import measure_steps
from .students import measure_student

MOST_OPEN = 200
"""Silos whose ledgers stay open between rounds: each takes three of the process' files."""

Progress = Callable[[str, int, int], None]
"""(stage, done, of) -> None; stages come one after another."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A scenario whose rows are cut into silos and whose plan is made; nothing is spent yet.

    Attributes:
        continued: the earlier run that this one goes on from, if any.
    """

    scenario: Scenario
    market: Marketplace
    silos: Sequence[SiloDataset]
    plan: RunPlan
    timings_s: Mapping[str, float]
    continued: Artefact | None = None

    @property
    def silo_ids(self) -> list[str]:
        """The silos, in order."""
        return [silo.silo_id for silo in self.silos]


@dataclass(frozen=True, kw_only=True, eq=False)
class Simulation:
    """A finished run.

    Attributes:
        result: what `result.json` holds (schema 2).
        agents: one per silo, with the global model.
    """

    prepared: Prepared
    outcome: Outcome
    agents: Sequence[SiloAgent]
    result: Mapping[str, Any]


class Stopwatch:
    """Wall time per stage [s]."""

    def __init__(self) -> None:
        self.timings_s: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time the body as `stage`."""
        start = time.perf_counter()
        yield
        self.timings_s[stage] = round(time.perf_counter() - start, 3)


def quiet(stage: str, done: int, of: int) -> None:
    """Report no progress."""
    del stage, done, of


def prepare(
    scenario: Scenario, progress: Progress = quiet, *, continues: Path | None = None
) -> Prepared:
    """Load the data set, cut it into silos and make the plan.

    Args:
        scenario: what to run.
        progress: told per stage.
        continues: folder of an earlier run on the same customers; its model is the start, and
            what it spent counts.

    Raises:
        ConfigError: a knob is out of range.
        DataError: the data set is missing or holds a bad row.
        ModelError: `continues` holds no model of this catalogue.
    """
    check_evaluation(scenario)
    watch = Stopwatch()
    progress("load", 0, 1)
    with watch("load"):
        n_merchants = scenario.silos.count or 10
        market = load(scenario.dataset, scenario.seed, n_merchants)
    progress("load", 1, 1)
    with watch("partition"):
        silos = partition(market, scenario.silos, scenario.dataset, scenario.seed)
    earlier = None
    if continues is not None:
        earlier = load_global_model(Workspace(continues).model, market.catalogue)
    return prepare_silos(scenario, market, silos, watch, earlier)


def prepare_silos(
    scenario: Scenario,
    market: Marketplace,
    silos: Sequence[SiloDataset],
    watch: Stopwatch,
    earlier: Artefact | None = None,
) -> Prepared:
    """Make the plan for silos that are cut already (a comparison cuts once)."""
    with watch("plan"):
        silo_ids = [silo.silo_id for silo in silos]
        plan = make_plan(scenario, market.catalogue, silo_ids, earlier.plan if earlier else None)
    return Prepared(
        scenario=scenario,
        market=market,
        silos=silos,
        plan=plan,
        timings_s=dict(watch.timings_s),
        continued=earlier,
    )


def simulate(
    prepared: Prepared, out: Path, progress: Progress = quiet, *, keep_silos: bool = False
) -> Simulation:
    """Run the federation and measure every system; `out` then holds ledgers and checkpoints.

    A folder in which the same run was killed is resumed: the result is the same and nothing is
    debited twice.

    Raises:
        ConfigError: `out` holds another run.
        RoundError: too few silos took part.
    """
    if not any(len(silo.test.user_nums) for silo in prepared.silos):
        raise ConfigError("no silo has a test customer; check the split in [dataset]")
    watch = Stopwatch()
    scenario, plan, catalogue = prepared.scenario, prepared.plan, prepared.market.catalogue
    workspace = _claim_workspace(prepared, out)
    agents = _agents(prepared, out)
    # Threads of BLAS spin against each other when the cores are busy: up to 50 times slower.
    with threadpool_limits(1):
        with watch("federation"):
            outcome = _federate(prepared, workspace, agents, progress)
        measured = measure(
            prepared.silos, outcome.model, plan, catalogue, scenario=scenario, progress=progress
        )
        about_global = _about_global(prepared, outcome, out, watch, progress)
    if keep_silos:
        with watch("keep silos"):
            _keep_silos(agents, workspace, prepared)
    timings = {**prepared.timings_s, **watch.timings_s, **measured.timings_s}
    return Simulation(
        prepared=prepared,
        outcome=outcome,
        agents=agents,
        result=build_result(
            scenario,
            prepared.market,
            plan,
            outcome=outcome,
            measured=measured,
            about_global=about_global,
            timings_s=timings,
        ),
    )


def _about_global(
    prepared: Prepared, outcome: Outcome, out: Path, watch: Stopwatch, progress: Progress
) -> dict[str, Any]:
    """What the global model's parts cost and are worth, and how well it can be imitated."""
    scenario, plan, catalogue = prepared.scenario, prepared.plan, prepared.market.catalogue
    parts = parts_of(plan, outcome.model, catalogue)
    facts: dict[str, Any] = {"students": {}, "worth": {}}
    if scenario.student.rank:
        with watch("student"):
            facts["students"] = measure_student(prepared.silos, parts, scenario, out)
    if scenario.evaluation.reference and len(scenario.models) > 1 and not prepared.continued:
        with watch("reference"):
            facts["worth"] = _worth_of_parts(prepared, parts, out, progress)
    with watch("step costs"):
        ratios = measure_steps(prepared.silos, outcome.model, plan, catalogue)
    return {**facts, "models": model_facts(plan, outcome, ratios)}


def _worth_of_parts(
    prepared: Prepared, parts: GlobalParts, out: Path, progress: Progress
) -> dict[str, Any]:
    """Learn the first part alone with the whole budget, and hold all parts against it."""
    first = replace(prepared.scenario, models=parts.names[:1])
    alone = prepare_silos(first, prepared.market, prepared.silos, Stopwatch())
    outcome = federate(alone, out / "reference", progress)
    single = parts_of(alone.plan, outcome.model, alone.market.catalogue)
    return worth_of_parts(prepared.silos, parts, single, first)


def federate(prepared: Prepared, folder: Path, progress: Progress = quiet) -> Outcome:
    """Run the rounds alone, in `folder`; nothing is measured.

    Raises:
        RoundError: too few silos took part.
    """
    workspace = _claim_workspace(prepared, folder)
    with threadpool_limits(1):
        return _federate(prepared, workspace, _agents(prepared, folder), progress)


def _agents(prepared: Prepared, folder: Path) -> list[SiloAgent]:
    plan, catalogue, seed = prepared.plan, prepared.market.catalogue, prepared.scenario.seed
    keep_open = len(prepared.silos) <= MOST_OPEN
    return [
        SiloAgent(silo, plan, catalogue, SiloHome(folder, silo.silo_id), seed, keep_open=keep_open)
        for silo in prepared.silos
    ]


def _claim_workspace(prepared: Prepared, out: Path) -> Workspace:
    """Return the workspace, which a killed run of the same plan on the same rows may have begun.

    A plan knows public facts only, so it cannot tell that somebody's rows have changed; the
    simulation, which owns them all, can, and must: the rounds in the folder would be stale.
    """
    workspace = Workspace(out)
    scenario = prepared.scenario
    workspace.prepare(prepared.plan, prepared.market.catalogue, prepared.silo_ids, scenario.seed)
    path, digest = out / "rows.sha256", _rows_digest(prepared.silos)
    if not path.is_file():
        write_whole(path, digest)
    elif path.read_text(encoding="utf-8") != digest:
        raise ConfigError(
            f"{out} holds a run on other rows; choose another --out folder or remove it"
        )
    return workspace


def _rows_digest(silos: Sequence[SiloDataset]) -> str:
    sha = hashlib.sha256()
    for silo in silos:
        sha.update("\x00".join([silo.silo_id, *silo.user_ids.tolist()]).encode() + b"\x00")
        for rows in (silo.train, silo.valid.history, silo.valid.targets):
            sha.update(rows.user_nums.tobytes() + rows.item_nums.tobytes() + rows.times.tobytes())
    return sha.hexdigest()


def _keep_silos(agents: Sequence[SiloAgent], workspace: Workspace, prepared: Prepared) -> None:
    scenario = prepared.scenario
    facts = serving_facts(
        scenario.fusion,
        scenario.evaluation.headline,
        keep_repeats=scenario.dataset.keep_repeats,
    )
    for agent in agents:
        folder = workspace.silo(agent.silo_id)
        save_state(agent, prepared.market.catalogue, facts, folder)


def _federate(
    prepared: Prepared, workspace: Workspace, agents: Sequence[SiloAgent], progress: Progress
) -> Outcome:
    engine = prepared.scenario.engine
    job = Job(
        plan=prepared.plan,
        catalogue=prepared.market.catalogue,
        workspace=workspace,
        deadline_s=engine.deadline_s,
        progress=progress,
        identity=Identity.seeded(prepared.scenario.seed, COORDINATOR),
        weights=silo_weights(prepared.scenario.silos, prepared.silo_ids),
        continued=prepared.continued,
    )
    with ExitStack() as stack:
        for agent in agents:
            stack.callback(agent.close)
        return _run_engine(engine, job, prepared, agents)


def _run_engine(
    engine: EngineConfig, job: Job, prepared: Prepared, agents: Sequence[SiloAgent]
) -> Outcome:
    if engine.kind == "ray":
        from .ray_engine import federate_with_ray  # noqa: PLC0415  (an optional extra)

        outcome = federate_with_ray(job, prepared.silos)
        for agent in agents:  # Ray's processes had agents of their own
            agent.receive(codec.encode(outcome.model))
        return outcome
    done: list[Outcome] = []
    grid = InProcessGrid(
        client_app.make_app(lambda context: agents[int(context.node_config["partition-id"])]),
        len(agents),
        serialise=engine.serialise,
    )
    run_server_app(server_app.make_app(job, done.append), grid)
    if not done:
        raise RoundError("the server app ended without a result")
    return done[0]


def with_epsilon(scenario: Scenario, epsilon: float) -> Scenario:
    """Return `scenario` at another budget.

    Raises:
        ConfigError: epsilon is not positive.
    """
    if not epsilon > 0:
        raise ConfigError(f"{epsilon=} must be > 0")
    return replace(scenario, privacy=replace(scenario.privacy, epsilon=epsilon))


def compare(
    scenario: Scenario, epsilons: Sequence[float], out: Path, progress: Progress = quiet
) -> list[Mapping[str, Any]]:
    """Return one result per budget; the data set is loaded and cut once.

    Every run's files are in `out/epsilon-E`.

    Raises:
        As `prepare` and `simulate`.
    """
    first = prepare(with_epsilon(scenario, epsilons[0]), progress)
    results = []
    for epsilon in epsilons:
        chosen = with_epsilon(scenario, epsilon)
        prepared = prepare_silos(chosen, first.market, first.silos, Stopwatch())
        folder = out / f"epsilon-{epsilon:g}"

        def tell(stage: str, done: int, of: int, label: str = f"ε={epsilon:g}") -> None:
            progress(f"{label} {stage}", done, of)

        simulation = simulate(prepared, folder, tell)
        write_result(simulation.result, folder)
        results.append(simulation.result)
    return results


def parse_epsilons(text: str) -> list[float]:
    """Return the budgets of a list such as "1,2,4,8".

    Raises:
        ConfigError: it holds anything but positive numbers.
    """
    try:
        epsilons = [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--epsilon {text!r} must be numbers such as 1,2,4,8") from None
    if not epsilons or not all(0 < epsilon < float("inf") for epsilon in epsilons):
        raise ConfigError(f"--epsilon {text!r} must be positive numbers")
    return epsilons


def write_workspace(prepared: Prepared, out: Path) -> None:
    """Write plan, catalogue and every silo's data, for clients in other processes.

    Raises:
        ConfigError: `out` holds another run.
    """
    workspace = _claim_workspace(prepared, out)
    for silo in prepared.silos:
        if not workspace.silo(silo.silo_id).is_dir():
            save_silo(silo, workspace.silo(silo.silo_id))
