"""What a process says of itself: known events with known fields, and nothing else ever."""

import json
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from fondaco.shared import logs
from fondaco.shared.config import read_toml
from fondaco.shared.errors import BudgetError, ConfigError, DataError
from fondaco.shared.fields import KINDS

CANARY = "canary-3f9a"
SAMPLES = {
    "silo": "alpha",
    "digest": "sha256:" + "ab" * 32,
    "word": "gram",
    "phrase": "OSError on the socket",
    "error": "DataError",
    "address": "coordinator.example:9093",
    "count": 3,
    "seconds": 0.5,
    "place": "fondaco.client.agent:10",
}


@pytest.fixture
def in_production(monkeypatch):
    monkeypatch.delenv("PYTEST_VERSION")


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


@pytest.mark.parametrize("name", logs.EVENTS)
def test_every_event_can_be_said_with_all_its_fields(name, capsys):
    fields = {field: SAMPLES[kind] for field, kind in logs.EVENTS[name].items()}
    logs.event(name, **fields)
    (line,) = lines(capsys)
    assert line.pop("time").endswith("+00:00")
    assert line == {"process": "fondaco", "event": name, **fields}


def test_every_kind_of_value_is_bounded():
    for holds in KINDS.values():
        assert not holds("x" * 10_000)
        assert not holds(CANARY + "\n")
        assert not holds([CANARY])


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("agent.bought", {}),
        ("agent.answered", {"customer": CANARY}),
        ("agent.answered", {"received": CANARY}),
        ("agent.answered", {"action": f"/data/{CANARY}.csv"}),
        ("agent.turned_away", {"why": f"gram of {CANARY}!"}),
        ("failed", {"error": f"DataError: {CANARY}"}),
    ],
)
def test_what_no_event_names_is_an_error_in_tests(name, fields, capsys):
    with pytest.raises(ConfigError, match="no log line has a place for"):
        logs.event(name, **fields)
    assert capsys.readouterr().err == ""


def test_in_production_it_is_left_out_and_marked(in_production, capsys):
    logs.event("agent.answered", action="release", customer=CANARY, item=CANARY)
    logs.event(f"bought by {CANARY}", item=CANARY)
    known, unknown = lines(capsys)
    assert (known["action"], known["left_out"]) == ("release", 2)
    assert (unknown["event"], unknown["left_out"]) == ("unlisted", 2)
    assert unknown["place"].rpartition(":")[0].endswith("test_logs")
    assert CANARY not in json.dumps([known, unknown])


def test_a_failure_says_kind_code_and_place_but_no_text(capsys):
    try:
        raise BudgetError(f"{CANARY} is left", "policy-budget")
    except BudgetError as error:
        logs.failed(error, "agent.refused", action="release")
    (line,) = lines(capsys)
    assert (line["error"], line["code"], line["action"]) == (
        "BudgetError",
        "policy-budget",
        "release",
    )
    assert CANARY not in json.dumps(line)


def test_the_place_of_a_failure_is_a_line_of_our_code(capsys):
    try:
        read_toml(f"/nowhere/{CANARY}.toml")
    except Exception as error:
        logs.failed(error)
    (line,) = lines(capsys)
    assert line["place"].startswith("fondaco.shared.config:")
    assert CANARY not in json.dumps(line)


def test_a_terminal_gets_words(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    logs.event("agent.answered", kind="gram", round_num=2, seconds=1.5)
    line = capsys.readouterr().err
    assert line[8:] == " fondaco: answered kind=gram round_num=2 seconds=1.5\n"


def test_every_event_that_is_listed_is_written_somewhere():
    rooms = [Path(logs.__file__).parents[1] / room for room in ("client", "server", "shared")]
    code = "".join(path.read_text() for room in rooms for path in room.rglob("*.py"))
    assert [name for name in logs.EVENTS if code.count(f'"{name}"') < 2] == []  # its entry is one


def test_a_closed_standard_error_stops_nobody(monkeypatch):
    with open(os.devnull, "w", encoding="utf-8") as closed:
        pass
    monkeypatch.setattr(sys, "stderr", closed)
    logs.event("agent.stopped")


@pytest.mark.parametrize("kind", [DataError, ConfigError, OSError])
def test_a_service_ends_on_our_errors_without_their_text(kind, capsys):
    with pytest.raises(SystemExit, match="2"), logs.guard():
        raise kind(CANARY)
    (line,) = lines(capsys)
    assert (line["event"], line["error"]) == ("failed", kind.__name__)


def test_on_a_terminal_our_errors_go_on_to_the_owner(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with pytest.raises(DataError, match=CANARY), logs.guard():
        raise DataError(CANARY)


PROGRAM = f"""
import logging, threading, warnings
from fondaco.shared import logs
from fondaco.shared.errors import DataError
logging.basicConfig()
flower = logging.getLogger("flwr")
flower.addHandler(logging.StreamHandler())
logs.install("agent")
logs.event("agent.started", silo_id="alpha")
warnings.warn("{CANARY}")
logging.getLogger("sqlalchemy.engine").error("password {CANARY}")
flower.error("%s", "{CANARY}", exc_info=ValueError("{CANARY}"))
logging.getLogger().critical("{CANARY}")

def thread():
    raise DataError("{CANARY}")

worker = threading.Thread(target=thread, name="{CANARY}")
worker.start()
worker.join()

class Leaky:
    def __del__(self):
        raise ValueError("{CANARY}")

Leaky()

def deep(customer):
    try:
        {{}}[customer]
    except KeyError as error:
        raise DataError(f"no customer {{customer}}") from error

deep("{CANARY}")
"""


def test_nothing_that_fails_in_a_process_says_more_than_its_kind():
    environment = {k: v for k, v in os.environ.items() if k != "PYTEST_VERSION"}
    done = subprocess.run(  # noqa: S603  (our own program)
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    said = [json.loads(line) for line in done.stderr.splitlines()]
    assert (done.returncode, done.stdout) == (1, "")
    assert CANARY not in done.stderr
    assert [line["event"] for line in said] == [
        "agent.started",
        "warned",
        *["library"] * 3,
        *["crashed"] * 3,
    ]
    assert [line.get("library") for line in said[2:5]] == ["sqlalchemy", "flwr", "root"]
    assert said[-1]["inner"].startswith("__main__:")


def test_hooks_of_python_are_taken_over_once(monkeypatch):
    for owner, name in ((sys, "excepthook"), (sys, "unraisablehook"), (warnings, "showwarning")):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    monkeypatch.setattr(logs, "_process", "fondaco")
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(logs, "_loggers", list)
    monkeypatch.setattr(logs.threading, "excepthook", logs.threading.excepthook)
    logs.install("agent")
    logs.install("courier")
    assert len(logging.getLogger().handlers) == 1
    assert logs._process == "courier"
