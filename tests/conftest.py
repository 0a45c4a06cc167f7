"""Plans that tests agree on; every plan checks itself, so the numbers here are real ones."""

from dataclasses import replace

import pytest

from fondaco.shared.calibration import Statistic, filter_budget, plan_releases
from fondaco.shared.privacy.plan import GRID, Cohort, RunPlan
from fondaco.shared.provenance import code_digest


def pytest_configure(config):
    # Flower imports typer, typer imports names that click is about to drop.
    config.addinivalue_line("filterwarnings", "ignore:.*click:DeprecationWarning")


def build_plan(
    statistics=(("popularity", 100_000, 5), ("gram", 900_000, 10)),
    *,
    epsilon=1.0,
    delta=1e-6,
    n_silos=10,
    trust="aggregate",
    **changes,
):
    cohort = Cohort.default(n_silos)
    releases = plan_releases(
        [Statistic(kind=kind, share_ppm=ppm, dim=dim) for kind, ppm, dim in statistics],
        epsilon=epsilon,
        target_delta=delta,
        cohort=cohort,
        trust=trust,
    )
    order, budget = filter_budget(releases, delta)
    plan = RunPlan(
        trust=trust,
        secure_aggregation="simulated" if trust == "aggregate" else "none",
        mode="simulation",
        cohort=cohort,
        grid=GRID,
        target_delta=repr(delta),
        target_epsilon=repr(epsilon),
        order=order,
        budget_units=budget,
        releases=releases,
        catalogue_digest="sha256:catalogue",
        n_items=5,
        head=4,
        code_digest=code_digest(),
        public={"split": "2011-09-01"},
    )
    return replace(plan, **changes)


@pytest.fixture(scope="session")
def make_plan():
    return build_plan


@pytest.fixture(scope="session")
def plan():
    """Popularity of 5 items (a tenth of the budget), then the Gram of 4 (nine tenths)."""
    return build_plan()
