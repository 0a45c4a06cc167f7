"""Is everything paid for first, once, and never beyond the plan?"""

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

from ...errors import BudgetError
from ...privacy.events import EVERYBODY
from ...privacy.ledger import Ledger
from ...privacy.plan import RunPlan
from .account_checks import mechanism_units
from .probe import ASKED, Outcome, Planned, Probe, works

_OTHER = f"sha256:{'1' * 64}"


def check_debit_first(probe: Probe) -> Outcome:
    """Before `debit` hands out its proof, the record is in the file, at the full price."""
    faults = []
    for agreed in (probe.shared_plan, probe.sampled_plan):
        ledger = probe.ledger(agreed, "first")
        before = 0
        for event in agreed.releases:
            proof = ledger.debit(event.kind, event.round_num, request=ASKED)
            debits = [body for body in _on_disk(probe, agreed, "first") if body["type"] == "DEBIT"]
            costs = [body["cost"] for body in debits]
            fair = mechanism_units(event.joint, Fraction(agreed.order))
            if len(debits) != before + 1 or debits[-1]["seq"] != proof.seq:
                faults.append(f"{event.kind}: no DEBIT in the file when its proof was given")
            elif not fair <= costs[-1]:
                faults.append(f"{event.kind}: {costs[-1]} units charged, {fair} are right")
            before = len(debits)
    return _exact(faults, "every kind of release, read from the file by another connection")


def check_filter(probe: Probe) -> Outcome:
    """Attempts are granted until the budget is used up, and not one more."""
    faults = []
    for number, agreed in enumerate((_short_plan(probe), probe.sampled_plan, probe.shared_plan)):
        event = agreed.releases[0]
        fair = mechanism_units(event.joint, Fraction(agreed.order))
        granted = _granted(probe.ledger(agreed, f"filter {number}"), event.kind)
        allowed = _fair_budget(agreed) // fair
        if granted > allowed:
            faults.append(f"{granted} releases of {event.kind} granted, {allowed} fit")
        if granted < allowed - 1:
            faults.append(f"only {granted} of {allowed} releases of {event.kind} granted")
    return _exact(faults, "attempts of one release until the filter refused")


def check_restart(probe: Probe) -> Outcome:
    """A debit whose release never came stays spent over restarts and rounds."""
    agreed, faults = probe.shared_plan, []
    ledger = probe.ledger(agreed, "crash")
    spent = [0]
    for event in agreed.releases:
        ledger.debit(event.kind, event.round_num, request=ASKED)
        ledger = probe.reopened(agreed, "crash")
        spent.append(ledger.spent_units())
        if spent[-1] - spent[-2] < mechanism_units(event.joint, Fraction(agreed.order)):
            faults.append(f"after a restart {event.kind} no longer counts as spent")
    if _granted(ledger, agreed.releases[0].kind, start=2):
        faults.append("a whole plan was debited and more was granted")
    return _exact(faults, "the file reopened after every debit")


def check_retry(probe: Probe) -> Outcome:
    """A retry costs nothing, and sends the same bytes or nothing."""
    agreed, faults = probe.shared_plan, []
    ledger, (kind, num) = probe.ledger(agreed, "retry"), probe.rounds[0]
    first = ledger.debit(kind, num, request=ASKED)
    if ledger.debit(kind, num, request=ASKED).seq != first.seq:
        faults.append("the same request was debited twice")
    update = probe.core.release_sum(probe.nobody(kind, first.event.dim), first, probe.stream("a"))
    blob = update.values.tobytes()
    ledger.record_release(first, blob, "conformance")
    ledger = probe.reopened(agreed, "retry")
    again = ledger.debit(kind, num, request=ASKED)
    if again.released != f"sha256:{hashlib.sha256(blob).hexdigest()}":
        faults.append("after a restart the ledger does not know which bytes it sent")
    total = probe.nobody(kind, first.event.dim)
    if works(lambda: probe.core.release_sum(total, again, probe.stream("b"))):
        faults.append("a retry drew new noise")
    if works(lambda: ledger.record_release(again, b"other bytes", "conformance")):
        faults.append("other bytes were released under the same debit")
    if works(lambda: ledger.debit(kind, num, request=_OTHER)):
        faults.append("another request was answered under the same debit")
    releases = [body for body in _on_disk(probe, agreed, "retry") if body["type"] == "RELEASE"]
    if len(releases) != 1:
        faults.append(f"{len(releases)} RELEASE records of one release")
    return _exact(faults, "one release, retried after a restart")


def check_proof(probe: Probe) -> Outcome:
    """A proof of payment serves one release, of just what was paid for."""
    agreed, faults = probe.shared_plan, []
    ledger = probe.ledger(agreed, "proof")
    proofs = [ledger.debit(kind, num, request=ASKED) for kind, num in probe.rounds]
    totals = [probe.nobody(proof.event.kind, proof.event.dim) for proof in proofs]
    probe.core.release_sum(totals[0], proofs[0], probe.stream("one"))
    if works(lambda: probe.core.release_sum(totals[0], proofs[0], probe.stream("two"))):
        faults.append("one proof served two releases")
    for proof in proofs[1:]:
        other = next(total for total in totals if len(total.values) != proof.event.dim)
        if works(partial(probe.core.release_sum, other, proof, probe.stream("long"))):
            faults.append(f"a sum of {len(other.values)} left, {proof.event.dim} were paid for")
    if works(lambda: ledger.debit("gram", 999, request=ASKED)):
        faults.append("a release was debited that is not in the plan")
    foreign = probe.ledger(agreed, "foreign").debit(*probe.rounds[0], request=ASKED)
    if works(lambda: ledger.record_release(foreign, b"blob", "conformance")):
        faults.append("a release was recorded without a debit")
    return _exact(faults, "proofs used twice, for other sums and of other ledgers")


def check_promises(probe: Probe) -> Outcome:
    """A plan can promise only what is accounted for: unit, adjacency, noise, price, steps."""
    agreed, faults = probe.shared_plan, []
    event = agreed.releases[0]
    half = replace(event, stddev_grid=event.stddev_grid // 2)
    thin = replace(event, silo_stddev_grid=event.silo_stddev_grid // 2)
    several = agreed.releases[1:]
    lies: dict[str, dict[str, Any]] = {
        "replace-one at the price of add-or-remove-one": {"adjacency": "replace-one"},
        "another unit": {"unit": "household"},
        "customers in three silos": {"max_silos_per_customer": 3},
        "half the noise": {"releases": (half, *several)},
        "half of each silo's share": {"releases": (thin, *several)},
        "a smaller epsilon": {"target_epsilon": f"{float(agreed.target_epsilon) / 2}"},
        "a smaller delta": {"target_delta": "1e-12"},
        "a larger budget": {"budget_units": agreed.budget_units + 1},
        "another sensitivity": {"releases": (replace(event, sens_grid=1 << 19), *several)},
        "a release named twice": {"releases": (event, *agreed.releases)},
    }
    for lie, terms in lies.items():
        if works(partial(replace, agreed, **terms)):
            faults.append(f"a plan may promise {lie}")
    return _exact(faults, f"{len(lies)} plans that promise too much")


def check_mask_promises(probe: Probe) -> Outcome:
    """A plan can promise masks only where they hide something, and no shared noise without."""
    releases = probe.masked_plan.releases
    # Noise that is enough among any silos, so that no lie fails for want of it.
    ample = tuple(replace(event, silo_stddev_grid=event.stddev_grid) for event in releases)
    agreed, faults = replace(probe.masked_plan, releases=ample), []
    few = probe.core.cohort(n_silos=10, n_min=6, t_collude=1)
    most = probe.core.cohort(n_silos=10, n_min=9, t_collude=8)
    bare = {"secure_aggregation": "simulated", "key_agreement": "", "ring_bits": 0}
    lies: dict[str, dict[str, Any]] = {
        "masks without a key agreement": {"key_agreement": ""},
        "masks without a ring": {"ring_bits": 0},
        "masks among silos without keys": {"roster": {}, "coordinator": ""},
        "masks of which two sums can be unmasked": {"cohort": few},
        "masks that one honest silo hides behind": {"cohort": most},
        "shared noise in the clear": {**bare, "mode": "deploy", "witnesses": 2},
    }
    for lie, terms in lies.items():
        if works(partial(replace, agreed, **terms)):
            faults.append(f"a plan may promise {lie}")
    return _exact(faults, f"{len(lies)} plans that promise too much")


def _short_plan(probe: Probe) -> RunPlan:
    """Twelve equal rounds: the thirteenth debit must be refused."""
    planned = Planned(kind="popularity", multiplier=5, dim=5, rounds=12)
    return probe.plan_of([planned], trust="silo", n_silos=3)


def _fair_budget(agreed: RunPlan) -> int:
    """What the planned releases like the first one cost by this module's own arithmetic.

    Rounding's slack included. Like each other are all that nobody is sampled for, and sampled
    ones of one noise and one rate: the certificate covers no other exchange.
    """
    order, first = Fraction(agreed.order), agreed.releases[0].joint
    same = [e.joint for e in agreed.releases if e.joint.sampling_ppm == first.sampling_ppm]
    if first.sampling_ppm != EVERYBODY:
        same = [joint for joint in same if joint == first]
    units = [mechanism_units(joint, order) for joint in same]
    slack = sum(2 + unit // 10**6 for unit in units)
    return sum(units) + slack


def _granted(ledger: Ledger, kind: str, start: int = 1) -> int:
    """How many attempts of the first release of `kind` the filter grants, at most 40."""
    for count, attempt in enumerate(range(start, start + 40)):
        try:
            ledger.debit(kind, 1, attempt, request=ASKED)
        except BudgetError:
            return count
    return 40


def _on_disk(probe: Probe, agreed: RunPlan, silo_id: str) -> Iterator[dict[str, Any]]:
    """Every committed record's body, as another process sees it."""
    with closing(sqlite3.connect(probe.path(agreed, silo_id))) as db:
        rows = db.execute("SELECT body FROM records ORDER BY seq").fetchall()
    return (json.loads(body) for (body,) in rows)


def _exact(faults: list[str], detail: str) -> Outcome:
    return Outcome(statistic=float(len(faults)), faults=tuple(faults), detail=detail)
