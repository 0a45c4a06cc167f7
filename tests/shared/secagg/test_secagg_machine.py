"""Masked sums under random orders, losses, kills and lies: `lying_machine` says what must hold."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from lying_machine import MaskedSumMachine


def _drive(max_examples):
    MaskedSumMachine.tally.clear()
    chosen = settings(
        max_examples=max_examples,
        stateful_step_count=50,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(MaskedSumMachine, settings=chosen)
    return MaskedSumMachine.tally


def test_no_order_of_steps_losses_and_lies_breaks_a_promise():
    tally = _drive(25)
    assert tally["sums"] > 0
    assert tally["refused other-roster"] > 0


@pytest.mark.slow
def test_no_order_of_steps_breaks_a_promise_in_five_hundred_sequences():
    tally = _drive(500)
    assert tally["sums"] > 100
    assert tally["lies answered"] > 100
    refused = {name for name in tally if name.startswith("refused ")}
    assert {"refused late", "refused other-roster", "refused other-survivors"} <= refused
