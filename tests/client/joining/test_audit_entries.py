"""What an owner changes by a command stands in its audit log; what it only reads does not."""

from kits import files_of

from fondaco.shared.audit_log import verify
from fondaco.shared.chain.keys import Identity


def test_every_change_is_written_down_with_public_facts_only(script, joined, desk):
    script.own("approve", script.home / "kit" / "plan.toml", "--yes")
    script.own("ledger", "--export", desk / "x.jsonl")
    script.own("ledger", "--import", desk / "x.jsonl")
    script.own("leave", "--reason", "we are closing")
    trail = verify(script.home / "audit.jsonl")
    assert trail.findings == ()
    actions = [entry.action for entry in trail.entries]
    assert actions == ["init", "init", "policy", "policy", "approve", "restore", "leave"]
    fields = {entry.action: dict(entry.fields) for entry in trail.entries}
    assert fields["approve"] == fields["leave"] == {"plan": joined.digest}
    assert fields["policy"]["epsilon_per_year"] == "3.0"
    assert "closing" not in (script.home / "audit.jsonl").read_text()


def test_keys_that_are_trusted_are_counted(script, init, joined, coordinator):
    def pinned():
        entries = verify(script.home / "audit.jsonl").entries
        return [e.fields["pinned"] for e in entries if "pinned" in e.fields]

    assert pinned() == [10, 0]  # nine peers and the coordinator; limits alone
    new = Identity.generate("fondaco/silo-2").public.text()
    again = coordinator.plan(script.home, roster={**joined.roster, "silo-2": new})
    init(coordinator.kit(again), "--yes", "--replace-peer", "silo-2")
    assert pinned() == [10, 0, 1]


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
