"""The most telling faults of an agent's process; FONDACO_FAULTS=all runs every one."""

import os

import pytest

pytestmark = pytest.mark.slow
TELLING = (
    "kill -9 of the agent after the debit",
    "kill -9 of the agent after the bytes are written",
    "kill -9 of the agent after the release is recorded",
    "kill -9 of the agent after the answer to share",
    "kill -9 of the agent after the unmasking is recorded",
    "kill -9 of the coordinator after the total is kept",
    "every message three times",
    "all old messages again after each",
    "garbage before every message",
    "two agents on one home",
    "full disk at a silo",
    "home turns read-only",
    "full disk at the coordinator",
    "ledger put back from a backup",
    "clock a day off",
    "silo gone for good, quorum of three of four",
    "kills at random",
)


def pytest_generate_tests(metafunc):
    # The harness imports Flower, whose warnings pytest must know of first.
    from agent_faults import every_fault  # noqa: PLC0415

    known = every_fault()
    if os.environ.get("FONDACO_FAULTS") != "all":
        known = [fault for fault in known if fault.name in TELLING]
        assert len(known) == len(TELLING)
    metafunc.parametrize("fault", known, ids=lambda fault: fault.name)


@pytest.fixture(scope="module")
def telling():
    """How many plots of a fault are run: one, or all where every fault is."""
    return None if os.environ.get("FONDACO_FAULTS") == "all" else 1


def test_fault_costs_nobody_anything_twice(fault, telling, tmp_path):
    from matrix import holds, run_plot, verdict  # noqa: PLC0415

    if fault.needs_root and os.geteuid():
        pytest.skip("needs root for its disks")
    for num, plot in enumerate(fault.plots()[:telling]):
        went = run_plot(plot, tmp_path / str(num))
        assert holds(went, fault.expect), (verdict(went, fault.expect), went)
