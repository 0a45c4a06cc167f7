"""Programs that belong together: kept going, and none left when it ends."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fondaco.shared import supervisor as module
from fondaco.shared.errors import ConfigError
from fondaco.shared.supervisor import Program, Supervisor

SLEEP = "import time; time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP
FAMILY = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import signal, time; "
    "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"])
open(sys.argv[1], "a").write(f"{os.getpid()} {child.pid}\\n")
child.wait()
"""
SUPERVISE = """
import os, sys
from pathlib import Path
from fondaco.shared import supervisor
from fondaco.shared.supervisor import Program, Supervisor
supervisor.LAST_WORDS_S = 0.5
folder = Path(sys.argv[1])
programs = [
    Program(name=name, command=[sys.executable, "-c", sys.argv[2], str(folder / name)],
            environment=os.environ, folder=folder)
    for name in ("first", "second")
]
Supervisor(programs, lambda what, name, number: None).run()
"""


FIRST_OF_A_CONTAINER = """
import ctypes, os, signal, sys, time
from pathlib import Path
from fondaco.shared.supervisor import Process, Program
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans come to us
leaves = "import subprocess, sys; subprocess.Popen(['/bin/sleep', '600'])"
command = [sys.executable, "-c", leaves]
process = Process(Program(name="a", command=command, environment={}, folder=Path("/")))
process.start()
while process.ended() is None:
    time.sleep(.05)
start = time.monotonic()
process.stop(signal.SIGKILL)
assert time.monotonic() - start < 4, "its orphans were never reaped"
"""


def program(name, code, *words, **options):
    command = [sys.executable, "-c", code, *map(str, words)]
    return Program(
        name=name,
        command=command,
        environment=dict(os.environ),
        folder=Path("/"),
        **options,
    )


class Run:
    """A supervisor in this process, stopped after what a test waits for."""

    def __init__(self, *programs):
        self.events = []
        self.supervisor = Supervisor(programs, lambda *news: self.events.append(news))

    def until(self, what, within_s=60.0):
        def watch():
            end = time.monotonic() + within_s
            while not what() and time.monotonic() < end:
                time.sleep(0.02)
            self.supervisor.stop()

        watcher = threading.Thread(target=watch)
        watcher.start()
        self.supervisor.run()
        watcher.join()
        assert what()
        return self

    def count(self, what, name):
        return sum(1 for event in self.events if event[:2] == (what, name))


def alive(pid):
    """Return whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(module, "POLL_S", 0.02)
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.1)
    monkeypatch.setattr(module, "LONGEST_PAUSE_S", 0.4)
    monkeypatch.setattr(module, "STOP_S", 1.0)
    monkeypatch.setattr(module, "LAST_WORDS_S", 0.5)


def test_programs_start_in_order_and_stop_in_the_other():
    run = Run(program("a", SLEEP), program("b", SLEEP))
    run.until(lambda: run.count("started", "b"))
    assert [event[:2] for event in run.events] == [
        ("started", "a"),
        ("started", "b"),
        ("stopped", "b"),
        ("stopped", "a"),
    ]


def test_ready_is_told_once_all_have_started():
    run, told = Run(program("a", SLEEP), program("b", SLEEP)), []

    def ready():
        told.append(list(run.events))
        run.supervisor.stop()

    run.supervisor.run(ready)
    assert [event[:2] for event in told[0]] == [("started", "a"), ("started", "b")]


def test_program_that_dies_is_started_again_the_others_stay():
    run = Run(program("dies", "raise SystemExit(3)"), program("stays", SLEEP))
    run.until(lambda: run.count("started", "dies") >= 3)
    assert ("ended", "dies", 3) in run.events
    assert run.count("started", "stays") == 1
    assert run.count("ended", "stays") == 0


def test_pause_between_starts_grows_to_its_longest():
    run = Run(program("dies", "raise SystemExit(1)"))
    times = []
    run.supervisor.event = lambda *news: (
        times.append((news[0], time.monotonic())),
        run.events.append(news),
    )
    run.until(lambda: run.count("started", "dies") >= 6)
    starts = [when for what, when in times if what == "started"]
    ends = [when for what, when in times if what == "ended"]
    pauses = [start - end for end, start in zip(ends, starts[1:], strict=False)]
    assert 0.1 <= pauses[0] < 0.4
    assert all(0.4 <= pause < 2 for pause in pauses[2:])


def test_program_that_ran_for_long_is_started_again_soon(monkeypatch):
    monkeypatch.setattr(module, "CALM_S", 0.0)
    run = Run(program("dies", "raise SystemExit(1)"))
    run.until(lambda: run.count("started", "dies") >= 5)
    assert run.supervisor._kept[0].failures == 1


def test_signal_that_killed_a_program_is_told():
    run = Run(program("dies", "import os; os.kill(os.getpid(), 9)"))
    run.until(lambda: ("ended", "dies", -9) in run.events)


def test_program_that_will_not_stop_is_killed():
    run = Run(program("a", STUBBORN + "", log=None))
    start = time.monotonic()
    run.until(lambda: run.count("started", "a"))
    assert time.monotonic() - start < 20
    assert run.events[-1][0] == "stopped"


def test_program_that_cannot_start_stops_the_others():
    run = Run(program("a", SLEEP), Program(
        name="b", command=["true"], environment={}, folder=Path("/no/such")))  # fmt: skip
    with pytest.raises(FileNotFoundError):
        run.supervisor.run()
    (started,) = (number for what, _, number in run.events if what == "started")
    assert not alive(started)


def test_what_a_program_had_started_dies_with_it(tmp_path):
    """Else SuperExec's orphans would hold the ports and sockets that the next one needs."""
    path = tmp_path / "family"
    run = Run(program("a", FAMILY + "\n", path))

    def killed_and_back():
        pids = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        if len(pids) == 1 and alive(int(pids[0][0])):
            os.kill(int(pids[0][0]), signal.SIGKILL)
        return len(pids) > 1

    run.until(killed_and_back)
    family = [int(pid) for pid in path.read_text().split()]
    assert len(family) >= 4
    assert not any(map(alive, family))


def test_program_gets_its_environment_its_files_and_no_input(tmp_path):
    read, write = os.pipe()
    look = "import os, sys; print(sorted(os.environ), sys.stdin.read() == '')"
    code = f"{look}; os.write({write}, b'x')"
    path = tmp_path / "log"
    one = Program(
        name="a", command=[sys.executable, "-IEc", code], environment={"ONLY": "this"},
        folder=tmp_path, passed=(write,), log=path,
    )  # fmt: skip
    run = Run(one)
    run.until(lambda: run.count("ended", "a"))
    os.close(write)
    assert os.read(read, 1) == b"x"
    os.close(read)
    assert "'ONLY'" in path.read_text()
    assert "True" in path.read_text()
    assert "PATH" not in path.read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other OS users")
def test_program_of_another_os_user_has_none_of_roots_groups(tmp_path):
    path = tmp_path / "log"
    one = Program(
        name="a", command=["/usr/bin/id"], environment={}, folder=Path("/"),
        uid=65534, gid=65534, log=path,
    )  # fmt: skip
    run = Run(one)
    run.until(lambda: run.count("ended", "a"))
    said = path.read_text().splitlines()[0]
    assert "root" not in said
    assert said.count("65534") == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_no_child_survives_its_end(tmp_path, number):
    """Grandchildren that ignore SIGTERM neither; SIGHUP is a terminal that was closed."""
    heard = ["/usr/bin/env", "--default-signal=HUP"]  # even if the tests run under nohup
    words = [*heard, sys.executable, "-c", SUPERVISE, str(tmp_path), FAMILY]
    with subprocess.Popen(words) as process:  # noqa: S603
        files = [tmp_path / "first", tmp_path / "second"]
        end = time.monotonic() + 60
        while not all(p.exists() and p.read_text().strip() for p in files):
            assert time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(60) == 0
    family = [int(pid) for path in files for pid in path.read_text().split()]
    assert len(family) == 4
    assert not any(map(alive, family))


def test_signals_are_given_back():
    before = signal.getsignal(signal.SIGTERM)
    run = Run(program("a", SLEEP))
    run.until(lambda: run.count("started", "a"))
    assert signal.getsignal(signal.SIGTERM) is before


def test_ignored_signal_stays_ignored(monkeypatch):
    """`nohup` lets a program outlive its terminal."""
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_IGN)
    before = signal.getsignal(signal.SIGHUP)
    run = Run(program("a", SLEEP))
    heard = []
    monkeypatch.setattr(signal, "signal", lambda *words: heard.append(words))
    run.until(lambda: run.count("started", "a"))
    assert (before, heard) == (signal.SIG_IGN, [])


def test_next_program_waits_until_the_first_does_its_work(tmp_path):
    sign = tmp_path / "sign"
    works = f"import pathlib, time; time.sleep(.5); pathlib.Path({str(sign)!r}).touch(); {SLEEP}"
    run = Run(program("first", works, healthy=sign.exists), program("next", SLEEP))
    seen = []
    run.supervisor.event = lambda *news: (seen.append(sign.exists()), run.events.append(news))
    run.until(lambda: run.count("started", "next"))
    assert seen[:2] == [False, True]


def test_program_that_ends_instead_of_working_is_explained(tmp_path):
    log = tmp_path / "log"
    one = program(
        "a", "print('Exit Code: 605'); raise SystemExit(1)", healthy=lambda: False, log=log
    )
    told = []
    with pytest.raises(ConfigError, match=r"a ended: Flower ended with its exit code 605.*log"):
        Run(one).supervisor.run(lambda: told.append(1))
    assert not told


def test_program_that_stays_silent_is_ended_and_named(monkeypatch):
    monkeypatch.setattr(module, "HEALTHY_S", 0.5)
    run = Run(program("a", SLEEP, healthy=lambda: False))
    with pytest.raises(ConfigError, match="a is silent after 0 s"):
        run.supervisor.run()
    assert run.count("stopped", "a") == 1


def test_stop_is_heard_while_a_program_is_waited_for():
    run, told = Run(program("a", SLEEP, healthy=lambda: False)), []
    timer = threading.Timer(1.0, run.supervisor.stop)
    timer.start()
    run.supervisor.run(lambda: told.append(1))
    assert not told
    assert run.count("stopped", "a") == 1


def test_care_starts_all_anew():
    run = Run(program("a", SLEEP), program("b", SLEEP))
    asked = iter([False, True])
    run.supervisor.care = lambda: next(asked, False)
    run.until(lambda: run.count("started", "b") == 2)
    whats = [event[:2] for event in run.events]
    assert whats[2:6] == [("stopped", "b"), ("stopped", "a"), ("started", "a"), ("started", "b")]


def test_what_outlives_its_program_ends_with_everything(tmp_path):
    """As a ServerApp outlives SuperExec."""
    path = tmp_path / "family"
    run = Run(program("a", FAMILY, path, outlived=True))
    left = []

    def killed_and_back():
        pids = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        if len(pids) == 1 and alive(int(pids[0][0])):
            os.kill(int(pids[0][0]), signal.SIGKILL)
        if len(pids) > 1 and not left:
            left.append(alive(int(pids[0][1])))
        return len(pids) > 1

    run.until(killed_and_back)
    assert left == [True]
    family = [int(pid) for pid in path.read_text().split()]
    assert len(family) == 4
    assert not any(map(alive, family))


def test_first_process_of_a_container_reaps_orphans():
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", FIRST_OF_A_CONTAINER], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_pause_has_an_end_however_often_a_program_died(monkeypatch):
    run = Run(program("dies", "raise SystemExit(1)"))
    begin = module._Kept
    monkeypatch.setattr(module, "_Kept", lambda process: begin(process, failures=5_000))
    run.until(lambda: run.count("started", "dies") >= 3)


@pytest.mark.parametrize("stopped", [True, False])
def test_what_fails_because_of_a_stop_is_no_error(stopped):
    run = Run(program("a", SLEEP))

    def ready():
        if stopped:
            run.supervisor.stop()
        raise ConfigError("the SuperLink is unreachable")

    if stopped:
        run.supervisor.run(ready)
    else:
        with pytest.raises(ConfigError, match="unreachable"):
            run.supervisor.run(ready)
    assert run.count("stopped", "a") == 1
