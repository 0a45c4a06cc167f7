"""What every record must satisfy, given all before it: one small function per rule.

A rule yields (code, text) for each thing that does not hold. A record is judged first, then the
state takes it in as it says it is, so that one edit gives one finding and not one per record.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any

from .accounting import epsilon_of_units
from .formats import (
    DOMAIN,
    KEYROT_DOMAIN,
    canonical,
    chain_hash,
    digest_of,
    is_digest,
    is_plain,
    origin_of,
    read_key,
    read_number,
    read_time,
    unbase64,
)
from .masks import masked_release, unmask
from .plans import LEAST_ORDER, MOST_ORDER, Plan, read_plan
from .promises import earlier_problems, plan_problems
from .reading import Record
from .state import LedgerState

SCHEMA = 4
SLACK = timedelta(minutes=5)
CLAIMS = {True: "none (simulation)", False: "as planned"}
GOOD_RNG, SEEDED_RNG = "getrandom chacha20", "seeded chacha20: no claim"

Problem = tuple[str, str]
Rule = Callable[[Record, LedgerState], Iterator[Problem]]

_FIELDS: Mapping[str, Mapping[str, type]] = {
    "GENESIS": {"schema": int, "silo_id": str, "key": str},
    "POLICY": {"policy": dict, "budget_units": int},
    "PLAN": {
        "plan_digest": str,
        "plan": dict,
        "approved": int,
        **dict.fromkeys(("reason", "claims"), str),
        **dict.fromkeys(("epsilon", "epsilon_rdp", "all_honest", "clear_shares"), str),
    },
    "DEBIT": {
        **dict.fromkeys(("kind", "plan_digest", "unit", "adjacency", "mechanism"), str),
        **dict.fromkeys(("round_num", "attempt", "grid", "n_min", "t_collude"), int),
        **dict.fromkeys(("cost", "left", "budget", "policy_cost"), int),
        **dict.fromkeys(("sampling", "order", "request", "commit", "witnessed"), str),
        "event": dict,
    },
    "RELEASE": {
        **dict.fromkeys(("kind", "plan_digest", "blob", "rng", "masked"), str),
        **dict.fromkeys(("round_num", "attempt", "debit_seq", "size_bytes"), int),
    },
    "UNMASK": {
        **dict.fromkeys(("kind", "plan_digest", "survivors", "answer"), str),
        **dict.fromkeys(("round_num", "attempt"), int),
    },
    "REFUSAL": {
        **dict.fromkeys(("kind", "plan_digest", "code", "reason"), str),
        **dict.fromkeys(("round_num", "attempt", "failed"), int),
    },
    "COSIGN": {"heads": list},
    "ERASURE": {"count": str},
    "AUDIT": {"report": str, "verdict": str, "by": str},
    "KEYROT": {"key": str, "proof": str},
}
_POLICY = ("epsilon_if_masking_broke", "epsilon_per_year", "order", "target_delta")


def spelling(record: Record, _: LedgerState) -> Iterator[Problem]:
    """Text and integers only, in the one canonical spelling."""
    if record.odd:
        yield "spelling", record.odd
        if not is_plain(record.body):
            yield "fields", "what it says cannot be judged"


def numbering(record: Record, state: LedgerState) -> Iterator[Problem]:
    """Records are numbered from 1 without gaps."""
    if record.body.get("seq") != state.seq + 1:
        yield "numbering", f"number {record.body.get('seq')!r} follows {state.seq}"


def link(record: Record, state: LedgerState) -> Iterator[Problem]:
    """Each record names the hash of the one before, and has the hash of its own contents."""
    if record.prev != state.head:
        yield "link", "it does not continue the record before it"
    if record.hash != chain_hash(record.prev, record.text):
        yield "hash", "its contents are not what was hashed and signed"


def signature(record: Record, state: LedgerState) -> Iterator[Problem]:
    """The owner's key of that moment signed it; the first record brings the key."""
    key = state.key
    if key is None:
        try:
            key = read_key(record.body.get("key"))
        except ValueError:
            yield "signature", "no key is known that could have signed it"
            return
    if not key.verifies(record.signature, DOMAIN + record.hash):
        yield "signature", f"it was not signed by the key {key.name}"


def fields(record: Record, _: LedgerState) -> Iterator[Problem]:
    """Each type of record has its own fields and no other: one more could tell secrets."""
    kind = record.body.get("type")
    known = _FIELDS.get(kind) if isinstance(kind, str) else None
    if known is None:
        yield "fields", f"{kind!r:.40} is no type of record"
        return
    odd = sorted(set(record.body) ^ {*known, "type", "seq", "ts"})
    odd += [n for n, t in known.items() if n in record.body and type(record.body[n]) is not t]
    if odd:
        yield "fields", f"in a {kind} the fields {', '.join(odd)} are missing, unknown or odd"
    elif type(record.body["seq"]) is not int:
        yield "fields", "its number is no integer"


def clock(record: Record, state: LedgerState) -> Iterator[Problem]:
    """Time stamps never go back by more than five minutes."""
    try:
        time = read_time(record.body.get("ts"))
    except ValueError as error:
        yield "fields", str(error)
        return
    if state.newest is not None and time < state.newest - SLACK:
        yield "clock", f"{time:%F %T} is before an earlier record's {state.newest:%F %T}"


def genesis_first(record: Record, state: LedgerState) -> Iterator[Problem]:
    """The first record and no other is GENESIS."""
    if (record.body.get("type") == "GENESIS") != (not state.counts):
        yield "genesis", "the ledger begins elsewhere: GENESIS must come first and once"


def genesis(record: Record, _: LedgerState) -> Iterator[Problem]:
    """It names the schema, the silo and a key of that silo's name."""
    if record.body["schema"] != SCHEMA:
        yield "schema", f"schema {record.body['schema']} is not {SCHEMA}"
    yield from _key_problems(record.body["key"], origin_of(record.body["silo_id"]))


def _key_problems(text: str, name: str) -> Iterator[Problem]:
    try:
        if read_key(text).name != name:
            yield "key", f"the key bears the name {read_key(text).name}, not {name}"
    except ValueError as error:
        yield "key", str(error)


def keyrot(record: Record, state: LedgerState) -> Iterator[Problem]:
    """A new key is handed over by the old one and proves that it exists."""
    yield from _key_problems(record.body["key"], state.origin)
    try:
        key, proof = read_key(record.body["key"]), unbase64(record.body["proof"], 64)
    except ValueError as error:
        yield "keyrot", str(error)
        return
    if not key.verifies(proof, KEYROT_DOMAIN + record.prev + key.raw):
        yield "keyrot", "the new key does not prove that it agrees"


def policy(record: Record, _: LedgerState) -> Iterator[Problem]:
    """The owner's yearly budget, in units, is not more than the epsilon he wrote."""
    terms = record.body["policy"]
    if sorted(terms) != sorted(_POLICY) or not all(isinstance(t, str) for t in terms.values()):
        yield "policy", f"expected the texts {', '.join(_POLICY)}"
        return
    try:
        numbers = {name: read_number(terms[name]) for name in _POLICY}
        order, delta = numbers["order"], float(numbers["target_delta"])
        if not LEAST_ORDER <= order <= MOST_ORDER:
            raise ValueError(f"an order of {float(order):g}")
        worth = epsilon_of_units(record.body["budget_units"], order, delta)
        limit = float(numbers["epsilon_per_year"])
    except (ValueError, ArithmeticError) as error:
        yield "policy", f"a limit is no number or out of range: {error}"
        return
    if not worth <= limit + 1e-9:
        yield "policy", f"its budget is worth epsilon {worth:.4f} a year, more than {limit:g}"


def plan_text(record: Record, state: LedgerState) -> Iterator[Problem]:
    """The whole plan stands in the record and hashes to its digest."""
    body = record.body
    if digest_of(canonical(body["plan"])) != body["plan_digest"]:
        yield "plan-digest", "the plan written here has another digest than it says"
    if body["approved"] not in (0, 1):
        yield "fields", f"approved is {body['approved']}, neither 0 nor 1"
    if state.accepted and body["approved"] and body["plan_digest"] not in state.accepted:
        yield "other-plan", f"it approves {body['plan_digest'][:19]}, which was not handed in"


def plan_terms(record: Record, state: LedgerState) -> Iterator[Problem]:
    """The plan is one that keeps what it promises, and the silo's key is the one it pins."""
    plan = state.plans.get(record.body["plan_digest"])
    if plan is None:
        try:
            plan = read_plan(record.body["plan"])
        except (ValueError, ArithmeticError, TypeError, KeyError, AttributeError) as error:
            yield "plan-terms", f"the plan cannot be read: {error}"
            return
        yield from (("plan-terms", problem) for problem in plan_problems(plan))
    yield from (("plan-terms", problem) for problem in earlier_problems(plan, state.plans))
    if record.body["approved"]:
        yield from _claims(record.body, plan)
        yield from _pinned(state, plan)
        yield from _caps(state, plan)


def _claims(body: Mapping[str, Any], plan: Plan) -> Iterator[Problem]:
    if body["claims"] != CLAIMS[plan.is_simulation]:
        yield "plan-claims", f"it claims {body['claims']!r:.40} for mode {plan.raw['mode']}"
    for name, value in plan.epsilons.items():
        try:
            agrees = abs(float(body[name]) - value) <= 2e-6 * max(1.0, min(value, 1e9))
        except ValueError:
            agrees = False
        if not agrees or not re.fullmatch(r"\d+\.\d{6}", body[name]):
            yield "plan-epsilon", f"{name} is written as {body[name]:.12}, computed {value:.6f}"


def _pinned(state: LedgerState, plan: Plan) -> Iterator[Problem]:
    if plan.roster and plan.roster.get(state.silo_id) != state.key:
        yield "key", "the plan's roster names another key (or none) for this silo"


def _caps(state: LedgerState, plan: Plan) -> Iterator[Problem]:
    try:
        limits = (state.policy or {})["policy"]
        cap, delta = float(limits["epsilon_if_masking_broke"]), float(limits["target_delta"])
        planned = float(plan.raw["target_delta"])
    except (KeyError, ValueError):
        return
    if planned > delta:
        yield "policy-cap", f"the plan's delta {planned:g} is above the owner's {delta:g}"
    if plan.epsilons["clear_shares"] > cap + 1e-6:
        worst = plan.epsilons["clear_shares"]
        yield "policy-cap", f"epsilon {worst:.2f} if masking broke is above the owner's {cap:g}"


def release(record: Record, state: LedgerState) -> Iterator[Problem]:
    """Exactly one DEBIT before it pays for it, and pays for nothing else."""
    body = record.body
    key = body["plan_digest"], body["kind"], body["round_num"], body["attempt"]
    paid = state.debits.get(body["debit_seq"])
    if paid is None:
        yield "no-debit", f"record {body['debit_seq']} is no earlier DEBIT: it was not paid for"
    elif paid.key != key:
        yield "no-debit", f"the DEBIT {body['debit_seq']} paid for another release"
    if body["debit_seq"] in state.released:
        first = state.released[body["debit_seq"]]
        yield "double-release", f"the DEBIT {body['debit_seq']} had its release at {first}"
    if key in state.failed:
        yield "failed-attempt", f"record {state.failed[key]} had closed this attempt"


def release_noise(record: Record, state: LedgerState) -> Iterator[Problem]:
    """Noise came from the system's generator; a seeded one only in a simulation."""
    body = record.body
    plan = state.plans.get(body["plan_digest"])
    simulated = plan is not None and plan.is_simulation
    if body["rng"] != GOOD_RNG and not (simulated and body["rng"] == SEEDED_RNG):
        yield "rng", f"noise came from {body['rng']!r:.60}"
    if not is_digest(body["blob"]) or body["size_bytes"] < 1:
        yield "fields", "it has no digest of the released bytes, or none were released"
    elif body["blob"] in state.blobs:
        yield "reused-blob", f"the same bytes were released at {state.blobs[body['blob']]}"


def refusal(record: Record, _: LedgerState) -> Iterator[Problem]:
    """It has a code and says whether the attempt is closed."""
    if record.body["failed"] not in (0, 1) or not record.body["code"]:
        yield "fields", "a refusal needs a code, and failed must be 0 or 1"


def erasure(record: Record, _: LedgerState) -> Iterator[Problem]:
    """Only a bracket of the number of erased customers is public."""
    match = re.fullmatch(r"(10*) to (9+)", record.body["count"])
    if match is None or len(match[1]) != len(match[2]):
        yield "erasure-count", f"{record.body['count']!r:.40} is no bracket such as '1 to 9'"


def audit(record: Record, _: LedgerState) -> Iterator[Problem]:
    """It names the report and what it said."""
    if not is_digest(record.body["report"]) or record.body["verdict"] not in ("holds", "findings"):
        yield "fields", "an audit needs a report's digest and a verdict"


CHAIN_RULES: tuple[Rule, ...] = (
    spelling,
    numbering,
    link,
    signature,
    fields,
    clock,
    genesis_first,
)
RULES: dict[str, tuple[Rule, ...]] = {
    "GENESIS": (genesis,),
    "POLICY": (policy,),
    "PLAN": (plan_text, plan_terms),
    "RELEASE": (release, release_noise, masked_release),
    "UNMASK": (unmask,),
    "REFUSAL": (refusal,),
    "ERASURE": (erasure,),
    "AUDIT": (audit,),
    "KEYROT": (keyrot,),
}
