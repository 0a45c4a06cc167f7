"""Programs that belong together in one terminal: started, started again when they die, stopped.

For services use systemd or containers (`deploy/`); this is what `run` and `start` do by hand.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from . import FLOWER_SWITCHES

POLL_S = 0.2
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
CALM_S = 120.0
"""A program that ran for so long is started again at once when it dies [s]."""
STOP_S = 15.0

FLOWER_ENV: Mapping[str, str] = {
    **FLOWER_SWITCHES,
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
"""Environment of every Flower process that we start."""

Event = Callable[[str, str, int], None]
"""(what happened, name of the program, exit code or pid) -> None."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """One program.

    Attributes:
        command: its arguments.
        environment: all of it.
        folder: where it starts.
        uid: OS user to run as (root only); None keeps one's own.
        passed: file descriptors that it inherits.
        log: file to which it writes; None writes where we do.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    uid: int | None = None
    gid: int | None = None
    passed: Sequence[int] = ()
    log: Path | None = None


@dataclass
class _Running:
    program: Program
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    due: float = 0.0
    pause_s: float = FIRST_PAUSE_S


@dataclass
class Supervisor:
    """Keeps programs running until it is told to stop.

    Attributes:
        programs: started in order, stopped in the opposite one.
        event: told of every start, death and stop.
    """

    programs: Sequence[Program]
    event: Event
    _stopping: bool = False
    _running: list[_Running] = field(default_factory=list)

    def run(self, ready: Callable[[], None] | None = None) -> None:
        """Keep all programs running until SIGTERM, SIGINT or SIGHUP (the terminal is gone).

        Args:
            ready: called once they started.

        Raises:
            OSError: a program cannot be started at all.
        """
        self._running = [_Running(program) for program in self.programs]
        with self._signals():
            try:
                for each in self._running:
                    self._start(each)
                if ready is not None:
                    ready()
                while not self._stopping:
                    for each in self._running:
                        self._look_after(each)
                    time.sleep(POLL_S)
            finally:
                self._stop_all()

    def stop(self) -> None:
        """Ask `run` to end."""
        self._stopping = True

    def _look_after(self, each: _Running) -> None:
        now = time.monotonic()
        if each.process is None:
            if now >= each.due:
                self._start(each)
            return
        code = each.process.poll()
        if code is None:
            return
        each.pause_s = (
            FIRST_PAUSE_S if now - each.started > CALM_S else min(LONGEST_PAUSE_S, 2 * each.pause_s)
        )
        _signal(each.process, signal.SIGKILL)  # what it had started would be in the next one's way
        each.process, each.due = None, now + each.pause_s
        self.event("ended", each.program.name, code)

    def _start(self, each: _Running) -> None:
        program = each.program
        with contextlib.ExitStack() as stack:
            sink = None
            if program.log is not None:
                sink = stack.enter_context(program.log.open("ab"))
            each.process = subprocess.Popen(  # noqa: S603
                [*dies_with_us(), *program.command],
                env=dict(program.environment),
                cwd=program.folder,
                user=program.uid,
                group=program.gid,
                extra_groups=[] if program.uid is not None else None,
                pass_fds=tuple(program.passed),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )
        each.started = time.monotonic()
        self.event("started", program.name, each.process.pid)

    def _stop_all(self) -> None:
        """End every program with all that it started: SIGTERM first, SIGKILL after a while."""
        for each in reversed(self._running):
            if each.process is None:
                continue
            _signal(each.process, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                each.process.wait(STOP_S)
            _signal(each.process, signal.SIGKILL)
            each.process.wait()
            self.event("stopped", each.program.name, each.process.returncode)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def stop(number: int, frame: FrameType | None) -> None:
            del number, frame
            self._stopping = True

        ends = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
        before = {n: signal.signal(n, stop) for n in ends}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def dies_with_us() -> list[str]:
    """Return what to put before a command so that it does not outlive its parent's kill -9.

    Empty where util-linux is missing; systemd and containers see to it themselves.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to a program and whatever it started in its session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
