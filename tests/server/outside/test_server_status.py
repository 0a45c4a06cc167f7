"""fondaco-server status, metrics and history: public numbers, and one clear line otherwise."""

import json
import os
import re
import socket
import subprocess
import sys
import urllib.request
from types import SimpleNamespace

import numpy as np
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from fondaco.server.checkpoint import Dropped, RoundResult
from fondaco.server.commands import status as commands
from fondaco.server.deployed import PreparedRun
from fondaco.server.home import ServerHome, ServerSettings
from fondaco.server.metrics import registry
from fondaco.server.status import StatusFile
from fondaco.shared.audit_log import AuditLog

SUM = 31_337


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def home(tmp_path, port):
    settings = ServerSettings(name="hub", port=port, public_address="hub.example:9093")
    return ServerHome.make(tmp_path / "hub", settings)


@pytest.fixture
def call(monkeypatch, capsys, home):
    """Run the console script in this process; return what it printed."""
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")

    def run(*words, code=0, folder=None):
        from fondaco.server import cli  # noqa: PLC0415  (Flower: after pytest's own set-up)

        words = ["fondaco-server", *words, "--home", str(folder or home.folder)]
        monkeypatch.setattr(sys, "argv", words)
        capsys.readouterr()
        ended = 0
        try:
            cli.main()
        except SystemExit as end:
            ended = end.code or 0
        printed = capsys.readouterr()
        assert ended == code, printed
        return printed.out if code != 2 else printed.err

    return run


@pytest.fixture
def run_file(home, make_plan, make_roster):
    """The status of a run in its second round."""
    agreed = make_plan(**make_roster(10, witnesses=0))
    folder = home.runs / "0123456789abcdef"
    folder.mkdir()
    file = StatusFile(folder / "status.json", agreed)
    file.begin()
    file.present(["north", "silo-2", "silo-3"])
    file.stage("popularity", 0, 3)
    file.traffic("north", 2_048, 100)
    file.traffic("silo-2", 2_000, 100)
    file.refused("silo-3", "BudgetError: 0.00 of 1.0 left")
    file.round_done(
        RoundResult(
            kind="popularity",
            round_num=1,
            total=np.array([SUM], dtype=np.int64),
            present=("north", "silo-2"),
            dropped=(Dropped("silo-3", 1, "no answer within 9 s"),),
        ),
        2.5,
    )
    file.stage("gram", 1, 2)
    return file


# ---- status ----


def test_nothing_running_is_said(call):
    out = call("status")
    assert "nothing is running" in out
    assert "does not answer: fondaco-server start" in out
    assert json.loads(call("status", "--json"))["run"] is None


def test_the_certificates_last_day_is_told(call, home):
    ends = home.tls.expires()
    assert json.loads(call("status", "--json"))["certificate_until"] == ends.isoformat()
    assert f"certificate until {ends:%Y-%m-%d}" in call("status")


def test_a_damaged_certificate_leaves_all_else_to_be_told(call, home):
    home.tls.certificate.write_text("none")
    assert json.loads(call("status", "--json"))["certificate_until"] == ""
    assert "certificate missing or damaged; registered silos" in call("status")


def test_a_damaged_registration_is_named(call, home):
    (home.silos / "alpha.json").write_bytes(b"{}")
    assert "alpha.json: this is no registration" in " ".join(call("status", code=2).split())


def test_a_listening_superlink_is_seen(call, port):
    with socket.socket() as service:
        service.bind(("127.0.0.1", port))
        service.listen()
        assert json.loads(call("status", "--json"))["superlink_up"] is True


def test_a_run_shows_silos_rounds_stage_bytes_refusals_and_promise(call, run_file):
    out = call("status")
    for words in (
        "run of an unnamed federation",
        "running, 1 of 2 rounds; now gram, 1 of 2 silos answered",
        "promises epsilon 1.0 at delta 1e-06",
        "1 refusals; the last by silo-3",
        "no answer within 9 s",
    ):
        assert words in out
    assert re.search(r"north +yes +1 +2.0 kB +100 B", out)
    assert re.search(r"1 +popularity +2 +1 +2.5 +2.0 kB", out)


def test_machines_get_the_same_facts(call, run_file):
    run = json.loads(call("status", "--json"))["run"]
    assert (run["state"], run["done"], run["planned"], run["phases"]) == ("running", 1, 2, 1)
    assert run["rounds"][0]["traffic"][0] == {"silo_id": "north", "sent": 2048, "received": 100}
    assert run["seconds"] == {"popularity": 2.5}
    assert str(SUM) not in json.dumps(run)


def test_run_that_nobody_works_on_is_told(call, run_file, home):
    (name,) = (path.name for path in home.runs.iterdir())
    assert "no ServerApp works on it now" in call("status")
    with PreparedRun.of(home, name).alone():
        assert json.loads(call("status", "--json"))["run"]["at_work"]
        assert "no ServerApp works" not in call("status")
    assert not json.loads(call("status", "--json"))["run"]["at_work"]
    run_file.finish("finished")
    assert "no ServerApp works" not in call("status")


def test_a_failed_run_ends_with_one(call, run_file):
    run_file.finish("failed", "gram: 1 silos answered, the plan needs 9")
    assert "the plan needs 9" in call("status", code=1)


def test_watching_ends_with_the_run(call, run_file):
    run_file.finish("finished")
    assert "finished" in call("status", "--watch")


def test_watching_machines_get_a_line_of_json_for_every_look(call, run_file, monkeypatch):
    end = SimpleNamespace(sleep=lambda _: run_file.finish("finished"))
    monkeypatch.setattr(commands, "time", end)
    lines = call("status", "--watch", "--json").splitlines()
    assert [json.loads(line)["run"]["state"] for line in lines] == ["running", "finished"]


def test_a_silos_words_are_no_markup(call, run_file):
    run_file.refused("silo-2", "[red]x[/red] \x1b[31m")
    run_file.finish("finished")
    out = call("status")
    assert "[red]x[/red]" in out
    assert "\x1b[31m" not in out


def test_the_newest_of_run_and_rehearsal_is_shown(call, run_file, home, make_plan, make_roster):
    rehearsal = home.runs / "0123456789abcdef" / "preflight.json"
    StatusFile(rehearsal, make_plan(**make_roster(10, witnesses=0))).begin("preflight")
    os.utime(rehearsal, (2e9, 2e9))
    assert "rehearsal of" in call("status")


@pytest.mark.parametrize("command", [["status"], ["metrics", "--once"]])
def test_a_folder_that_is_no_coordinators_is_one_line(call, tmp_path, command):
    err = call(*command, folder=tmp_path / "nothing", code=2)
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_a_damaged_status_is_one_line(call, run_file, home):
    (home.runs / "0123456789abcdef" / "status.json").write_text("{")
    assert "cannot be read" in call("status", code=2)


# ---- history ----


def test_history_of_the_coordinator_is_shown_and_checked(call, home):
    log = AuditLog(home.folder / "audit.jsonl")
    log.write("invite", silo_id="alpha")
    log.write("start", address="127.0.0.1:9093")
    assert "silo id alpha" in call("history")
    path = home.folder / "audit.jsonl"
    path.write_text(path.read_text().replace("alpha", "gamma"))
    assert "follows upon another line" in call("history", code=1)


def test_history_of_a_forged_log_is_shown_with_what_is_wrong(call, home):
    log = AuditLog(home.folder / "audit.jsonl")
    log.write("invite", silo_id="alpha")
    path = home.folder / "audit.jsonl"
    line = {**json.loads(path.read_text()), "time": "[/red]2026"}
    path.write_text(json.dumps(line) + "\n")
    out = call("history", code=1)
    assert "line 1 was cut off, or is none of this log's" in out
    assert "head " in out


# ---- metrics ----


def samples(text):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_are_what_prometheus_reads(call, run_file):
    text = call("metrics", "--once")
    families = list(text_string_to_metric_families(text))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    for family in families:
        assert re.fullmatch(r"fondaco_[a-z_]+", family.name)
        assert family.documentation.endswith(".")
        assert family.type in ("gauge", "counter")
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter")
    assert text.endswith("\n")


def test_metrics_tell_the_run(call, run_file):
    found = samples(call("metrics", "--once"))
    assert found[("fondaco_rounds_done",)] == 1
    assert found[("fondaco_rounds_planned",)] == 2
    assert found[("fondaco_run_state", ("state", "running"))] == 1
    assert found[("fondaco_silo_present", ("silo", "silo-3"))] == 0
    sent = found[("fondaco_silo_bytes_total", ("sender", "silo"), ("silo", "north"))]
    assert sent == 2048
    assert found[("fondaco_round_seconds_total", ("kind", "popularity"))] == 2.5
    assert found[("fondaco_epsilon_promised",)] == 1.0
    assert found[("fondaco_refusals_total",)] == 1
    assert found[("fondaco_superlink_up",)] == 0


def test_metrics_hold_no_number_of_a_sum_and_no_reason(run_file, home):
    text = generate_latest(registry(home.folder)).decode()
    assert str(SUM) not in text
    assert "BudgetError" not in text
    assert "no answer" not in text


def test_metrics_go_on_when_a_status_is_damaged(run_file, home):
    (home.runs / "0123456789abcdef" / "status.json").write_text("{")
    found = samples(generate_latest(registry(home.folder)).decode())
    assert found[("fondaco_status_unreadable",)] == 1


def test_metrics_before_any_run_are_few(home):
    found = samples(generate_latest(registry(home.folder)).decode())
    until = ("fondaco_certificate_expires_timestamp_seconds",)
    assert set(found) == {("fondaco_superlink_up",), ("fondaco_silos_registered",), until}
    assert found[until] == home.tls.expires().timestamp()


def test_damaged_certificate_leaves_the_other_metrics(home):
    home.tls.certificate.write_text("none")
    found = samples(generate_latest(registry(home.folder)).decode())
    assert found[("fondaco_certificate_expires_timestamp_seconds",)] == 0
    assert ("fondaco_superlink_up",) in found


def test_an_address_that_is_none_is_refused(call):
    assert "is no address" in call("metrics", "--listen", "9464", code=2)


def test_a_port_of_metrics_that_somebody_has_is_named(call):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        err = call("metrics", "--listen", address, code=2)
    assert f"cannot listen at {address} (Address already in use)" in err
    assert "choose another --listen" in err


def test_metrics_are_served_on_the_loopback_address(run_file, home, port):
    program = "from fondaco.server.cli import main; main()"
    words = [sys.executable, "-c", program, "metrics", "--home", str(home.folder)]
    with subprocess.Popen(  # noqa: S603  (our own program)
        [*words, "--listen", f"127.0.0.1:{port}"], stderr=subprocess.PIPE, text=True
    ) as served:
        try:
            assert f"metrics at port {port}" in served.stderr.readline()
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                text = answer.read().decode()
        finally:
            served.terminate()
    assert samples(text)[("fondaco_rounds_done",)] == 1
