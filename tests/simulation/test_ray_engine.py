"""Flower's own simulation gives what the in-process Grid gives, and leaves nothing behind."""

import gc
import logging
import os
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.supercore import telemetry
from flwr.supercore.task_identity import TaskIdentity

from fondaco.client import app as client_app
from fondaco.client.agent import SiloAgent
from fondaco.client.home import SiloHome
from fondaco.server import app as server_app
from fondaco.server.app import Job, Outcome
from fondaco.server.global_model import model_digest
from fondaco.shared.chain.keys import COORDINATOR, Identity
from fondaco.shared.errors import ConfigError, RefusalError, RoundError
from fondaco.shared.parts import to_message
from fondaco.shared.workspace import Workspace
from fondaco.simulation import ray_engine
from fondaco.simulation.grid import InProcessGrid, run_server_app
from fondaco.simulation.library import load_scenario
from fondaco.simulation.run import prepare

BROKEN = "merchant-3"
SMALL = (
    "silos.count=5",
    "silos.min_present=4",
    "dataset.n_users=400",
    "dataset.n_items=120",
    "dataset.declared_users=400",
    "privacy.head=50",
)


def family(pid):
    """Processes below `pid`."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(text.rpartition(")")[2].split()[1])
    found, edge = set(), {pid}
    while edge:
        edge = {child for child, parent in parents.items() if parent in edge} - found
        found |= edge
    return found


def runs(pid):
    """Whether a process is there and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def open_ports(pids):
    """(port, whether only this machine reaches it) of every listening socket of `pids`."""
    sockets = {}
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            address, state, inode = (line.split()[at] for at in (1, 3, 9))
            host, port = address.split(":")
            if state == "0A":
                sockets[f"socket:[{inode}]"] = int(port, 16), host.endswith("0100007F")
    found = set()
    for fd in (fd for pid in pids for fd in Path(f"/proc/{pid}/fd").glob("*")):
        with suppress(OSError):  # closed meanwhile
            found |= {sockets[link] for link in [os.readlink(fd)] if link in sockets}
    return found


@dataclass
class Seen:
    """What had been started when the first round ended."""

    before: set[int] = field(default_factory=lambda: family(os.getpid()))
    processes: set[int] = field(default_factory=set)
    ports: set[tuple[int, bool]] = field(default_factory=set)

    def __call__(self, stage, heard, asked):
        if stage == "popularity" and heard == asked:
            self.processes = family(os.getpid()) - self.before
            self.ports = open_ports(self.processes | {os.getpid()})


def make_job(prepared, folder, progress=lambda *_: None):
    workspace = Workspace(folder)
    workspace.prepare(prepared.plan, prepared.market.catalogue, prepared.silo_ids, seed=0)
    ledger = SiloHome(folder, BROKEN).ledger
    ledger.parent.mkdir()
    ledger.write_text("not a ledger")
    return Job(
        plan=prepared.plan,
        catalogue=prepared.market.catalogue,
        workspace=workspace,
        deadline_s=120.0,
        progress=progress,
        identity=Identity.seeded(prepared.scenario.seed, COORDINATOR),
    )


def in_process(prepared, folder) -> Outcome:
    job, done = make_job(prepared, folder), []
    homes = [SiloHome(folder, silo_id) for silo_id in prepared.silo_ids]
    agents = [
        SiloAgent(silo, job.plan, job.catalogue, home, 0)
        for silo, home in zip(prepared.silos, homes, strict=True)
    ]
    courier = client_app.make_app(lambda context: agents[int(context.node_config["partition-id"])])
    run_server_app(server_app.make_app(job, done.append), InProcessGrid(courier, len(agents)))
    return done[0]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """(in-process outcome, Ray's outcome, Ray's folder, what ran) of five silos, one broken."""
    prepared = prepare(load_scenario("synthetic", SMALL))
    seen, folder = Seen(), tmp_path_factory.mktemp("ray")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of files that Ray never closes
        outcome = ray_engine.federate_with_ray(make_job(prepared, folder, seen), prepared.silos)
        gc.collect()
    return in_process(prepared, tmp_path_factory.mktemp("here")), outcome, folder, seen


@pytest.mark.slow
def test_ray_engine_gives_the_model_of_the_in_process_grid(both):
    here, ray, _, _ = both
    assert model_digest(ray.model) == model_digest(here.model)
    assert [r.present for r in ray.rounds] == [r.present for r in here.rounds]
    assert len(ray.rounds[0].present) == 4


@pytest.mark.slow
def test_ray_engine_names_a_failing_silo_in_the_same_words(both):
    here, ray, _, _ = both

    def reasons(outcome):  # before the roll call a silo is only a node; folders differ
        return [(d.round_num, d.reason.split("/")[-1]) for d in outcome.dropped]

    assert reasons(ray) == reasons(here)
    assert len(ray.dropped) == 1


@pytest.mark.slow
def test_ray_engine_takes_the_data_out_of_the_workspace_again(both):
    _, _, folder, _ = both
    assert not (folder / "silos").exists()
    assert (folder / "model.safetensors").is_file()


@pytest.mark.slow
def test_ray_engine_listens_on_the_loopback_address_only(both):
    *_, seen = both
    assert seen.ports
    assert {port for port, private in seen.ports if not private} == set()


@pytest.mark.slow
def test_ray_engine_ends_every_process_it_started(both):
    *_, seen = both
    until = time.monotonic() + 30.0
    while any(runs(pid) for pid in seen.processes):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert len(seen.processes) >= 3


def test_ray_engine_without_ray_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(ray_engine, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'fondaco\[ray\]'"):
        ray_engine.run_with_ray(lambda grid: None, client_app.app, 2)


def test_courier_answers_a_failure_with_its_public_reason(monkeypatch):
    for name in ("task_id", "run_id", "node_id"):
        monkeypatch.setattr(TaskIdentity, f"_{name}", 1)

    def refuse(context):
        raise RefusalError("the plan is another one")

    asked = Message(to_message(b""), 2, "query.status")
    context = Context(1, 2, {"partition-id": 0}, RecordDict(), {})
    reply = ray_engine.Courier(refuse)(asked, context)
    assert reply.error.reason == "RefusalError: the plan is another one"


def test_grid_fails_once_the_simulation_is_over():
    stopped = ray_engine.threading.Event()
    grid = ray_engine._StoppableGrid(InProcessGrid(client_app.app, 2), stopped)
    assert len(grid.get_node_ids()) == 2
    stopped.set()
    with pytest.raises(RoundError, match="has ended"):
        grid.get_node_ids()


def test_telemetry_stays_off_even_if_flower_was_imported_with_it(monkeypatch):
    monkeypatch.setattr(telemetry, "FLWR_TELEMETRY_ENABLED", "1")
    monkeypatch.setenv("PYTHONPATH", "before")
    with ray_engine._private_flower() as scratch:
        os.environ["PYTHONPATH"] = "changed by Flower"
        assert telemetry.create_event(telemetry.EventType.PING, None) == "disabled"
        assert os.environ["FLWR_HOME"] == str(scratch)
    assert os.environ["PYTHONPATH"] == "before"
    assert not scratch.exists()


def test_log_filter_drops_the_known_deprecation_only():
    def record(*args):
        return logging.LogRecord(
            "flwr", logging.WARNING, "", 0, "DEPRECATED FEATURE: %s", args, None
        )

    assert not ray_engine._is_news(record("The `run_simulation` function is deprecated"))
    assert ray_engine._is_news(record("`ServerApp(server=)` is deprecated"))
