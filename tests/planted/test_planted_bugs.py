"""Every classic mistake, put into the real source one at a time, is caught by its named check."""

from dataclasses import replace

import pytest
from planted_bugs import BUGS, markdown
from planted_properties import PROPERTIES
from planted_tools import Bug, mutated, planted

from fondaco.shared.audit.conformance import CHECKS, run_conformance

SEED = 20_261_122
each_bug = pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)

# A broken sum may overflow or divide by zero; that is the bug's business.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(scope="module")
def right_code():
    """All checks of the installed code, by name."""
    run = run_conformance(seed=SEED, quick=True)
    return {check.name: check for check in run.checks}


@each_bug
def test_planted_bug_is_caught_by_its_check_and_right_code_is_not(bug, right_code):
    kind, _, name = bug.caught_by.partition(": ")
    if kind == "property":
        PROPERTIES[name](mutated(replace(bug, edits=())))
        with pytest.raises(AssertionError):
            PROPERTIES[name](mutated(bug))
        return
    with planted(bug) as core:
        run = run_conformance(seed=SEED, quick=True, core=core, only=(name,))
    assert right_code[name].passed, right_code[name].detail
    assert not run.passed
    assert "Error: " not in run.checks[0].detail  # it was seen, not stumbled over


@pytest.mark.parametrize("bug", BUGS[:1], ids=lambda bug: bug.name)
def test_planting_leaves_the_installed_code_alone(bug):
    with planted(bug):
        assert run_conformance(seed=SEED, quick=True, only=("noise scale",)).passed


@pytest.mark.parametrize("where", sorted({bug.where for bug in BUGS}))
def test_module_without_edits_is_a_faithful_copy(where):
    """Whatever a planted bug changes, the copying did not."""
    none = Bug(name="nothing", where=where, edits=(), caught_by="")
    if not where.startswith("shared.privacy"):
        assert mutated(none).__package__ == f"fondaco.{where.rpartition('.')[0]}"
        return
    names = {bug.caught_by.partition(": ")[2] for bug in BUGS if bug.where == where} & set(CHECKS)
    with planted(none) as core:
        run = run_conformance(seed=SEED, quick=True, core=core, only=tuple(sorted(names)))
    assert run.passed, [check for check in run.checks if not check.passed]


def test_bug_that_no_longer_fits_the_source_is_reported():
    with pytest.raises(LookupError, match="0 times"):
        mutated(replace(BUGS[0], edits=(("no such line", ""),)))


def test_table_names_every_bug_once_and_a_check_that_exists():
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 32
    known = {f"conformance: {name}" for name in CHECKS} | {f"property: {p}" for p in PROPERTIES}
    assert {bug.caught_by for bug in BUGS} <= known
    assert len(markdown().splitlines()) == len(BUGS) + 2


@pytest.mark.parametrize("name", CHECKS)
def test_check_has_caught_something(name):
    """A check that no planted bug needs has no known power."""
    assert any(bug.caught_by == f"conformance: {name}" for bug in BUGS)


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
