"""Masked rounds of real silos, any of which may die, fall silent, or lie at any step."""

import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest

from fondaco.shared.privacy.plan import Cohort

sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("masked_world")


@pytest.fixture(scope="session")
def make_masked_plan(make_plan, make_masked):
    """Return a function: silos, how many must remain, numbers in the first sum, ... -> plan."""

    @lru_cache(maxsize=32)
    def make(n_silos, n_min, dim=5, **changes):
        cohort = Cohort(n_silos=n_silos, n_min=n_min, t_collude=1)
        plan = make_plan([("popularity", 1, dim), ("gram", 9, 10)], n_silos=n_silos)
        releases = tuple(
            replace(event, silo_stddev_grid=cohort.silo_stddev(event.stddev_grid, "aggregate"))
            for event in plan.releases
        )
        return replace(
            plan, **{"cohort": cohort, "releases": releases, **make_masked(n_silos, **changes)}
        )

    return make


@pytest.fixture
def make_world(make_masked_plan, catalogue, tmp_path, monkeypatch, hasty):
    """Return a function: silos, how many must remain, changes of the plan -> a world of them."""
    # Flower may be imported only after pytest knows which of its warnings to ignore.
    from masked_world import MaskedWorld  # noqa: PLC0415

    def make(n_silos=5, n_min=4, **changes):
        plan = make_masked_plan(n_silos, n_min, **changes)
        return MaskedWorld(plan, catalogue, tmp_path, monkeypatch)

    return make
