"""fondaco-client status and history: what an owner sees, and that looking changes nothing."""

import json
import os

import pytest

from fondaco.client.deployment import Deployment, write_deployment
from fondaco.client.owner import Owner
from fondaco.client.pulse import FILE, Pulse
from fondaco.shared.audit_log import AuditLog
from fondaco.shared.errors import RefusalError
from fondaco.shared.privacy.ledger import Ledger


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


def test_a_ledger_that_is_gone_is_no_new_one(script, ready):
    Owner.open(script.home).home.ledger.unlink()
    assert "is gone but it was in use" in script.refused("status")


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


@pytest.mark.parametrize("pid", [1, 10**9])
def test_agent_that_holds_its_lock_runs_whatever_its_number_is_called_here(script, owner, pid):
    """In containers, agent and status count their processes each for itself."""
    from fondaco.client.service import only_agent  # noqa: PLC0415  (imports what warns)

    (script.home / FILE).write_text(json.dumps({"pid": pid, "started": 1.0}))
    assert not facts(script)["agent"]["running"]
    lock = only_agent(script.home)
    assert facts(script)["agent"]["running"]
    assert "the agent runs since 1970-01-01" in script.own("status")
    os.close(lock)
    assert not facts(script)["agent"]["running"]


def test_silo_without_a_coordinator_is_told_how_to_join(script, owner):
    assert "coordinator: nobody (join with fondaco-client init)" in script.own("status")


def test_calls_are_shown_with_their_bytes(script, owner):
    pulse = Pulse(script.home)
    pulse.beat("hello", 5, 7)
    pulse.beat("release", 11_000, 2_000)
    pulse.beat("release", 1_000, 500)
    contact = facts(script)["contact"]
    assert (contact["received"], contact["sent"]) == (12_005, 2_507)
    release = contact["calls"][1]
    assert (release["action"], release["answered"], release["sent"]) == ("release", 2, 2_500)
    assert "12,005 bytes came, 2,507 left" in script.own("status")


def test_a_damaged_pulse_counts_as_none(script, owner):
    (script.home / FILE).write_text("{")
    assert facts(script)["contact"]["last"] == ""


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
