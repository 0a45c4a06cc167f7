"""Masked sums under random orders, losses, kills and lies: `masked_sum_record` says what must hold.

The machine itself is tested by bugs planted into the silos' side, each of which it must find.
"""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from lying_machine import MaskedSumMachine

from fondaco.shared.secagg import session
from fondaco.shared.secagg.messages import read_roster


def _drive(max_examples, **options):
    MaskedSumMachine.tally.clear()
    chosen = settings(
        max_examples=max_examples,
        stateful_step_count=50,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        **options,
    )
    run_state_machine_as_test(MaskedSumMachine, settings=chosen)
    return MaskedSumMachine.tally


def test_no_order_of_steps_losses_and_lies_breaks_a_promise():
    tally = _drive(30)
    assert tally["sums"] > 0
    assert tally["refused other-roster"] > 0


@pytest.mark.slow
def test_no_order_of_steps_breaks_a_promise_in_five_hundred_sequences():
    tally = _drive(500)
    assert tally["sums"] > 100
    assert tally["lies answered"] > 100
    refused = {name for name in tally if name.startswith("refused ")}
    codes = "late other-roster other-request other-survivors too-few bad-signature no-session"
    assert {f"refused {code}" for code in codes.split()} <= refused


def _nothing(*_):
    return None


def _unsigned(signatures, task, roster, terms):
    del task, terms
    return tuple(sorted(set(signatures) & set(roster.by_silo)))


def _forgets(step):
    """Return the step of a silo that does not remember which survivors it confirmed."""
    return lambda state, *rest: step(replace(state, survivors=()), *rest)


PLANTED = {
    "no certificate": ("check_certificate", _nothing),
    "any survivors": ("check_survivors", _nothing),
    "any roster": ("checked_roster", lambda blob, task, terms: read_roster(blob)),
    "any participants": ("checked_participants", _unsigned),
    "any time": ("require_in_time", _nothing),
    "any order": ("_require", _nothing),
    "no wiping": ("wipe", lambda state: state),
    "confirms twice": ("confirm", _forgets(session.confirm)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANTED)
def test_machine_finds_a_planted_bug(name, monkeypatch):
    monkeypatch.setattr(session, *PLANTED[name])
    quick = {"phases": [Phase.generate], "report_multiple_bugs": False, "database": None}
    with pytest.raises(AssertionError):
        _drive(300, derandomize=True, **quick)
