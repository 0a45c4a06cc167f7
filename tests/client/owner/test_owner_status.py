"""fondaco-client status and history: what an owner sees, and that looking changes nothing."""

import json
import os
import signal
import time

import pytest

from fondaco.client.contact import CONTACT, Duty, agent_pid, on_duty, read_contact
from fondaco.client.deployment import Deployment, write_deployment
from fondaco.client.owner import Owner
from fondaco.client.status import owner_facts
from fondaco.shared.audit_log import AuditLog
from fondaco.shared.codec import Parts
from fondaco.shared.errors import ConfigError, RefusalError
from fondaco.shared.privacy.ledger import Ledger

CANARY = "canary-3f9a"


@pytest.fixture
def spent(script, ready):
    """An owner who released one statistic and refused another."""
    plan, path = ready
    script.own("approve", path, "--yes")
    owner = Owner.open(script.home)
    with Ledger(owner.home.ledger, owner.identity, plan) as ledger:
        with pytest.raises(RefusalError):
            ledger.debit("popularity", 1, request="sha256:1")
        with pytest.raises(RefusalError):
            ledger.debit("unheard-of", 7, request="sha256:1")
    return owner


def facts(script):
    return json.loads(script.own("status", "--json"))


def test_an_owner_without_a_ledger_sees_what_is_missing(script, owner):
    assert facts(script)["plan"] is None
    assert not owner.home.ledger.exists()
    out = script.own("status")
    assert "no plan was approved yet" in out
    assert "no limits are set yet" in out
    assert "the agent does not run" in out


def test_plan_and_limits_in_force_are_shown(script, ready):
    plan, path = ready
    script.own("approve", path, "--yes")
    seen = facts(script)
    assert (seen["plan"]["digest"], seen["plan"]["in_force"]) == (plan.digest, True)
    assert (seen["plan"]["epsilon"], seen["plan"]["left"]) == ("1.0", "1.00")
    assert (seen["policy"]["epsilon_per_year"], seen["policy"]["spent_epsilon"]) == ("3.0", 0.0)
    out = script.own("status")
    assert "1.00 of epsilon 1.0 left" in out
    assert "epsilon 0 of 3.0" in out


def test_refusals_are_counted_by_code(script, spent):
    assert facts(script)["refusals"] == {"not-witnessed": 1, "not-in-plan": 1}
    assert "not-witnessed 1" in script.own("status")


def test_looking_changes_nothing(script, spent):
    def files():
        return {p: p.read_bytes() for p in script.home.rglob("*") if p.is_file()}

    before = files()
    script.own("status")
    assert files() == before


def test_a_deployed_silo_names_its_coordinator(script, owner, tmp_path):
    where = Deployment(superlink="hub.example:9093", coordinator="x", courier=str(tmp_path))
    write_deployment(script.home, where)
    assert facts(script)["superlink"] == "hub.example:9093"


def test_a_running_agent_is_seen_and_a_dead_one_is_not(script, owner, children):
    def work():
        with on_duty(script.home):
            time.sleep(60)

    child = children.fork(work)
    until = time.monotonic() + 20
    while agent_pid(script.home) is None and time.monotonic() < until:
        time.sleep(0.02)
    assert facts(script)["agent"]["pid"] == child
    assert "the agent runs since" in script.own("status")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert facts(script)["agent"]["running"] is False


def test_a_second_agent_is_refused(owner, monkeypatch):
    monkeypatch.setattr("fondaco.client.contact.PATIENCE_S", 0.1)
    with on_duty(owner.folder), pytest.raises(ConfigError, match="another agent"):
        on_duty(owner.folder).__enter__()
    with on_duty(owner.folder):
        pass


def test_calls_are_noted_with_their_bytes(script, owner, capsys):
    with on_duty(owner.folder) as duty:
        answer = duty.watched(lambda action, parts: Parts(record=b"abc"))
        answer("release", Parts(record=b"12345", masking=b"6"))
        answer("release", Parts(record=b"12345"))
    (calls,) = read_contact(owner.folder).calls
    assert (calls.action, calls.answered, calls.received, calls.sent) == ("release", 2, 11, 6)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["event"], line["sent"]) for line in lines] == [("agent.answered", 3)] * 2
    assert "release" in script.own("status")


def test_failures_are_noted_and_raised_but_never_quoted(owner, capsys):
    def fail(action, parts):
        raise RefusalError(f"no {CANARY}", "not-in-plan")

    duty = Duty(owner.folder)
    with pytest.raises(RefusalError, match=CANARY):
        duty.watched(fail)("release", Parts(record=CANARY.encode()))
    said = capsys.readouterr().err
    assert json.loads(said)["code"] == "not-in-plan"
    assert CANARY not in said + (owner.folder / CONTACT).read_text()
    assert read_contact(owner.folder).calls[0].refused == 1


def test_notes_outlive_the_agent(owner):
    for _ in range(2):
        with on_duty(owner.folder) as duty:
            duty.watched(lambda action, parts: Parts())("status", Parts())
    assert read_contact(owner.folder).calls[0].answered == 2


def test_a_damaged_note_is_named_to_the_owner_and_begun_anew_by_the_agent(script, owner):
    (owner.folder / CONTACT).write_text("{")
    assert "contact.json is damaged" in script.refused("status")
    with on_duty(owner.folder):
        pass
    assert owner_facts(owner.folder)["contact"]["calls"] == []


def test_a_folder_that_is_no_owners_has_no_status(script):
    assert "no owner's folder" in script.refused("status")
    assert not script.home.exists()


def test_history_shows_who_did_what(script, owner):
    log = AuditLog(script.home / "audit.jsonl")
    log.write("init", silo_id="north")
    log.write("recommend", count=20)
    out = script.own("history")
    assert "silo id north" in out
    assert "count 20" in out
    seen = json.loads(script.own("history", "--json"))
    assert seen["whole"]
    assert [entry["action"] for entry in seen["entries"]][-2:] == ["init", "recommend"]


def test_history_that_was_changed_ends_with_one(script, owner):
    log = AuditLog(script.home / "audit.jsonl")
    log.write("init", silo_id="north")
    log.write("erase")
    path = script.home / "audit.jsonl"
    path.write_text(path.read_text().replace("north", "south"))
    assert "follows upon another line" in script.own("history", code=1)


def test_history_of_an_idle_folder_is_said_to_be_missing(script, owner):
    (script.home / "audit.jsonl").unlink(missing_ok=True)
    assert "nothing was done here yet" in script.refused("history")
