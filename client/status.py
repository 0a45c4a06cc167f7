"""What an owner sees of a silo: plan, budget, contact, refusals, witnesses; changes nothing."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from fondaco.shared.chain.notes import parse_note
from fondaco.shared.files import is_locked
from fondaco.shared.privacy.accountant import epsilon_at
from fondaco.shared.privacy.events import PrivacyEvent
from fondaco.shared.privacy.ledger import Ledger
from fondaco.shared.privacy.policy import YEAR, Policy

from .deployment import DEPLOYMENT, read_deployment
from .ledger_view import ledger_facts
from .owner import FACTS, Owner
from .pulse import read_pulse
from .service import LOCK

Record = Mapping[str, Any]


def owner_facts(home: Path) -> dict[str, Any]:
    """Return all that an owner sees, as plain values.

    Raises:
        ConfigError: the folder is no owner's, or a file of it is damaged.
        LedgerError: the ledger is damaged, or gone though it was in use.
    """
    owner = Owner.open(home)
    deployed = (home / DEPLOYMENT).is_file()
    return {
        "silo_id": owner.silo_id,
        "superlink": read_deployment(home).superlink if deployed else "",
        "simulated": not (home / FACTS).is_file(),
        **_pulse_facts(read_pulse(home), running=is_locked(home / LOCK)),
        **_ledger_facts(owner),
    }


def _pulse_facts(pulse: Mapping[str, Any], *, running: bool) -> dict[str, Any]:
    """Return whether the agent runs, and what it noted of its coordinator's calls."""
    calls: dict[str, dict[str, Any]] = {}
    for phase in pulse.get("phases", ()):
        call = calls.setdefault(
            phase["action"], {"action": phase["action"], "answered": 0, "received": 0, "sent": 0}
        )
        call["answered"] += 1
        call["received"] += phase["received"]
        call["sent"] += phase["sent"]
        call["last"] = _moment(phase["time"])
    return {
        "agent": {
            "running": running,
            "pid": pulse.get("pid"),
            "started": _moment(pulse.get("started", 0)),
        },
        "contact": {
            "last": _moment(pulse.get("last_contact", 0)),
            "received": pulse.get("received", 0),
            "sent": pulse.get("sent", 0),
            "calls": list(calls.values()),
        },
    }


def _moment(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="seconds") if unix_s else ""


def _ledger_facts(owner: Owner) -> dict[str, Any]:
    """What the ledger says; an owner who has not begun one is told so and gets none."""
    if not owner.has_ledger():
        empty: dict[str, Any] = {"plan": None, "policy": None, "head": None, "witnessed": None}
        return {**empty, "rounds": [], "refusals": {}}
    with Ledger(owner.home.ledger, owner.identity) as ledger:
        facts, records = ledger_facts(ledger), ledger.records()
        policy = ledger.policy()
    plan = facts["plan"]
    return {
        "plan": plan,
        "policy": None if policy is None else _policy_facts(policy, _of("DEBIT", records)),
        "head": facts["head"],
        "witnessed": _witnessed(_of("DEBIT", records)),
        "rounds": [_round(release) for release in _of("RELEASE", records, plan)],
        "refusals": dict(Counter(refusal["code"] for refusal in _of("REFUSAL", records))),
    }


def _of(kind: str, records: Sequence[Record], plan: Record | None = None) -> list[Record]:
    """Return the records of one type, of one plan if it is named."""
    return [
        record
        for record in records
        if record["type"] == kind and (plan is None or record["plan_digest"] == plan["digest"])
    ]


def _round(release: Record) -> dict[str, Any]:
    names = ("kind", "round_num", "attempt", "size_bytes", "ts")
    return {name: release[name] for name in names}


def _policy_facts(policy: Policy, debits: Sequence[Record]) -> dict[str, Any]:
    """What the owner allows per year, and what the last 365 days have taken of it."""
    now = datetime.now(UTC)
    recent = [d for d in debits if now - datetime.fromisoformat(d["ts"]) < YEAR]
    spent = sum(policy.cost(PrivacyEvent(**debit["event"])) for debit in recent)
    epsilon = epsilon_at(spent, Fraction(policy.order), float(policy.target_delta))
    return {
        **asdict(policy),
        "spent_epsilon": round(epsilon, 4) if spent else 0.0,
        "spent_share": round(spent / policy.budget_units, 4),
    }


def _witnessed(debits: Sequence[Record]) -> dict[str, Any] | None:
    """Return the newest head that others co-signed, and who; None if none was needed yet."""
    notes = [debit["witnessed"] for debit in debits if debit["witnessed"]]
    if not notes:
        return None
    head, lines = parse_note(notes[-1])
    signers = dict.fromkeys(name for name, _ in lines if name != head.origin)
    return {"size": head.size, "by": list(signers)}


def facts_in_tables(facts: Mapping[str, Any]) -> Group:
    """Return the facts for a terminal."""
    lines = [escape(line) for line in (*_about_agent(facts), *_about_budget(facts))]
    if facts["refusals"]:
        counted = ", ".join(f"{code} {count}" for code, count in facts["refusals"].items())
        lines.append(escape(f"refused so far: {counted}"))
    return Group(*lines, *_call_table(facts["contact"]["calls"]), *_round_table(facts["rounds"]))


def _about_agent(facts: Mapping[str, Any]) -> list[str]:
    fix = "this silo is simulated" if facts["simulated"] else "join with fondaco-client init"
    agent, where = facts["agent"], facts["superlink"] or f"nobody ({fix})"
    state = f"runs since {agent['started']}" if agent["running"] else "does not run"
    contact = facts["contact"]
    sizes = f"{contact['received']:,} bytes came, {contact['sent']:,} left, in all"
    return [
        f"{facts['silo_id']}: the agent {state}; coordinator: {where}",
        f"last call {contact['last']}; {sizes}"
        if contact["last"]
        else "the coordinator never called yet",
    ]


def _about_budget(facts: Mapping[str, Any]) -> list[str]:
    plan, policy, witnessed = facts["plan"], facts["policy"], facts["witnessed"]
    if plan is None:
        lines = ["no plan was approved yet"]
    else:
        state = "in force" if plan["in_force"] else "withdrawn"
        lines = [
            f"plan {plan['digest'][:19]} ({state}): {plan['left']} of epsilon {plan['epsilon']} "
            f"left, until {plan['expires']}; {len(facts['rounds'])} releases"
        ]
    if policy is None:
        lines.append("no limits are set yet: nothing can be approved")
    else:
        lines.append(
            f"in 365 days: epsilon {policy['spent_epsilon']:g} of {policy['epsilon_per_year']} "
            f"({policy['spent_share']:.0%} of its budget)"
        )
    if facts["head"]:
        lines.append(f"ledger: {facts['head']['size']} records, head {facts['head']['root'][:16]}")
    if witnessed:
        lines.append(f"co-signed up to record {witnessed['size']} by {', '.join(witnessed['by'])}")
    return lines


def _call_table(calls: Sequence[Mapping[str, Any]]) -> list[Table]:
    if not calls:
        return []
    table = Table("asked lately", box=None)
    for name in ("answered", "bytes came", "bytes left"):
        table.add_column(name, justify="right")
    table.add_column("last")
    for call in calls:
        numbers = [f"{call[name]:,}" for name in ("answered", "received", "sent")]
        table.add_row(escape(call["action"]), *numbers, call["last"])
    return [table]


def _round_table(rounds: Sequence[Mapping[str, Any]]) -> list[Table]:
    if not rounds:
        return []
    table = Table("round", "released", "attempt", "bytes", "when", box=None)
    for done in rounds:
        table.add_row(
            str(done["round_num"]),
            escape(done["kind"]),
            str(done["attempt"]),
            f"{done['size_bytes']:,}",
            done["ts"],
        )
    return [table]
