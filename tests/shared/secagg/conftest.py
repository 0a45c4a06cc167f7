"""Federations of masked sums in memory."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
for helper in ("masked_federation", "curious_coordinator", "masked_sum_record", "lying_machine"):
    pytest.register_assert_rewrite(helper)

from masked_federation import Federation  # noqa: E402


@pytest.fixture(scope="session")
def make_federation():
    """Number of silos, and options -> a federation."""
    return Federation.of


@pytest.fixture(scope="session")
def six(make_federation):
    """Six silos; five must remain, and agree."""
    return make_federation(6)


@pytest.fixture(scope="module")
def eight():
    """Eight silos; six must remain."""
    return Federation.of(8)


@pytest.fixture(scope="module")
def shared(eight):
    """A round of eight in which all have shared, to be forked."""
    return eight.round().until("share")
