"""Our in-process Grid against Flower's Ray simulation: the same apps, in one run."""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from fondaco.client import app as client_app
from fondaco.client.agent import SiloAgent
from fondaco.client.home import SiloHome
from fondaco.server.app import Job, Outcome, run_job
from fondaco.server.global_model import model_digest
from fondaco.shared.chain.keys import COORDINATOR, Identity
from fondaco.shared.errors import RoundError
from fondaco.shared.parts import to_message
from fondaco.shared.workspace import Workspace

from ..grid import InProcessGrid
from ..library import load_scenario
from ..ray_engine import federate_with_ray, run_with_ray
from ..run import Prepared, prepare
from .common import Row, record

MESSAGE_BYTES = 10_000
DEADLINE_S = 600.0
UNITS = {
    "message": "bytes",
    "in_process": "s",
    "ray": "s",
    "ray_start": "s",
    "ratio": "1",
}


def echo_app() -> ClientApp:
    """Return a ClientApp that sends back what it gets."""
    app = ClientApp()

    @app.query("echo")
    def echo(message: Message, context: Context) -> Message:
        del context
        return Message(message.content, reply_to=message)

    return app


def time_echoes(grid: Grid, n_silos: int, rounds: int) -> list[float]:
    """Return the wall time of each of `rounds` rounds to all nodes of `grid` [s].

    Raises:
        RoundError: a node did not answer.
    """
    content = to_message(bytes(MESSAGE_BYTES))
    nodes = _wait_for_nodes(grid, n_silos)
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        messages = [Message(content, node, "query.echo", group_id="echo") for node in nodes]
        replies = list(grid.send_and_receive(messages, timeout=DEADLINE_S))
        times.append(time.perf_counter() - start)
        heard = sum(not reply.has_error() for reply in replies)
        if heard != n_silos:
            raise RoundError(f"{heard} of {n_silos} silos answered an echo")
    return times


def _wait_for_nodes(grid: Grid, n_silos: int) -> list[int]:
    """Return the nodes once all are there: Flower's simulation adds them while it starts."""
    until = time.monotonic() + DEADLINE_S
    while len(nodes := list(grid.get_node_ids())) < n_silos and time.monotonic() < until:
        time.sleep(0.05)
    return nodes


def measure_echo(n_silos: int, rounds: int) -> list[Row]:
    """Return medians over rounds of tiny messages, handed over by reference and as bytes.

    Ray's first round holds its start, which stands apart.
    """
    ray: list[float] = []

    def serve(grid: Grid) -> None:
        ray.extend(time_echoes(grid, n_silos, rounds + 1))

    def here(*, serialise: bool) -> list[float]:
        return time_echoes(InProcessGrid(echo_app(), n_silos, serialise=serialise), n_silos, rounds)

    before = here(serialise=False), here(serialise=True)
    run_with_ray(serve, echo_app(), n_silos)
    after = here(serialise=False), here(serialise=True)
    with_ray = statistics.median(ray[1:])
    rows: list[Row] = []
    for how, early, late in zip(("by reference", "as bytes"), before, after, strict=True):
        in_process = statistics.median(early + late)
        rows.append(
            {
                "job": f"a round of echoes, {how}",
                "silos": n_silos,
                "message": MESSAGE_BYTES,
                "in_process": in_process,
                "ray": with_ray,
                "ray_start": ray[0] - with_ray,
                "ratio": with_ray / in_process,
            }
        )
    return rows


@dataclass
class Clock:
    """Progress of a job -> when its first silo was heard; until then engines only start."""

    start: float = field(default_factory=time.perf_counter)
    first: float = 0.0

    def __call__(self, stage: str, heard: int, asked: int) -> None:
        """Note the first reply."""
        if heard and not self.first:
            self.first = time.perf_counter()


def measure_job(n_silos: int, seed: int) -> Row:
    """Return the time of a whole federation of the synthetic marketplace.

    Raises:
        RoundError: the engines do not give the same model.
    """
    prepared = prepare(
        load_scenario(
            "synthetic",
            [f"silos.count={n_silos}", f"seed={seed}", "silos.epsilon_if_masking_broke=1500"],
        )
    )
    here, in_process, _ = _timed(prepared, lambda job: _in_process(job, prepared, seed))
    ray, with_ray, start = _timed(prepared, lambda job: federate_with_ray(job, prepared.silos))
    if model_digest(here.model) != model_digest(ray.model):
        raise RoundError("the engines gave different models")
    widest = max(event.dim for event in prepared.plan.releases)
    return {
        "job": "a whole federation",
        "silos": n_silos,
        "message": 8 * widest,
        "in_process": in_process,
        "ray": with_ray - start,
        "ray_start": start,
        "ratio": (with_ray - start) / in_process,
    }


def _timed(prepared: Prepared, federate: Callable[[Job], Outcome]) -> tuple[Outcome, float, float]:
    """Return the outcome, the time of all, and the time until the first silo was heard [s]."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder))
        catalogue = prepared.market.catalogue
        workspace.prepare(prepared.plan, catalogue, prepared.silo_ids, prepared.scenario.seed)
        clock = Clock()
        job = Job(
            plan=prepared.plan,
            catalogue=catalogue,
            workspace=workspace,
            deadline_s=DEADLINE_S,
            progress=clock,
            identity=Identity.seeded(prepared.scenario.seed, COORDINATOR),
        )
        outcome = federate(job)
        return outcome, time.perf_counter() - clock.start, clock.first - clock.start


def _in_process(job: Job, prepared: Prepared, seed: int) -> Outcome:
    agents = [
        SiloAgent(silo, job.plan, job.catalogue, SiloHome(job.workspace.folder, silo.silo_id), seed)
        for silo in prepared.silos
    ]
    app = client_app.make_app(lambda context: agents[int(context.node_config["partition-id"])])
    return run_job(InProcessGrid(app, len(agents)), job)


def main(
    *,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
    silos: Annotated[int, typer.Option(help="Silos of the echo.")] = 1000,
    rounds: Annotated[int, typer.Option(help="Rounds of the echo.")] = 3,
    job_silos: Annotated[int, typer.Option(help="Silos of the real job.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the real job.")] = 0,
) -> None:
    """Time both engines on tiny messages and on a real federation."""
    rows = [*measure_echo(silos, rounds), measure_job(job_silos, seed)]
    record("engines", rows, out, seed=seed, units=UNITS)


if __name__ == "__main__":
    typer.run(main)
