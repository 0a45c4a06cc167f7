"""Four ways to catch a bug: conformance, properties, the audit of a ledger, an attack."""

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from planted_properties import PROPERTIES
from planted_tools import Bug, mutated, planted

from fondaco.shared.audit.conformance import run_conformance
from fondaco.shared.audit.conformance.probe import ASKED, Planned, Probe, works
from fondaco.shared.audit.verify import verify
from fondaco.shared.errors import PrivacyError
from fondaco.shared.privacy.plan import GRID
from fondaco.simulation.attacks.bounds import BOUNDS, one_run_bound

SEED = 20_261_122
N_CANARIES = 2000
STREAM = "seeded chacha20: no claim"


def conformance(name: str, bug: Bug) -> bool:
    """Whether a conformance check fails, having seen the bug and not stumbled over it."""
    with planted(bug) as core:
        check = run_conformance(seed=SEED, quick=True, core=core, only=(name,)).checks[0]
    assert "Error: " not in check.detail, check.detail
    return not check.passed


def property_test(name: str, bug: Bug) -> bool:
    """Whether a property no longer holds."""
    try:
        PROPERTIES[name](mutated(bug))
    except AssertionError:
        return True
    return False


def ledger_audit(code: str, bug: Bug) -> bool:
    """Whether the auditor's verifier finds `code` (in right code: anything) in a run's ledger."""
    with planted(bug) as core, tempfile.TemporaryDirectory() as folder:
        probe = Probe(core, Path(folder), SEED, quick=True)
        try:
            _run(probe)
            _run_masked(probe)
        finally:
            probe.close()
        ledgers = [probe.path(plan, "north") for plan in (probe.shared_plan, probe.masked_plan)]
        runs = [verify([ledger], [], [], lambda *_: None) for ledger in ledgers]
        found = {finding.code for run in runs for finding in run.findings}
    return bool(found) if not bug.edits else code in found


def _run(probe: Probe) -> None:
    """A release, a crash, a release, more attempts than the budget covers, the last release."""
    plan = probe.shared_plan
    (first, second, third, last) = probe.rounds
    _release(probe, *first)
    probe.ledger(plan, "north").debit(*second, request=ASKED)
    probe.reopened(plan, "north")
    _release(probe, *third)
    for kind, num, attempt in ((*third, 2), (*last, 1), (*first, 2), (*first, 3)):
        try:
            _release(probe, kind, num, attempt)
        except PrivacyError:
            continue


def _run_masked(probe: Probe) -> None:
    """An answer too early, a masked release, two answers, and a release without masks."""
    ledger = probe.ledger(probe.masked_plan, "north")
    first, second = (ledger.debit("masked", num, request=ASKED) for num in (1, 2))
    steps = [
        lambda: ledger.record_unmask("masked", 2, 1, survivors=ASKED, answer=b"early"),
        lambda: ledger.record_release(first, b"masked", STREAM, ASKED),
        lambda: ledger.record_unmask("masked", 1, 1, survivors=ASKED, answer=b"seeds"),
        lambda: ledger.record_unmask("masked", 1, 1, survivors=ASKED, answer=b"more seeds"),
        lambda: ledger.record_release(second, b"naked", STREAM),
    ]
    for step in steps:
        works(step)


def _release(probe: Probe, kind: str, num: int, attempt: int = 1) -> None:
    ledger = probe.ledger(probe.shared_plan, "north")
    debit = ledger.debit(kind, num, attempt, request=ASKED)
    total, stream = probe.nobody(kind, debit.event.dim), probe.stream(kind, str(num), str(attempt))
    update = probe.core.release_sum(total, debit, stream)
    ledger.record_release(debit, update.values.tobytes(), STREAM)


def attack(name: str, bug: Bug) -> bool:
    """Whether an attacker's lower bound on epsilon exceeds what the plan claims."""
    with planted(bug) as core, tempfile.TemporaryDirectory() as folder:
        probe = Probe(core, Path(folder), SEED, quick=True)
        try:
            return ATTACKS[name](probe)
        finally:
            probe.close()


def _one_run_canaries(probe: Probe) -> bool:
    """One release with 2,000 canaries, half of them in, by coins; 95 % confidence."""
    kind = "canaries"
    planned = Planned(kind=kind, multiplier=4, dim=N_CANARIES)
    plan = probe.plan_of([planned], trust="silo", n_silos=3)
    included = np.random.default_rng(SEED).integers(2, size=N_CANARIES).astype(bool)
    rows = 50.0 * np.eye(N_CANARIES)[included]
    sample = probe.stream("sample").sample(len(rows), 1_000_000)
    total = probe.core.gradient_sum(N_CANARIES, 1.0, GRID, sample)
    ones = np.ones((len(rows), 1, 1))
    total.add(sample.user_nums, [probe.core.factors(deltas=ones, inputs=rows[:, None, :])])
    debit = probe.ledger(plan, "north").debit(kind, 1, request=ASKED)
    update = probe.core.release_sum(total.total(), debit, probe.stream("noise"))
    bound = one_run_bound(
        {"value": update.values / GRID},
        included,
        {"value": 1.0},
        bound=BOUNDS["one-run"],
        delta=float(plan.target_delta),
    )
    return bound > plan.epsilons()["epsilon"]


ATTACKS: dict[str, Callable[[Probe], bool]] = {"one-run canaries": _one_run_canaries}
CATCHERS: dict[str, Callable[[str, Bug], bool]] = {
    "conformance": conformance,
    "property": property_test,
    "ledger audit": ledger_audit,
    "attack": attack,
}


def caught(check: str, bug: Bug) -> bool:
    """Whether `check`, as written in the table, catches the bug."""
    kind, _, name = check.partition(": ")
    return CATCHERS[kind](name, bug)


@cache
def raises_alarm(check: str, where: str) -> bool:
    """Whether `check` raises an alarm on a faithful copy of the module."""
    return caught(check, Bug(name="nothing", where=where, edits=(), caught_by=check))
