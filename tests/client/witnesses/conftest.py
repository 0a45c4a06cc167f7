"""Silos of which two others co-sign every head, and their coordinator."""

import sys
from pathlib import Path

import pytest

from fondaco.shared.privacy.plan import Cohort

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def witnessed_plan(make_plan, make_roster):
    """Four silos, of which three must remain; two others co-sign every head."""
    cohort = Cohort(n_silos=4, n_min=3, t_collude=1)
    return make_plan(n_silos=4, **make_roster(4), cohort=cohort)


@pytest.fixture
def federation(witnessed_plan, catalogue, tmp_path):
    # Flower may be imported only after pytest knows which of its warnings to ignore.
    from witnessed_federation import Federation  # noqa: PLC0415

    return Federation(witnessed_plan, catalogue, tmp_path)
