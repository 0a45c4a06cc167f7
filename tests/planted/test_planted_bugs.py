"""Every classic mistake, put into the real source one at a time, is caught by its named check."""

from dataclasses import replace

import pytest
from planted_bugs import BUGS, markdown
from planted_catchers import ATTACKS, CATCHERS, SEED, caught, raises_alarm
from planted_properties import PROPERTIES
from planted_tools import mutated, planted

from fondaco.shared.audit.conformance import CHECKS, run_conformance

CATCHES = [(bug, check) for bug in BUGS for check in (bug.caught_by, *bug.also)]

# A broken sum may overflow or divide by zero; that is the bug's business.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.mark.parametrize(
    ("bug", "check"), CATCHES, ids=[f"{bug.name}-{check}" for bug, check in CATCHES]
)
def test_planted_bug_is_caught_by_its_check_and_right_code_is_not(bug, check):
    assert not raises_alarm(check, bug.where)
    assert caught(check, bug)


@pytest.mark.parametrize(
    "bug", [bug for bug in BUGS if bug.name in ("sigma halved", "delta wrong: its root")]
)
def test_planting_leaves_the_installed_code_alone(bug):
    with planted(bug):
        assert run_conformance(seed=SEED, quick=True, only=("noise scale",)).passed
    assert run_conformance(seed=SEED, quick=True, only=("sampled epsilon",)).passed


def test_bug_that_no_longer_fits_the_source_is_reported():
    with pytest.raises(LookupError, match="0 times"):
        mutated(replace(BUGS[0], edits=(("no such line", ""),)))


def test_table_names_every_bug_once_and_checks_that_exist():
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 32
    names = {"conformance": CHECKS, "property": PROPERTIES, "attack": ATTACKS}
    for _, check in CATCHES:
        kind, _, name = check.partition(": ")
        assert kind in CATCHERS
        assert kind == "ledger audit" or name in names[kind]
    assert len(markdown().splitlines()) == len(BUGS) + 2


@pytest.mark.parametrize("name", CHECKS)
def test_check_has_caught_something(name):
    """A check that no planted bug needs has no known power."""
    assert any(check == f"conformance: {name}" for _, check in CATCHES)


@pytest.mark.slow
def test_right_code_raises_no_alarm():
    """20 full runs of the statistical checks; false alarms: 20 runs x 16 checks x 1e-6."""
    first = run_conformance(seed=1)
    statistical = tuple(check.name for check in first.checks if check.p_value is not None)
    alarms = [check for check in first.checks if not check.passed]
    for seed in range(2, 21):
        run = run_conformance(seed=seed, only=statistical)
        alarms += [check for check in run.checks if not check.passed]
    assert len(statistical) == 16
    assert alarms == []
