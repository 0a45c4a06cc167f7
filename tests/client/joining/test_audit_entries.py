"""What an owner changes by a command stands in its audit log; what it only reads does not."""

from kits import files_of

from fondaco.shared.audit_log import verify


def test_every_change_is_written_down_with_public_facts_only(script, joined, desk):
    script.own("approve", script.home / "kit" / "plan.toml", "--yes")
    script.own("ledger", "--export", desk / "x.jsonl")
    script.own("ledger", "--import", desk / "x.jsonl")
    script.own("leave", "--reason", "we are closing")
    trail = verify(script.home / "audit.jsonl")
    assert trail.findings == ()
    actions = [entry.action for entry in trail.entries]
    assert actions == ["init", "init", "policy", "approve", "restore", "leave"]
    fields = {entry.action: dict(entry.fields) for entry in trail.entries}
    assert fields["approve"] == fields["leave"] == {"plan": joined.digest}
    assert fields["policy"]["epsilon_per_year"] == "3.0"
    assert "closing" not in (script.home / "audit.jsonl").read_text()


def test_reading_is_not_written_down(script, joined):
    before = files_of(script.home)[script.home / "audit.jsonl"]
    script.own("policy")
    script.own("ledger")
    script.own("approve", script.home / "kit" / "plan.toml", "--json")
    script.own("keys")
    assert files_of(script.home)[script.home / "audit.jsonl"] == before


def test_customer_who_is_erased_is_not_named(script, joined):
    script.refused("erase", "ann-4711")
    assert "4711" not in (script.home / "audit.jsonl").read_text()
