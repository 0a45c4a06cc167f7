"""Faults of processes, network and time in a site of real Flower processes, while a run goes on.

Processes are found by what stands in /proc, so that whatever a supervisor starts again is found
again, and nothing is ended that does not belong to the site.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fondaco.simulation.loopback import Site, environment

PROGRAMS = {
    "superlink": "flower-superlink",
    "supernode": "flower-supernode",
    "superexec": "flower-superexec",
    "clientapp": "fondaco.client.launcher",
    "serverapp": "fondaco.server.launcher",
    "agent": "--agent-only",
    "start": "fondaco-server\0start",
    "cli": "fondaco-server\0run",
    "run": "fondaco-client\0run",
}
WITHIN_S = 45.0
ENDED_S = 3600.0
POLL_S = 0.2


def processes(program: str, folder: Path) -> list[int]:
    """Return the site's processes of one program, oldest first."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            words = (path / "cmdline").read_bytes().decode(errors="replace")
            if PROGRAMS[program] not in words:
                continue
            around = (path / "environ").read_bytes().decode(errors="replace")
            if str(folder) in words + around and (path / "stat").read_text().split()[2] != "Z":
                found.append(int(path.name))
    return sorted(found)


def kill(program: str, folder: Path, number: int = signal.SIGKILL) -> bool:
    """Send a signal to all of a program at `folder`; waits until there is one."""
    until = time.monotonic() + WITHIN_S
    while time.monotonic() < until:
        if pids := processes(program, folder):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            return True
        time.sleep(POLL_S)
    return False


@dataclass(kw_only=True)
class Struck:
    """One fault, as it was done and what came of it.

    Attributes:
        stage: what silos were being asked.
        done: whether there was something to strike.
        seconds: from the fault to the next phase, or to the end of the command.
        ended: what the command said if it gave up.
    """

    fault: str
    stage: str
    done: bool
    seconds: float = 0.0
    ended: str = ""


Strike = Callable[["Storm"], bool]


@dataclass(frozen=True, kw_only=True)
class Blow:
    """A fault to come.

    Attributes:
        stages: in one of these it strikes; empty: in the next, whatever it is.
        strike: does it; returns whether there was anything to strike.
        aborts: the command is to give up with a reason, and is given again.
        after: done when the phase, or the command, is over.
    """

    fault: str
    stages: tuple[str, ...] = ()
    strike: Strike
    aborts: bool = False
    after: Callable[["Storm"], None] = lambda storm: None


@dataclass
class Storm:
    """Strikes while a run goes on, one phase after another.

    Attributes:
        site: where it goes on.
        tell: told of everything that happens.
        command: what gives the run to Flower; empty: `fondaco-server run`, as an operator does.
    """

    site: Site
    tell: Callable[[str], None] = print
    command: Sequence[str] = ()
    struck: list[Struck] = field(default_factory=list)
    cli: "subprocess.Popen[bytes] | None" = None
    gave_up: list[str] = field(default_factory=list)
    slowest: dict[str, float] = field(default_factory=dict)

    @property
    def status_path(self) -> Path:
        """The run's status file."""
        name = self.site.prepared.plan.digest.removeprefix("sha256:")[:16]
        return self.site.coordinator / "runs" / name / "status.json"

    def status(self) -> dict:
        """What the run says of itself."""
        try:
            return json.loads(self.status_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {"state": "none", "stage": "", "phases": 0, "timed": [], "started": ""}

    def silo(self, num: int) -> str:
        """A silo's name."""
        return self.site.prepared.silo_ids[num]

    def go(self, blows: Sequence[Blow], most_runs: int = 12) -> bool:
        """Give the run to Flower until it is finished; whether it was."""
        self.start_cli()
        left, last, before = list(blows), None, None
        until = time.monotonic() + ENDED_S
        while time.monotonic() < until:
            now = self.status()
            key = now["started"], now["phases"], now["stage"], now["state"]
            if self.cli.poll() is not None:
                most_runs -= 1
                self._settle(last)
                last, before = None, None
                if self.cli.returncode == 0 or not most_runs:
                    break
                self.start_cli()
            elif key != before and now["state"] in ("waiting", "running"):
                if before is not None and last is not None and not last[0].aborts:
                    self._settle(last)
                    last = None
                before = key
                stage = now["stage"] or now["state"]
                if left and last is None and self._is_due(left[0], stage):
                    last = self._strike(left.pop(0), stage)
            time.sleep(POLL_S)
        return self.cli.poll() == 0

    @staticmethod
    def _is_due(blow: Blow, stage: str) -> bool:
        return stage in blow.stages or (not blow.stages and stage not in ("waiting", "roll call"))

    def _strike(self, blow: Blow, stage: str) -> tuple[Blow, Struck, float]:
        self.tell(f"{stage}: {blow.fault}")
        start = time.monotonic()
        each = Struck(fault=blow.fault, stage=stage, done=blow.strike(self))
        if not each.done:
            self.tell("  nothing to strike")
        self.struck.append(each)
        return blow, each, start

    def _settle(self, last: "tuple[Blow, Struck, float] | None") -> None:
        """Write down how the command ended, or the phase that was struck."""
        reason = ""
        if self.cli.poll():
            reason = self.status().get("error", "") or self.last_words()
            self.gave_up.append(reason)
            self.tell(f"  gave up ({self.cli.returncode}): {reason}")
        for phase in self.status()["timed"]:
            known = self.slowest.get(phase["stage"], 0.0)
            self.slowest[phase["stage"]] = max(known, phase["seconds"])
        if last is not None:
            blow, each, start = last
            each.seconds, each.ended = round(time.monotonic() - start, 1), reason
            self.tell(f"  over after {each.seconds} s")
            blow.after(self)

    @property
    def said(self) -> Path:
        """What the command says; `.log` beside it has its errors and progress."""
        return self.site.out.parent / "cli.json"

    def last_words(self) -> str:
        """The end of what the command said."""
        return self.said.with_suffix(".log").read_text(encoding="utf-8")[-300:].strip()

    def start_cli(self) -> None:
        """Give the run to Flower."""
        tool = Path(sys.executable).with_name("fondaco-server")
        usual = (str(tool), "run", str(self.site.plan), "--home", str(self.site.coordinator))
        with self.said.open("wb") as said, self.said.with_suffix(".log").open("ab") as log:
            self.cli = subprocess.Popen(  # noqa: S603
                [*(self.command or usual), "--json"],
                stdout=said,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment(),
            )

    def set_deadline(self, seconds: int) -> None:
        """Change the deadline from the next submission on."""
        path = self.site.coordinator / "server.toml"
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"deadline_s = \d+", f"deadline_s = {seconds}", text))


def start_late(site: Site, *late: int) -> None:
    """Start a site but for some of its silos."""
    site.start_coordinator()
    for num, silo_id in enumerate(site.prepared.silo_ids):
        file = site.out / f"{site.home(silo_id).name}.registration.json"
        site.say("fondaco-server", "register", str(file), "--home", str(site.coordinator))
        if num not in late:
            site.start_silo(silo_id)


def killed(program: str, num: int | None = None) -> Strike:
    """Kill a program of a silo, or of the coordinator."""

    def strike(storm: Storm) -> bool:
        if num is None:
            return kill(program, storm.site.coordinator)
        silo = storm.silo(num)
        owner = program in ("agent", "run")
        return kill(program, storm.site.home(silo) if owner else storm.site.courier(silo))

    return strike


def restarted(num: int) -> Strike:
    """Kill a silo's `run`, and start it again at once."""

    def strike(storm: Storm) -> bool:
        name = storm.silo(num)
        storm.site.stop(name, signal.SIGKILL)
        storm.site.start_silo(name)
        return True

    return strike


def joined(num: int) -> Strike:
    """Start a silo that was not there at the beginning."""

    def strike(storm: Storm) -> bool:
        time.sleep(5.0)
        storm.site.start_silo(storm.silo(num))
        return True

    return strike


def left(num: int) -> Strike:
    """Kill a silo's `run`, for good."""

    def strike(storm: Storm) -> bool:
        storm.site.stop(storm.silo(num), signal.SIGKILL)
        return True

    return strike


def back(num: int) -> Callable[[Storm], None]:
    """Start a silo that had left."""
    return lambda storm: storm.site.start_silo(storm.silo(num))


def cut(num: int, seconds: float) -> Strike:
    """Pull a silo's cable for a while."""

    def strike(storm: Storm) -> bool:
        storm.site.hosts.cut(storm.silo(num))
        time.sleep(seconds)
        storm.site.hosts.mend(storm.silo(num))
        return True

    return strike


def cut_off(num: int) -> Strike:
    """Pull a silo's cable."""

    def strike(storm: Storm) -> bool:
        storm.site.hosts.cut(storm.silo(num))
        return True

    return strike


def mended(num: int) -> Callable[[Storm], None]:
    """Plug it in again."""
    return lambda storm: storm.site.hosts.mend(storm.silo(num))


def frozen(num: int) -> Strike:
    """Stop a silo's agent."""
    return lambda storm: kill("agent", storm.site.home(storm.silo(num)), signal.SIGSTOP)


def thawed(num: int) -> Callable[[Storm], None]:
    """Let it go on."""

    def after(storm: Storm) -> None:
        kill("agent", storm.site.home(storm.silo(num)), signal.SIGCONT)

    return after


def down(seconds: float) -> Strike:
    """Kill the coordinator's services, and start them again after a while."""

    def strike(storm: Storm) -> bool:
        storm.site.stop("coordinator", signal.SIGKILL)
        for program in ("superlink", "superexec", "serverapp"):
            if processes(program, storm.site.coordinator):
                kill(program, storm.site.coordinator)
        time.sleep(seconds)
        storm.site.start_coordinator()
        return True

    return strike


def given_again(storm: Storm) -> bool:
    """Kill the operator's command, and give it again."""
    storm.cli.kill()
    storm.cli.wait()
    time.sleep(1.0)
    storm.start_cli()
    return True
