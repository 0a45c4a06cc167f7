"""A run small enough for every test to look at."""

import pytest

from fondaco.simulation.library import load_scenario

TINY = (
    "dataset.n_users=120",
    "dataset.n_items=60",
    "dataset.declared_users=120",
    "silos.count=4",
    "privacy.head=20",
    "evaluation.bootstrap=20",
    "evaluation.headline=ndcg@10",
    'baselines=["popularity"]',
)


@pytest.fixture(scope="session")
def tiny_scenario():
    """Return a function: settings -> a scenario of four merchants and 120 customers."""
    return lambda *settings: load_scenario("synthetic", [*TINY, *settings])


@pytest.fixture(scope="session")
def run_tiny(tiny_scenario):
    """Return a function: folder, settings -> a finished run of the tiny scenario."""
    # Flower may be imported only after pytest knows which of its warnings to ignore.
    from fondaco.simulation.run import prepare, simulate  # noqa: PLC0415

    return lambda folder, *settings: simulate(prepare(tiny_scenario(*settings)), folder)


@pytest.fixture(scope="session")
def tiny_run(run_tiny, tmp_path_factory):
    """One finished run, which no test may change."""
    return run_tiny(tmp_path_factory.mktemp("tiny"))
