"""A silo that waits for the orders of a server that cannot be trusted."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("deployed_silo")


@pytest.fixture(scope="module")
def deployed(make_plan, make_roster):
    return make_plan(trust="silo", **make_roster(mode="deploy"))


@pytest.fixture
def make_silo(catalogue, tmp_path, make_owner):
    """Return a function: plan -> a silo whose owner has approved it."""
    # Flower may be imported only after pytest knows which of its warnings to ignore.
    from deployed_silo import Silo  # noqa: PLC0415

    return lambda plan, **options: Silo(plan, catalogue, tmp_path, make_owner, **options)


@pytest.fixture
def silo(deployed, make_silo):
    return make_silo(deployed)
