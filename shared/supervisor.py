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
from .errors import ConfigError, FondacoError
from .tls_check import explain_exit

POLL_S = 0.2
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
CALM_S = 120.0
"""A program that ran for so long is started again soon when it dies [s]."""
HEALTHY_S = 120.0
STOP_S, LAST_WORDS_S = 15.0, 5.0
"""How long a program, and then what it had started, may take to end when asked to [s]."""
_MAX_DOUBLINGS = 10
_TAIL = 4096

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
        healthy: whether it does its work; None where nobody waits for that.
        outlived: what it started goes on when it dies or starts anew, and ends with everything.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    uid: int | None = None
    gid: int | None = None
    passed: Sequence[int] = ()
    log: Path | None = None
    healthy: Callable[[], bool] | None = None
    outlived: bool = False


@dataclass
class Process:
    """A program that runs, ran or will run, with all that it started.

    Attributes:
        popen: its process; None before the first start and after `stop`.
    """

    program: Program
    popen: subprocess.Popen[bytes] | None = None
    _groups: list[int] = field(default_factory=list)

    def start(self) -> int:
        """Start it; return its process id.

        Raises:
            OSError: it cannot be started.
        """
        program = self.program
        with contextlib.ExitStack() as stack:
            sink = None
            if program.log is not None:
                sink = stack.enter_context(program.log.open("ab"))
            self.popen = subprocess.Popen(  # noqa: S603
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
        self._signal(0)  # forget groups of which nobody is left
        self._groups.append(self.popen.pid)
        return self.popen.pid

    def ended(self) -> int | None:
        """Return its exit code if it ran and ended."""
        if len(self._groups) > 1:
            self._signal(0)  # forget those of which nobody is left: numbers are given again
        return None if self.popen is None else self.popen.poll()

    def await_health(self, stopping: Callable[[], bool] = lambda: False) -> None:
        """Wait until it does its work, or nobody wants it to any more.

        Raises:
            ConfigError: it ended, or is silent for HEALTHY_S.
        """
        name, log, healthy = self.program.name, self.program.log, self.program.healthy
        until = time.monotonic() + HEALTHY_S
        while healthy is not None and not (stopping() or healthy()):
            code = self.ended()
            if code is not None:
                raise ConfigError(f"{name} ended: {explain_exit(code, self._tail())} (log: {log})")
            if time.monotonic() > until:
                raise ConfigError(f"{name} is silent after {HEALTHY_S:.0f} s; see its log: {log}")
            time.sleep(POLL_S)

    def stop(self, number: int = signal.SIGTERM, within_s: float = STOP_S) -> int | None:
        """End it, and what it started unless that may outlive it; return its exit code."""
        if not self.program.outlived:
            return self.stop_all(number, within_s)
        if self.popen is not None:
            self.popen.send_signal(number)
        return self._wait(within_s)

    def stop_all(self, number: int = signal.SIGTERM, within_s: float = STOP_S) -> int | None:
        """End it with all that it ever started: by `number` first, by SIGKILL after a while."""
        self._signal(number)
        code = self._wait(within_s)
        if not self._gone():
            self._signal(signal.SIGKILL)
            self._gone()
        return code

    def _gone(self) -> bool:
        """Return whether nothing is left of what it started, which gets a moment for that."""
        until = time.monotonic() + LAST_WORDS_S
        while self._signal(0):
            if time.monotonic() > until:
                return False
            time.sleep(POLL_S)
        return True

    def _wait(self, within_s: float) -> int | None:
        if self.popen is None:
            return None
        try:
            code = self.popen.wait(within_s)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            code = self.popen.wait()
        self.popen = None
        return code

    def _signal(self, number: int) -> bool:
        """Send a signal to all that it started; return whether anything is left of that."""
        left = []
        for group in self._groups:
            if self.popen is None or self.popen.pid != group or self.popen.returncode is not None:
                _bury(group)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)
                left.append(group)
        self._groups = left
        return bool(left)

    def _tail(self) -> str:
        """Return the last lines of its log."""
        if self.program.log is None:
            return ""
        with self.program.log.open("rb") as log:
            log.seek(max(0, self.program.log.stat().st_size - _TAIL))
            return log.read().decode(errors="replace")


@dataclass
class _Kept:
    """A process with what it takes to start it again at the right time."""

    process: Process
    started: float = 0.0
    due: float = 0.0
    failures: int = 0


@dataclass
class Supervisor:
    """Keeps programs running until it is told to stop.

    Attributes:
        programs: started in order, stopped in the opposite one.
        event: told of every start, death and stop.
        care: called at every look; True asks for all programs to be started anew.
    """

    programs: Sequence[Program]
    event: Event
    care: Callable[[], bool] = lambda: False
    _stopping: bool = False
    _kept: list[_Kept] = field(default_factory=list)

    def run(self, ready: Callable[[], None] | None = None) -> None:
        """Keep all programs running until SIGTERM, SIGINT or SIGHUP (the terminal is gone).

        Args:
            ready: called once they started and do their work.

        Raises:
            OSError: a program cannot be started at all.
            ConfigError: one does not come to do its work.
        """
        self._kept = [_Kept(Process(program)) for program in self.programs]
        with self._signals():
            try:
                for each in self._kept:
                    if not self._stopping:
                        self._start(each)
                        each.process.await_health(lambda: self._stopping)
                if ready is not None and not self._stopping:
                    self._tell(ready)
                while not self._stopping:
                    if self.care():
                        self._stop_all(anew=True)
                    for each in self._kept:
                        self._look_after(each)
                    time.sleep(POLL_S)
            finally:
                self._stop_all()

    def stop(self) -> None:
        """Ask `run` to end."""
        self._stopping = True

    def _tell(self, ready: Callable[[], None]) -> None:
        """Call it; what fails in it because a signal ended it is no error."""
        try:
            ready()
        except FondacoError:
            if not self._stopping:
                raise

    def _start(self, each: _Kept) -> None:
        pid = each.process.start()
        each.started = time.monotonic()
        self.event("started", each.process.program.name, pid)

    def _look_after(self, each: _Kept) -> None:
        now = time.monotonic()
        code = each.process.ended()
        if code is not None:
            each.failures = 1 if now - each.started > CALM_S else each.failures + 1
            pause = FIRST_PAUSE_S * 2.0 ** min(each.failures - 1, _MAX_DOUBLINGS)
            each.due = now + min(LONGEST_PAUSE_S, pause)
            each.process.stop(signal.SIGKILL)  # what it started would be in the next one's way
            self.event("ended", each.process.program.name, code)
        elif each.process.popen is None and now >= each.due:
            self._start(each)

    def _stop_all(self, *, anew: bool = False) -> None:
        for each in reversed(self._kept):
            code = each.process.stop() if anew else each.process.stop_all()
            each.due = 0.0
            if code is not None:
                self.event("stopped", each.process.program.name, code)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def stop(number: int, frame: FrameType | None) -> None:
            del number, frame
            self._stopping = True

        ends = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
        heard = [n for n in ends if signal.getsignal(n) is not signal.SIG_IGN]  # `nohup` ignores
        before = {n: signal.signal(n, stop) for n in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _bury(group: int) -> None:
    """Reap what a group left to us, as to the first process of a container; it would never end."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass


def dies_with_us() -> list[str]:
    """Return what to put before a command so that it does not outlive its parent's kill -9.

    Empty where util-linux is missing; systemd and containers see to it themselves.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
