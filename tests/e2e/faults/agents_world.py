"""Real agent processes over their sockets, and a coordinator that is a process too; no Flower.

Everything here dies by `kill -9` where a fault says so and is started again, as `fondaco-client
run` and `fondaco-server run` would. The parent only forks, waits and looks at what is left.
"""

import ctypes
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
from builders import SMALL_RUN
from fault_tools import CANARY, leaks, notes, wrong_with

from fondaco.client.boundary.app import carrier
from fondaco.client.boundary.desk import PASSED, listen
from fondaco.client.boundary.frames import UNSAID
from fondaco.client.boundary.link import AgentAwayError, AgentError, ask
from fondaco.client.owner import Owner
from fondaco.client.service import serve_agent
from fondaco.server.app import Job, run_job
from fondaco.server.global_model import save_global_model
from fondaco.shared.audit.state import ERROR
from fondaco.shared.audit.verify import verify
from fondaco.shared.chain.keys import COORDINATOR, Identity
from fondaco.shared.parts import Parts
from fondaco.shared.workspace import Workspace
from fondaco.simulation.grid import InProcessGrid
from fondaco.simulation.library import load_scenario
from fondaco.simulation.run import Prepared, federate, prepare, write_workspace

ENDED_S = 240.0
PATIENCE_S = 20.0
MOST_STARTS = 40
CHAOS = 0.1
"""Chance of a kill, every 20 ms."""
PR_SET_PDEATHSIG = 1

Ask = Callable[[str, str, Parts], Parts]
"""(silo, action, what is asked) -> its agent's answer."""
Meddle = Callable[["World", Ask, str, str, Parts], Parts]
"""What stands between coordinator and agents: gets the world, the way on, and one message."""
Act = Callable[[], None]


@cache
def scenario(n_silos: int = 3, *more: str) -> Prepared:
    """Return the cheap scenario; every customer's name is one that no log may hold."""
    prepared = prepare(
        load_scenario("synthetic", (f"silos.count={n_silos}", *SMALL_RUN, 'models=["gram"]', *more))
    )
    silos = [
        replace(silo, user_ids=np.array([f"{CANARY}{num}-{i}" for i in range(silo.n_users)]))
        for num, silo in enumerate(prepared.silos)
    ]
    return replace(prepared, silos=silos)


@cache
def reference(n_silos: int = 3, *more: str) -> bytes:
    """Return the model of the run that nothing happened to, in one process."""
    prepared = scenario(n_silos, *more)
    with tempfile.TemporaryDirectory(prefix="fd-ref-") as folder:
        outcome = federate(prepared, Path(folder))
        path = Path(folder) / "model.safetensors"
        if not path.is_file():
            save_global_model(outcome.model, prepared.plan, path)
        return path.read_bytes()


@dataclass(kw_only=True)
class Plot:
    """What goes wrong in one run.

    Attributes:
        in_agent: silo -> what its agent's process does before it serves, one for each start.
        always: silo -> what it does at every start.
        in_coordinator: what the coordinator's process does before it runs, one for each start.
        meddle: stands between them.
        coordinate: what the coordinator does instead of running the plan.
        prepare: done once, before anything is written.
        chaos: a seed; processes are killed at random, `deaths` of them before the model is sent.
        deaths: how many processes must have been killed, or the fault did not happen.
        stays_dead: silos whose agents are not started again.
        twice: silos that have a second agent on another socket.
        runs: how often the coordinator is started again after it gave up with a reason.
        between: done after it gave up.
        audited: whose ledgers are looked at; empty: all.
        n_silos: of the scenario.
        settings: of the scenario.
        patience_s: how long the courier asks an agent that is gone [s].
    """

    in_agent: Mapping[str, Sequence[Act]] = field(default_factory=dict)
    always: Mapping[str, Act] = field(default_factory=dict)
    in_coordinator: Sequence[Act] = ()
    meddle: Meddle | None = None
    coordinate: Callable[["World"], None] | None = None
    chaos: int | None = None
    deaths: int = 0
    prepare: Callable[["World"], None] | None = None
    stays_dead: tuple[str, ...] = ()
    twice: tuple[str, ...] = ()
    runs: int = 1
    between: Callable[["World"], None] | None = None
    audited: tuple[str, ...] = ()
    n_silos: int = 3
    settings: tuple[str, ...] = ()
    patience_s: float = PATIENCE_S


@dataclass(kw_only=True)
class Went:
    """How a run went.

    Attributes:
        finished: whether the coordinator ended with a model.
        same: whether it is the reference's, to the last bit.
        reasons: what the coordinator said when it gave up.
        deaths: processes that were killed, by name.
        problems: broken promises; empty if all hold.
    """

    finished: bool
    same: bool
    reasons: list[str]
    deaths: Counter
    problems: list[str]
    seconds: float
    debits: int
    releases: int


class World:
    """A coordinator's and some silos' folders, and their processes."""

    def __init__(self, folder: Path, plot: Plot) -> None:
        self.folder, self.plot = folder, plot
        self.prepared = scenario(plot.n_silos, *plot.settings)
        self.silos = self.prepared.silo_ids
        self.workspace = Workspace(folder / "silos")
        self.coordinator = Workspace(folder / "coordinator")
        folder.mkdir(parents=True, exist_ok=True)
        self._sockets = Path(tempfile.mkdtemp(prefix="fd-"))
        self._listening = {}
        self._pids: dict[int, str] = {}
        self._starts: Counter = Counter()
        self.deaths: Counter = Counter()
        self.reasons: list[str] = []

    def socket(self, silo: str) -> Path:
        """Where a silo's agent listens; `silo` may end in "+" for its second one."""
        num = self.silos.index(silo.rstrip("+"))
        return self._sockets / f"{num}{'b' if silo.endswith('+') else ''}.sock"

    def log(self, name: str) -> Path:
        """What a process said."""
        return self.folder / f"{name}.log"

    def note(self, name: str) -> Path:
        """A file in which a fault says what it saw."""
        return self.folder / f"{name}.note"

    def ask(self, silo: str, action: str, parts: Parts) -> Parts:
        """Ask a silo's agent as its courier does."""
        return ask(self.socket(silo), action, parts, patience_s=self.plot.patience_s)

    def run(self) -> Went:
        """Run to the end, whatever happens, and look at what is left."""
        start = time.monotonic()
        if self.plot.prepare:
            self.plot.prepare(self)
        write_workspace(self.prepared, self.workspace.folder)
        plan, catalogue = self.prepared.plan, self.prepared.market.catalogue
        self.coordinator.prepare(plan, catalogue, self.silos, 0)
        try:
            for silo in (*self.silos, *(f"{silo}+" for silo in self.plot.twice)):
                self._listening[silo] = listen(self.socket(silo))
                self._start_agent(silo)
            finished = self._follow(start + ENDED_S)
        finally:
            self._end()
        problems = self.problems(finished)
        if sum(self.deaths.values()) < self.plot.deaths:
            problems.append(f"only {dict(self.deaths)} were killed")
        same = (
            finished
            and self.coordinator.model.is_file()
            and self.coordinator.model.read_bytes()
            == reference(self.plot.n_silos, *self.plot.settings)
        )
        debits, releases = self._paid()
        return Went(
            finished=finished,
            same=same,
            reasons=self.reasons,
            deaths=self.deaths,
            problems=problems,
            seconds=time.monotonic() - start,
            debits=debits,
            releases=releases,
        )

    def _follow(self, until: float) -> bool:
        """Start again what dies, until the coordinator has ended for good; whether it finished."""
        self._start_coordinator()
        dice = random.Random(self.plot.chaos)  # noqa: S311  (no secret)
        while time.monotonic() < until:
            self._strike(dice)
            for pid, name in list(self._pids.items()):
                gone, status = os.waitpid(pid, os.WNOHANG)
                if gone:
                    del self._pids[pid]
                    ended = self._ended(name, os.waitstatus_to_exitcode(status))
                    if ended is not None:
                        return ended
            time.sleep(0.02)
        self.reasons.append("HUNG")
        return False

    def _strike(self, dice: random.Random) -> None:
        if self.plot.chaos is None:
            return
        if sum(self.deaths.values()) >= self.plot.deaths:
            self.note("calm").touch()
        elif dice.random() < CHAOS:
            os.kill(dice.choice(sorted(self._pids)), signal.SIGKILL)

    def _ended(self, name: str, code: int) -> bool | None:
        """Start a process again, if it is; else return whether the run has finished."""
        self.deaths[name] += code < 0
        if name != "coordinator":
            if name in self.plot.stays_dead:
                self._listening.pop(name).close()
                self.socket(name).unlink()
            elif self._starts[name] < MOST_STARTS:
                self._start_agent(name)
            return None
        if code == 0:
            return True
        if code > 0:
            self.reasons.append(self.note("reason").read_text(encoding="utf-8"))
            if len(self.reasons) >= self.plot.runs:
                return False
            if self.plot.between:
                self.plot.between(self)
        self._start_coordinator()
        return None

    def _start_agent(self, silo: str) -> None:
        num = self._starts[silo]

        def serve() -> None:
            os.environ[PASSED] = str(self._listening[silo].fileno())
            if silo in self.plot.always:
                self.plot.always[silo]()
            for act in self.plot.in_agent.get(silo, ())[num : num + 1]:
                act()
            home = self.workspace.silo(silo.rstrip("+"))
            serve_agent(home, self.socket(silo))

        self._fork(silo, serve)

    def _start_coordinator(self) -> None:
        num = self._starts["coordinator"]

        def run() -> None:
            for act in self.plot.in_coordinator[num : num + 1]:
                act()
            try:
                (self.plot.coordinate or World.coordinate)(self)
            except Exception as error:  # as the ServerApp, which tells the status file
                text = f"{type(error).__name__}: {error}"
                self.note("reason").write_text(text, encoding="utf-8")
                os._exit(1)

        self._fork("coordinator", run)

    def coordinate(self) -> None:
        """Run the plan, or go on with it."""

        def reason(error: Exception) -> str:
            known = isinstance(error, AgentError | AgentAwayError)
            return str(error) if known else UNSAID

        def asked(context: object, action: str, parts: Parts) -> Parts:
            silo = self.silos[int(context.node_config["partition-id"])]
            if self.plot.chaos is not None and action == "publish":
                self._wait_for_calm()
            if self.plot.meddle:
                return self.plot.meddle(self, self.ask, silo, action, parts)
            return self.ask(silo, action, parts)

        grid = InProcessGrid(carrier(asked, reason), len(self.silos))
        job = Job(
            plan=self.prepared.plan,
            catalogue=self.prepared.market.catalogue,
            workspace=self.coordinator,
            deadline_s=120.0,
            progress=lambda *news: None,
            identity=Identity.seeded(self.prepared.scenario.seed, COORDINATOR),
        )
        run_job(grid, job)

    def _wait_for_calm(self) -> None:
        """However quick this machine is, the run does not end before every kill has struck."""
        until = time.monotonic() + ENDED_S
        while not self.note("calm").exists() and time.monotonic() < until:
            time.sleep(0.02)

    def _fork(self, name: str, work: Act) -> None:
        self._starts[name] += 1
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            self._pids[pid] = name
            return
        code = 1
        try:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            handle = os.open(self.log(name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            sys.stdout = open(1, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
            sys.stderr = open(2, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            for silo, listening in self._listening.items():
                if silo != name:
                    listening.close()
            work()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def _end(self) -> None:
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self._pids.clear()
        for each in self._listening.values():
            each.close()

    # what must hold afterwards

    def ledgers(self) -> dict[str, list]:
        """Every silo's records."""
        found = {}
        for silo in self.silos:
            with Owner.open(self.workspace.silo(silo)).ledger() as ledger:
                found[silo] = list(ledger.records())
        return found

    def _paid(self) -> tuple[int, int]:
        records = [r["type"] for each in self.ledgers().values() for r in each]
        return records.count("DEBIT"), records.count("RELEASE")

    def problems(self, finished: bool) -> list[str]:
        """Every promise that does not hold."""
        found = []
        if not finished and (not self.reasons or "HUNG" in self.reasons):
            found.append("it hung")
        if not finished and not all(text.strip() for text in self.reasons):
            found.append("gave up without a reason")
        for silo, records in self.ledgers().items():
            found += [f"{silo}: {text}" for text in wrong_with(records, self.prepared.plan)]
        found += self._audit()
        found += [fact["problem"] for fact in notes(self.note("meddled")) if "problem" in fact]
        return found + leaks(self.folder.glob("*.log"), self.folder.glob("*.note"))

    def _audit(self) -> list[str]:
        folder = self.folder / "audited"
        folder.mkdir(exist_ok=True)
        files = []
        for num, silo in enumerate(self.plot.audited or self.silos):
            with Owner.open(self.workspace.silo(silo)).ledger() as ledger:
                lines = ledger.chain.lines()
            files.append(folder / f"{num}.jsonl")
            files[-1].write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        said = verify(files, [], [], lambda *_: None)
        return [f"auditor: {finding}" for finding in said.findings if finding.severity == ERROR]
