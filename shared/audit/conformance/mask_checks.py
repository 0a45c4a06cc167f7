"""Do masked sums keep what a plan says of them: no wrap, no naked bytes, one answer a round?"""

import json
import sqlite3
from contextlib import closing
from functools import partial

import numpy as np

from ...privacy.clipping import ClippedSum
from ...privacy.events import EVERYBODY
from ...privacy.plan import GRID, RunPlan
from .probe import ASKED, Ints, Outcome, Probe, works

CROWD = 300
"""Customers who agree on a number: more than a silo's part of the masked plan's ring holds."""
_SILOS, _OTHERS = f"sha256:{'2' * 64}", f"sha256:{'3' * 64}"


def check_bound(probe: Probe) -> Outcome:
    """Sums are cut off, before noise and on both sides, where no sum of all silos can wrap."""
    agreed, faults = probe.masked_plan, []
    proof = probe.ledger(agreed, "north").debit("masked", 1, request=ASKED)
    signs = np.resize(np.array([1, -1]), proof.event.dim)
    values = probe.core.release_sum(_crowd(probe, signs), proof, probe.stream("cut")).values * signs
    tail = -(-19 * proof.event.silo_stddev_grid // 2)
    if (proof.bound + tail) * agreed.cohort.n_silos >= 2 ** (agreed.ring_bits - 1):
        faults.append(f"sums of {proof.bound} and the largest noise could wrap in the ring")
    if values.max() > proof.bound + tail:
        faults.append(f"a number of {values.max()} left, the sum is to end at {proof.bound}")
    if values.max() <= proof.bound:
        faults.append("noise was cut off together with the sum")
    if values.min() < proof.bound - tail:
        faults.append(f"a sum was cut off at {values.min()}, not at {proof.bound}")
    return _exact(faults, f"{CROWD} customers in a ring of {agreed.ring_bits} bits")


def check_masks(probe: Probe) -> Outcome:
    """Only masked bytes leave under a masked plan, and one answer a round helps to unmask."""
    faults = [*_release_faults(probe), *_answer_faults(probe)]
    return _exact(faults, "a release without masks, and answers too many")


def _crowd(probe: Probe, signs: Ints) -> ClippedSum:
    """Return a sum in which `CROWD` customers' worth stands at each number, by its sign."""
    n_users = int(CROWD * np.sqrt(len(signs)))
    sample = probe.stream("crowd").sample(n_users, EVERYBODY)
    total = probe.core.gradient_sum(len(signs), 1.0, GRID, sample)
    inputs = np.broadcast_to(signs / np.sqrt(len(signs)), (n_users, 1, len(signs)))
    factors = probe.core.factors(deltas=np.ones((n_users, 1, 1)), inputs=inputs)
    total.add(sample.user_nums, [factors])
    return total.total()


def _release_faults(probe: Probe) -> list[str]:
    faults = []
    ledger = probe.ledger(probe.masked_plan, "silo 2")
    proof = ledger.debit("masked", 1, request=ASKED)
    if works(lambda: ledger.record_unmask("masked", 1, 1, survivors=_SILOS, answer=b"early")):
        faults.append("a sum was to be unmasked that had not left")
    if works(lambda: ledger.record_release(proof, b"naked", "conformance")):
        faults.append("a sum left without masks")
    other = probe.ledger(probe.shared_plan, "unmasked")
    proof = other.debit(*probe.rounds[0], request=ASKED)
    if works(lambda: other.record_release(proof, b"masked", "conformance", _SILOS)):
        faults.append("masked bytes left under a plan without masks")
    return faults


def _answer_faults(probe: Probe) -> list[str]:
    agreed, faults = probe.masked_plan, []
    ledger = probe.ledger(agreed, "silo 3")
    proof = ledger.debit("masked", 2, request=ASKED)
    ledger.record_release(proof, b"masked", "conformance", _SILOS)
    ledger.record_unmask("masked", 2, 1, survivors=_SILOS, answer=b"seeds")
    ledger = probe.reopened(agreed, "silo 3")
    for survivors, answer in ((_OTHERS, b"seeds"), (_SILOS, b"others' seeds")):
        if works(partial(ledger.record_unmask, "masked", 2, 1, survivors=survivors, answer=answer)):
            faults.append("a second answer was given in a round")
    if not works(lambda: ledger.record_unmask("masked", 2, 1, survivors=_SILOS, answer=b"seeds")):
        faults.append("the same answer was refused when it was asked for again")
    n_answers = _answers_on_disk(probe, agreed, "silo 3")
    if n_answers != 1:
        faults.append(f"{n_answers} UNMASK records of one answer")
    return faults


def _answers_on_disk(probe: Probe, agreed: RunPlan, silo_id: str) -> int:
    with closing(sqlite3.connect(probe.path(agreed, silo_id))) as db:
        bodies = [json.loads(body) for (body,) in db.execute("SELECT body FROM records")]
    return sum(body["type"] == "UNMASK" for body in bodies)


def _exact(faults: list[str], detail: str) -> Outcome:
    return Outcome(statistic=float(len(faults)), faults=tuple(faults), detail=detail)
