"""What benchmarks share: lists as text, a federation alone with its own noise, its quality."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fondaco.client import app as client_app
from fondaco.client.agent import SiloAgent
from fondaco.client.home import SiloHome
from fondaco.server.app import Job, Outcome, run_job
from fondaco.shared.chain.keys import COORDINATOR, Identity, key_name
from fondaco.shared.errors import ConfigError
from fondaco.shared.metrics import evaluate
from fondaco.shared.models import PublicFacts
from fondaco.shared.models.published import GlobalParts
from fondaco.shared.models.terms import PlannedModels
from fondaco.shared.records import GlobalModel
from fondaco.shared.workspace import Workspace

from ..grid import InProcessGrid
from ..rankings import Rankings, pool, pool_training, rank_published
from ..run import Prepared, Stopwatch, prepare_silos, quiet, with_epsilon

DEADLINE_S = 600.0


def parse_seeds(text: str) -> list[int]:
    """Return the noise seeds of a list such as "0,1,2".

    Raises:
        ConfigError: it holds anything but integers from 0.
    """
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise ConfigError(f"--seeds {text!r} must be integers such as 0,1,2")
    return [int(part) for part in parts]


def at_epsilon(prepared: Prepared, epsilon: float) -> Prepared:
    """Return the same silos under a plan of another budget."""
    scenario = with_epsilon(prepared.scenario, epsilon)
    return prepare_silos(scenario, prepared.market, prepared.silos, Stopwatch())


def federate(prepared: Prepared, noise_seed: int) -> Outcome:
    """Run the rounds alone, in this process and a folder of its own; only the noise is seeded.

    Raises:
        RoundError: too few silos took part.
    """
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder))
        plan, catalogue = prepared.plan, prepared.market.catalogue
        seed = prepared.scenario.seed
        agents = [
            SiloAgent(
                silo,
                plan,
                catalogue,
                SiloHome(workspace.folder, silo.silo_id),
                noise_seed,
                keep_open=True,
                identity=Identity.seeded(seed, key_name(silo.silo_id)),
            )
            for silo in prepared.silos
        ]
        job = Job(
            plan=plan,
            catalogue=catalogue,
            workspace=workspace,
            deadline_s=DEADLINE_S,
            progress=quiet,
            identity=Identity.seeded(seed, COORDINATOR),
        )
        app = client_app.make_app(lambda context: agents[int(context.node_config["partition-id"])])
        try:
            return run_job(InProcessGrid(app, len(agents)), job)
        finally:
            for agent in agents:
                agent.close()


def published_quality(prepared: Prepared, model: GlobalModel) -> dict[str, float]:
    """Return the headline's mean over test customers, by system that needs only releases."""
    test = pool(prepared.silos, "test", keep_repeats=prepared.scenario.dataset.keep_repeats)
    rankings = Rankings(test, pool_training(prepared.silos))
    facts = PublicFacts(catalogue=prepared.market.catalogue, model=model)
    parts = GlobalParts(PlannedModels.of_plan(prepared.plan), facts)
    rank_published(rankings, prepared.silos, parts, prepared.scenario)
    metric, nobody = prepared.scenario.evaluation.headline, np.ones(test.targets.shape[1])
    return {
        system: float(evaluate(ranking, test.targets, (metric,), popularity=nobody)[metric].mean())
        for system, ranking in rankings.by_system.items()
    }


def spread(values: Sequence[float] | NDArray[np.float64]) -> float:
    """Return the standard deviation over seeds; 0 for one seed."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
