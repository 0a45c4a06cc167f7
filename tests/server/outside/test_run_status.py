"""What a run tells of itself while it runs, and after it was killed."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from fondaco.server import status as status_module
from fondaco.server.checkpoint import Dropped, RoundResult
from fondaco.server.status import StatusFile, read_status
from fondaco.shared.errors import ConfigError


@pytest.fixture
def agreed(make_plan, make_roster):
    return make_plan(**make_roster(10, witnesses=0))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "status.json"


def result(round_num=1, kind="popularity", present=("north", "silo-2"), dropped=()):
    return RoundResult(
        kind=kind,
        round_num=round_num,
        total=np.array([31_337], dtype=np.int64),
        present=present,
        dropped=dropped,
    )


def test_run_waits_for_silos_until_some_are_present(path, agreed):
    file = StatusFile(path, agreed)
    file.begin()
    assert read_status(path).state == "waiting"
    file.present(["north", "silo-3"])
    status = read_status(path)
    assert status.state == "running"
    assert [s.silo_id for s in status.silos if s.present] == ["north", "silo-3"]
    assert len(status.silos) == 10


def test_status_holds_the_public_terms_of_the_plan(path, agreed):
    StatusFile(path, agreed).begin("preflight")
    status = read_status(path)
    assert (status.plan, status.task) == (agreed.digest, "preflight")
    assert (status.epsilon, status.target_delta) == ("1.0", "1e-06")
    assert (status.planned, status.expires) == (2, "2999-12-31")


def test_rounds_keep_time_phases_and_bytes_of_each_silo(path, agreed):
    file = StatusFile(path, agreed)
    file.begin()
    file.stage("popularity", 0, 2)
    file.traffic("north", 40, 100)
    file.traffic("north", 2, 1)
    file.stage("popularity", 2, 2)
    file.round_done(result(), 1.25)
    file.stage("gram", 0, 2)
    file.stage("witness", 0, 2)
    file.traffic("north", 8, 9)
    file.round_done(result(2, "gram"), 2.0)
    status = read_status(path)
    first, second = status.rounds
    assert [(t.silo_id, t.sent, t.received) for t in first.traffic] == [("north", 42, 101)]
    assert (first.seconds, first.phases, second.phases, status.phases) == (1.25, 1, 2, 3)
    north = status.silos[0]
    assert (north.sent, north.received, north.last_round) == (50, 110, 2)
    assert status.seconds == {"popularity": 1.25, "gram": 2.0}


def test_a_dropped_silo_is_absent_and_its_reason_kept(path, agreed):
    file = StatusFile(path, agreed)
    file.begin()
    file.present(["north", "silo-2", "silo-3"])
    file.round_done(result(dropped=(Dropped("silo-3", 1, "no answer within 9 s"),)), 1.0)
    silo = next(s for s in read_status(path).silos if s.silo_id == "silo-3")
    assert (silo.present, silo.dropped, silo.last_round) == (False, "no answer within 9 s", 0)


def test_node_of_nobody_is_told_of_once_and_is_no_silo(path, agreed):
    """What a plan's silos are is in its roster; metrics and `run` count them."""
    file = StatusFile(path, agreed)
    file.begin()
    for _ in range(3):
        file.dropped("node 4711", "runs another plan or other code")
    file.present(["north"])
    status = read_status(path)
    assert [silo.silo_id for silo in status.silos] == list(agreed.roster)
    assert [(r.silo_id, r.reason) for r in status.refusals] == [
        ("node 4711", "runs another plan or other code")
    ]
    assert status.refused == 1


def test_refusals_are_counted_and_the_last_are_kept(path, agreed):
    file = StatusFile(path, agreed)
    file.begin()
    for num in range(60):
        file.refused("north", f"BudgetError: {num}")
    file.finish("failed", "too few silos\nanswered")
    status = read_status(path)
    assert (status.refused, len(status.refusals)) == (60, 50)
    assert status.refusals[-1].reason == "BudgetError: 59"
    assert (status.state, status.error) == ("failed", "too few silos answered")


def test_run_that_is_taken_up_again_keeps_its_rounds(path, agreed):
    first = StatusFile(path, agreed)
    first.begin()
    first.stage("popularity", 0, 2)
    first.traffic("north", 42, 100)
    first.round_done(result(), 1.25)
    again = StatusFile(path, agreed)
    again.begin()
    again.round_done(result(), 0.001)
    again.stage("gram", 0, 2)
    again.round_done(result(2, "gram"), 2.0)
    status = read_status(path)
    assert (status.resumed, status.phases, status.silos[0].sent) == (1, 2, 42)
    assert [(r.seconds, r.phases) for r in status.rounds] == [(1.25, 1), (2.0, 1)]


def test_another_task_begins_anew(path, agreed):
    first = StatusFile(path, agreed)
    first.begin("preflight")
    first.round_done(result(), 1.25)
    StatusFile(path, agreed).begin("run")
    assert read_status(path).rounds == ()


def test_a_damaged_file_is_written_anew(path, agreed):
    path.write_text('{"schema": 1, "plan"')
    StatusFile(path, agreed).begin()
    assert read_status(path).state == "waiting"


def test_within_a_stage_the_file_is_written_twice_a_second_at_most(path, agreed, monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr(
        status_module, "time", SimpleNamespace(monotonic=lambda: next(clock) * 0.01)
    )
    file = StatusFile(path, agreed)
    file.begin()
    file.stage("gram", 0, 200)
    writes = []
    monkeypatch.setattr(status_module, "write_whole", lambda *args: writes.append(args))
    for heard in range(1, 200):
        file.stage("gram", heard, 200)
    assert 1 <= len(writes) <= 8  # 199 calls, 10 to 20 ms apart
    file.stage("gram", 200, 200)
    assert json.loads(writes[-1][1])["heard"] == 200


def test_no_number_of_a_sum_is_in_the_file(path, agreed):
    file = StatusFile(path, agreed)
    file.begin()
    file.round_done(result(), 1.0)
    assert "31337" not in path.read_text()


@pytest.mark.parametrize(
    "text", ["", "[]", '{"schema": 2}', '{"schema": 1, "state": "asleep"}', "\x00\xff"]
)
def test_what_is_no_status_is_named(path, text):
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"status\.json|plan is missing"):
        read_status(path)


def test_a_plan_that_was_not_run_is_said_so(path):
    with pytest.raises(ConfigError, match="was not run here yet"):
        read_status(path)
