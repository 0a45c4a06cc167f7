"""Rules of a DEBIT: what was paid, under which promise, and who had seen the ledger before."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime

from ..privacy.events import EVERYBODY, MECHANISM
from .formats import is_digest, origin_of, read_note, read_time
from .plans import Plan, Planned
from .reading import Record
from .rules import SLACK, Problem, Rule
from .state import LedgerState
from .witnesses import Signers, signers_of

_COMMIT = re.compile(r"([0-9a-f]{64})?")


def approved(record: Record, state: LedgerState) -> Iterator[Problem]:
    """It belongs to the latest plan that the owner approved and has not left."""
    digest = record.body["plan_digest"]
    if digest == state.current:
        if state.accepted and digest not in state.accepted:
            yield "other-plan", f"it was paid under {digest[:19]}, which was not handed in"
        return
    last = [(seq, yes) for seq, _, plan, yes in state.approvals if plan == digest]
    if not last:
        yield "not-approved", f"the owner has never approved {digest[:19]}"
    elif not last[-1][1]:
        yield "withdrawn", f"the owner left this plan at record {last[-1][0]}"
    else:
        yield "other-plan", f"a later plan than {digest[:19]} was in force"


def planned(record: Record, state: LedgerState) -> Iterator[Problem]:
    """It is for a release of the plan, with exactly the plan's numbers and terms."""
    plan, release = _found(record, state)
    if plan is None:
        return
    body, terms = record.body, plan.raw
    if release is None:
        name = f"{body['kind']!r:.40} in round {body['round_num']}"
        yield "not-in-plan", f"the plan has no release {name}"
        return
    if body["event"] != release.event:
        yield "event", "its event differs from the plan's"
    sampled = release.event["sampling_ppm"] != EVERYBODY
    expected = {
        **{name: terms[name] for name in ("unit", "adjacency", "grid", "order")},
        **{name: terms["cohort"][name] for name in ("n_min", "t_collude")},
        "mechanism": MECHANISM,
        "sampling": "poisson" if sampled else "none",
    }
    odd = [name for name, value in expected.items() if body[name] != value]
    if odd:
        yield "terms", f"{', '.join(odd)} differ from the plan's"


def commitments(record: Record, _: LedgerState) -> Iterator[Problem]:
    """It names the request, hides private facts behind a keyed hash, and is an attempt."""
    body = record.body
    if not is_digest(body["request"]) or not _COMMIT.fullmatch(body["commit"]):
        yield "fields", "its request or commitment is no hash"
    if body["attempt"] < 1:
        yield "fields", f"attempt {body['attempt']} is below 1"


def cost(record: Record, state: LedgerState) -> Iterator[Problem]:
    """It pays what the mechanism costs at the plan's order; a budget is never handed back."""
    plan, release = _found(record, state)
    if plan is not None and release is not None:
        due = plan.cost(release)
        if record.body["cost"] != due:
            yield "cost", f"it pays {record.body['cost']}, the release costs {due}"


def arithmetic(record: Record, state: LedgerState) -> Iterator[Problem]:
    """What is left is the plan's budget less all debits so far, and never below zero."""
    body = record.body
    plan = state.plans.get(body["plan_digest"])
    if plan is None:
        return
    left = plan.budget - state.spent[plan.digest] - body["cost"]
    if (body["budget"], body["left"]) != (plan.budget, left):
        written = f"{body['left']} of {body['budget']}"
        yield "arithmetic", f"it says {written} are left; {left} of {plan.budget} are"
    if left < 0:
        yield "over-budget", f"the plan's budget is overdrawn by {-left}"


def of_its_kind(record: Record, state: LedgerState) -> Iterator[Problem]:
    """Attempts replace only releases that PLD counts alike, so the certificate covers them."""
    plan, release = _found(record, state)
    if plan is None or release is None:
        return
    due = plan.cost_alike[release.alike]
    spent = state.spent_alike[plan.digest, release.alike] + record.body["cost"]
    if spent > due:
        yield "over-budget", f"releases like this one were planned to cost {due}, not {spent}"


def once(record: Record, state: LedgerState) -> Iterator[Problem]:
    """Each attempt is paid for at most once."""
    body = record.body
    key = body["plan_digest"], body["kind"], body["round_num"], body["attempt"]
    if key in state.paid:
        yield "double-debit", f"record {state.paid[key]} paid for this attempt"


def in_time(record: Record, state: LedgerState) -> Iterator[Problem]:
    """It is not after the plan's last day."""
    plan = state.plans.get(record.body["plan_digest"])
    if plan is not None and read_time(record.body["ts"]).date() > plan.expires:
        yield "expired", f"the plan expired on {plan.expires}"


def yearly(record: Record, state: LedgerState) -> Iterator[Problem]:
    """All debits of any 365 days fit the owner's own yearly budget."""
    _, release = _found(record, state)
    if state.policy is None or release is None:
        return
    order = state.policy["policy"]["order"]
    due = release.cost(order)
    if record.body["policy_cost"] != due:
        yield "policy-cost", f"at the policy's order it costs {due}, not the written figure"
    state.window.at(order)
    state.window.forget(read_time(record.body["ts"]))
    total = state.window.total + due
    if total > state.policy["budget_units"]:
        limit = state.policy["budget_units"]
        yield "policy-budget", f"365 days cost {total}, the owner allows {limit}"


def witnessed(record: Record, state: LedgerState) -> Iterator[Problem]:
    """Enough others had co-signed the ledger up to its last release."""
    plan = state.plans.get(record.body["plan_digest"])
    text = record.body["witnessed"]
    if plan is None or not plan.witnesses:
        return
    try:
        note = read_note(text)
    except ValueError as error:
        yield "not-witnessed", f"no co-signed head stands in it: {error}"
        return
    yield from _signed(signers_of(state, note, plan), plan)
    if note.origin != origin_of(state.silo_id) or state.hashes.get(note.size) != note.root:
        yield "witnessed-other", f"the co-signed head of {note.size} records is not this ledger's"
    elif note.size < state.last_release:
        newest = state.last_release
        yield "old-witness", f"others had seen {note.size} records, the last release is {newest}"
    times = [line.time for line in note.lines if line.time is not None]
    latest = datetime.fromtimestamp(min(max(times, default=0), 2**33), UTC)
    if latest > read_time(record.body["ts"]) + SLACK:
        yield "cosigned-later", f"a witness signed at {latest:%F %T}, after this record's time"


def _signed(signers: Signers, plan: Plan) -> Iterator[Problem]:
    if signers.wrong:
        yield "cosignature", f"the signature of {', '.join(signers.wrong)} is forged"
    if not signers.owner:
        yield "not-witnessed", "the head is not signed by its owner"
    if len(signers.silos) < plan.witnesses:
        number = len(signers.silos)
        yield "not-witnessed", f"{number} silos co-signed the head, {plan.witnesses} must"
    if not signers.coordinator:
        yield "not-witnessed", "the coordinator has not co-signed the head"


def _found(record: Record, state: LedgerState) -> tuple[Plan | None, Planned | None]:
    body = record.body
    plan = state.plans.get(body["plan_digest"])
    return plan, plan.releases.get((body["kind"], body["round_num"])) if plan else None


DEBIT_RULES: tuple[Rule, ...] = (
    approved,
    planned,
    commitments,
    cost,
    arithmetic,
    of_its_kind,
    once,
    in_time,
    yearly,
    witnessed,
)
