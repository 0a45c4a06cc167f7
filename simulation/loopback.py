"""A scenario as real processes on this machine: SuperLink, SuperNodes, agents, TLS and node keys.

Keys and seeds are those of the simulation, so the model must be that of the run in one process to
the last bit; all else is what runs between machines: the same commands, in the same order.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fondaco.client.courier_folder import account_of, make_courier, node_public
from fondaco.client.deployment import SOCKET, CourierSettings, Deployment, write_deployment
from fondaco.client.owner import Owner
from fondaco.server.global_model import save_global_model
from fondaco.server.home import KEY, ServerHome, ServerSettings
from fondaco.shared.chain.keys import COORDINATOR, Identity
from fondaco.shared.errors import ConfigError, RoundError
from fondaco.shared.kit import Registration
from fondaco.shared.plan_text import to_toml
from fondaco.shared.supervisor import FLOWER_ENV, Process, Program
from fondaco.shared.workspace import Workspace

from .hosts import Hosts
from .run import Prepared, Progress, federate, quiet, write_workspace

COMMAND_S = 1800.0
STOP_S = 90.0
"""How long `run` and `start` may take to end all that they keep going [s]."""


@dataclass(frozen=True, kw_only=True)
class Loopback:
    """How a run of processes went.

    Attributes:
        same: whether its model is that of the run in one process, to the last bit.
        seconds: stage -> wall time [s].
        status: what the coordinator said at the end, as `fondaco-server status --json` has it.
        lists: silo -> file of recommendations.
        audited: silo -> exit code of `fondaco-audit verify` on its ledger.
    """

    same: bool
    seconds: Mapping[str, float]
    status: Mapping[str, Any]
    lists: Mapping[str, str]
    audited: Mapping[str, int]

    @property
    def holds(self) -> bool:
        """Whether the run finished, with that model, and every ledger holds."""
        finished = self.status["state"] == "finished"
        return finished and self.same and not any(self.audited.values())


@dataclass
class Site:
    """The folders and processes of one coordinator and its silos.

    Attributes:
        out: everything lies under it.
        prepared: scenario, plan, rows.
        hosts: on which host each silo is.
    """

    out: Path
    prepared: Prepared
    hosts: Hosts
    running: dict[str, Process] = field(default_factory=dict)

    @property
    def coordinator(self) -> Path:
        """The coordinator's folder."""
        return self.out / "coordinator"

    @property
    def workspace(self) -> Workspace:
        """The simulated silos' folders."""
        return Workspace(self.out / "silos")

    @property
    def plan(self) -> Path:
        """The plan's file, with the catalogue beside it."""
        return self.workspace.folder / "plan.toml"

    def home(self, silo_id: str) -> Path:
        """A silo's folder."""
        return self.workspace.silo(silo_id)

    def courier(self, silo_id: str) -> Path:
        """Its courier's folder."""
        return self.out / "couriers" / self.home(silo_id).name

    def log(self, name: str) -> Path:
        """What a process said."""
        return self.out / "logs" / f"{name}.log"

    def set_up(self) -> None:
        """Make all folders, keys and certificates."""
        write_workspace(self.prepared, self.workspace.folder)
        self.plan.write_text(to_toml(self.prepared.plan), encoding="utf-8")
        (self.out / "logs").mkdir(exist_ok=True)
        self._set_up_coordinator()
        for silo_id in self.prepared.silo_ids:
            self._set_up_silo(silo_id)

    def _set_up_coordinator(self) -> None:
        self.coordinator.mkdir(mode=0o700, exist_ok=True)
        seed = self.prepared.scenario.seed
        Identity.seeded(seed, COORDINATOR).save(self.coordinator / KEY)
        port, deadline_s = free_port(), int(self.prepared.scenario.engine.deadline_s)
        address = f"{self.hosts.address}:{port}"
        ServerHome.make(
            self.coordinator,
            ServerSettings(
                name="loopback",
                host=self.hosts.address,
                port=port,
                public_address=address,
                deadline_s=deadline_s,
            ),
        )

    def _set_up_silo(self, silo_id: str) -> None:
        server = ServerHome.open(self.coordinator)
        home, courier = self.home(silo_id), self.courier(silo_id)
        owner = Owner.open(home)
        address = server.settings.public_address
        deployment = Deployment(
            superlink=address,
            coordinator=server.identity.public.text(),
            courier=str(courier.resolve()),
        )
        settings = CourierSettings(
            silo_id=silo_id, superlink=address, socket=str(deployment.socket), port=free_port()
        )
        ca = server.tls.ca.read_text(encoding="utf-8")
        make_courier(courier, settings, ca, account_of(home))
        write_deployment(home, deployment)
        registration = Registration(
            silo_id=silo_id, identity=owner.identity.public.text(), node_key=node_public(courier)
        )
        path = self.out / f"{home.name}.registration.json"
        path.write_bytes(registration.to_bytes(owner.identity))

    def start(self) -> None:
        """Start the coordinator, tell it the silos' keys, and start the silos."""
        self.start_coordinator()
        for silo_id in self.prepared.silo_ids:
            name = self.home(silo_id).name
            file = self.out / f"{name}.registration.json"
            self.say("fondaco-server", "register", str(file), "--home", str(self.coordinator))
        for silo_id in self.prepared.silo_ids:
            self.start_silo(silo_id)
        for silo_id in self.prepared.silo_ids:
            self.running[silo_id].await_health()

    def start_coordinator(self) -> None:
        """Start the coordinator, and wait until it answers."""
        settings = ServerHome.open(self.coordinator).settings
        command = [str(_tool("fondaco-server")), "start", "--home", str(self.coordinator)]
        self._start("coordinator", command, lambda: _listens(settings.host, settings.port))
        self.running["coordinator"].await_health()

    def start_silo(self, silo_id: str) -> None:
        """Start a silo's agent and courier."""
        command = [*self.hosts.inside(silo_id), str(_tool("fondaco-client")), "run"]
        command += ["--home", str(self.home(silo_id))]
        self._start(silo_id, command, (self.courier(silo_id) / SOCKET).is_socket)

    def _start(self, name: str, command: Sequence[str], healthy: Callable[[], bool]) -> None:
        self.running[name] = Process(
            Program(
                name=name,
                command=command,
                environment=environment(),
                folder=self.out,
                log=self.log(name),
                healthy=healthy,
            )
        )
        self.running[name].start()

    def say(self, program: str, *arguments: str, may_fail: bool = False) -> str:
        """Return what one of our commands prints.

        Raises:
            RoundError: it failed.
        """
        done = subprocess.run(  # noqa: S603  (our own programs)
            [str(_tool(program)), *arguments],
            cwd=self.out,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        if done.returncode and not may_fail:
            raise RoundError(f"{program} {arguments[0]}: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def stop(self, name: str, number: int = signal.SIGTERM) -> None:
        """End a process with everything that it started."""
        self.running.pop(name).stop(number, STOP_S)

    def stop_all(self) -> None:
        """End every process, the coordinator last."""
        for name in sorted(self.running, key=lambda name: name == "coordinator"):
            self.stop(name)


@contextmanager
def site(prepared: Prepared, out: Path, *, apart: bool = False) -> Iterator[Site]:
    """Give a set-up site whose processes have ended afterwards.

    Args:
        prepared: the scenario.
        out: a new folder.
        apart: put every silo on a host of its own, in a network namespace (root).

    Raises:
        ConfigError: the folder holds something, or this may not make namespaces.
    """
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} holds something already; choose another --out or remove it")
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        hosts = Hosts.make(prepared.silo_ids) if apart else Hosts.none()
        stack.callback(hosts.remove)
        made = Site(out=out.resolve(), prepared=prepared, hosts=hosts)
        made.set_up()
        stack.callback(made.stop_all)
        yield made


def loopback(
    prepared: Prepared, out: Path, progress: Progress = quiet, *, apart: bool = False
) -> Loopback:
    """Run a scenario as processes, and hold the model against the run in one process.

    Raises:
        ConfigError: `out` holds something already.
        RoundError: a command failed; its last words are in the text.
    """
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        progress(stage, 0, 1)
        start = time.perf_counter()
        yield
        seconds[stage] = round(time.perf_counter() - start, 2)
        progress(stage, 1, 1)

    with site(prepared, out, apart=apart) as made:
        with timed("in one process"):
            reference = _reference(prepared, made.out)
        with timed("start"):
            made.start()
        plan, home = str(made.plan), str(made.coordinator)
        with timed("preflight"):
            made.say("fondaco-server", "preflight", plan, "--home", home)
        with timed("run"):
            status = json.loads(made.say("fondaco-server", "run", plan, "--home", home, "--json"))
        name = prepared.plan.digest.removeprefix("sha256:")[:16]
        model = Workspace(made.coordinator / "runs" / name).model
        with timed("recommend"):
            lists = _recommendations(made)
        with timed("audit"):
            audited = {silo_id: _audit(made, silo_id) for silo_id in prepared.silo_ids}
        return Loopback(
            same=model.read_bytes() == reference.read_bytes(),
            seconds=seconds,
            status=status,
            lists=lists,
            audited=audited,
        )


def _reference(prepared: Prepared, out: Path) -> Path:
    """Return the model of the same rounds in this process."""
    folder = out / "in-process"
    outcome = federate(prepared, folder)
    path = folder / "model.safetensors"
    if not path.is_file():
        save_global_model(outcome.model, prepared.plan, path)
    return path


def _recommendations(made: Site) -> dict[str, str]:
    """Let every silo write lists for all its customers."""
    files = {}
    for silo_id in made.prepared.silo_ids:
        home = made.home(silo_id)
        path = made.out / f"{home.name}.recommendations.csv"
        arguments = ("--home", str(home), "--all", "--out", str(path))
        made.say("fondaco-client", "recommend", *arguments)
        files[silo_id] = str(path)
    return files


def _audit(made: Site, silo_id: str) -> int:
    """Return the exit code of an auditor's check of a silo's exported ledger: 0 holds."""
    home = made.home(silo_id)
    export = made.out / f"{home.name}.ledger.jsonl"
    made.say("fondaco-client", "ledger", "--home", str(home), "--export", str(export))
    done = subprocess.run(  # noqa: S603
        [str(_tool("fondaco-audit")), "verify", str(export)],
        cwd=made.out,
        env=environment(),
        capture_output=True,
        check=False,
    )
    return done.returncode


def environment() -> dict[str, str]:
    """Return the environment of our processes."""
    return {**os.environ, **FLOWER_ENV}


def free_port() -> int:
    """Return a port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tool(name: str) -> Path:
    return Path(sys.executable).with_name(name)


def _listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) == 0
