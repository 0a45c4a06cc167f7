"""A verification -> facts; facts -> a page, JSON and Markdown. The same facts, the same bytes."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .accounting import epsilon_of_units
from .losses import MOST_SILOS, SERVER, least_delta, loss, losses
from .plans import Plan
from .registry import registry_entry
from .report_answers import answers, contradicted, plain_words
from .report_page import page
from .state import LedgerState
from .verify import Verification, backed

SCHEMA = 1
Facts = dict[str, Any]


def report_facts(
    found: Verification,
    *,
    attacks: Mapping[str, Any] | None = None,
    conformance: Mapping[str, Any] | None = None,
    command: Sequence[str] = (),
) -> Facts:
    """Return all that a verification, and tests handed in with it, tell.

    Args:
        found: what was verified.
        attacks: results of `fondaco-simulate attack`, None if there are none.
        conformance: results of `fondaco-audit conformance`, None if there are none.
        command: arguments of the command line, for whoever repeats it.
    """
    facts: Facts = {
        "schema": SCHEMA,
        "kind": "audit",
        "holds": found.holds,
        "findings": [finding._asdict() for finding in found.findings],
        "remarks": list(found.remarks),
        "ledgers": [_ledger(state) for state in found.ledgers],
        "plans": [_plan(plan) for plan in _plans(found)],
        "attacks": dict(attacks) if attacks else None,
        "conformance": dict(conformance) if conformance else None,
        "command": shlex.join(["fondaco-audit", *command]) if command else "",
    }
    return {**facts, "contradicted": contradicted(facts)}


def complete(facts: Facts) -> Facts:
    """Return the facts with the twelve answers, the plain words and the registry's entry."""
    whole = {**facts, "plain": plain_words(facts), "answers": answers(facts)}
    return {**whole, "registry": registry_entry(whole)}


def write_report(facts: Facts, folder: Path) -> list[Path]:
    """Write report.html, report.json and report.md, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = complete(facts)
    texts = {
        "report.html": page(whole),
        "report.json": json.dumps(whole, ensure_ascii=False, indent=1) + "\n",
        "report.md": _markdown(whole),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def _plans(found: Verification) -> list[Plan]:
    named = [*found.plans, *(plan for state in found.ledgers for plan in state.used_plans())]
    return list({plan.digest: plan for plan in named}.values())


def _plan(plan: Plan) -> Facts:
    names = [
        "unit",
        "adjacency",
        "trust",
        "secure_aggregation",
        "key_agreement",
        "ring_bits",
        "mode",
        "target_delta",
        "target_epsilon",
    ]
    names += [
        "order",
        "code_digest",
        "catalogue_digest",
        "expires",
        "witnesses",
        "budget_units",
        "models",
    ]
    finite = plan.epsilons["epsilon"] < float("inf")
    most = min(MOST_SILOS, plan.cohort("n_silos"))
    rows = losses([plan], plan.delta, most_silos=most) if finite else []
    sampled = [p for p in plan.releases.values() if p.event["sampling_ppm"] < 10**6]
    return {
        "digest": plan.digest,
        **{name: plan.raw[name] for name in names},
        "cohort": dict(plan.raw["cohort"]),
        "public": dict(plan.raw["public"]),
        "max_silos_per_customer": plan.raw["max_silos_per_customer"],
        "roster": sorted(plan.roster),
        "releases": len(plan.releases),
        "kinds": sorted({kind for kind, _ in plan.releases}),
        "rounds": len({round_num for _, round_num in plan.releases}),
        "sampled": len(sampled),
        "noise": sorted({round(float(p.joint.multiplier), 4) for p in plan.releases.values()})[:6],
        "epsilons": {n: v if v < float("inf") else None for n, v in plan.epsilons.items()},
        "losses": [row.__dict__ for row in rows],
    }


def _ledger(state: LedgerState) -> Facts:
    seen = backed(state)
    return {
        "name": state.name,
        "silo": state.silo_id,
        "key": state.key.text if state.key else "",
        "records": state.seq,
        "head": state.head.hex(),
        "first": f"{state.first:%FT%TZ}" if state.first else "",
        "last": f"{state.newest:%FT%TZ}" if state.newest else "",
        "counts": dict(state.counts),
        "masked": len(state.masked),
        "current_plan": state.current,
        "seen_by": dict(sorted(seen.items())),
        "budgets": [_budget(state, plan) for plan in state.used_plans()],
        "together": _together(state.used_plans()),
        "policy": dict(state.policy["policy"]) if state.policy else None,
        "rng": dict(state.rngs),
        "refusals": dict(state.refusals),
        "erasures": [[f"{time:%F}", count] for time, count in state.erasures],
        "audits": [[f"{time:%F}", verdict, by] for time, verdict, by in state.audits],
        "left": [f"{time:%F}" for _, time, _, approved in state.approvals if not approved],
        "spending": _spending(state),
    }


def _together(plans: Sequence[Plan]) -> float | None:
    """Return what several plans cost a customer of this silo together, None for fewer than two."""
    return loss(plans, least_delta(plans), SERVER, 1).tight if len(plans) > 1 else None


def _budget(state: LedgerState, plan: Plan) -> Facts:
    spent = state.spent[plan.digest]
    debits = [paid for paid in state.debits.values() if paid.plan_digest == plan.digest]
    return {
        "plan": plan.digest,
        "budget": plan.budget,
        "spent": spent,
        "share": spent / plan.budget,
        "debits": len(debits),
        "repeated": sum(paid.attempt > 1 for paid in debits),
        "unreleased": sum(paid.seq not in state.released for paid in debits),
        "epsilon_spent": epsilon_of_units(spent, plan.order, plan.delta) if spent > 0 else 0.0,
    }


def _spending(state: LedgerState) -> list[list[float]]:
    """Return [unix time, share of the plan's budget spent] after each debit, at most 400."""
    points = []
    for paid in state.debits.values():
        plan = state.plans.get(paid.plan_digest)
        if plan is not None:
            points.append([paid.time.timestamp(), 1 - paid.left / plan.budget])
    every = max(1, len(points) // 400)
    return [*points[:-1:every], *points[-1:]]


def _markdown(facts: Facts) -> str:
    lines = ["# Privacy audit", "", f"**{facts['plain']['verdict']}**", ""]
    for title, texts in facts["plain"]["sections"]:
        lines += [f"## {title}", "", *(f"- {_escaped(text)}" for text in texts), ""]
    if facts["findings"]:
        lines += ["## Findings", "", "| severity | kind | where | what |", "|---|---|---|---|"]
        for found in facts["findings"]:
            where = f"{found['ledger']} {found['seq']}"
            cells = (found["severity"], found["code"], where, found["text"])
            lines.append(f"| {' | '.join(map(_escaped, cells))} |")
        lines.append("")
    for number, answer in enumerate(facts["answers"], start=1):
        lines += [f"## {number}. {answer['question']}", ""]
        lines += [f"- {_escaped(text)}" for text in answer["known"]]
        lines += [f"- *Unanswered:* {_escaped(text)}" for text in answer["unknown"]]
        lines.append("")
    return "\n".join(lines)


def _escaped(text: object) -> str:
    """Return a text that Markdown shows as it is, on one line."""
    marks = {ord(mark): f"\\{mark}" for mark in "\\`*_[]<>|#"}
    return " ".join(str(text).split()).translate(marks)
