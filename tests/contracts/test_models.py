import numpy as np
import pytest

from fondaco.client.training import STATISTICS
from fondaco.shared.models import MODELS
from fondaco.shared.privacy.contribution import bound_contributions

each = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())


@each
def test_model_needs_only_statistics_that_silos_can_compute(model):
    assert model.statistics
    assert set(model.statistics) <= set(STATISTICS)
    assert len(set(model.statistics)) == len(model.statistics)


@each
def test_model_statistics_are_bounded_per_customer(model):
    """One customer alone, however long the history, never moves a sum beyond its bound."""
    head = np.arange(6)
    for n_rows in (1, 2, 3, 7, 12):
        items = np.arange(n_rows) % 6
        one = bound_contributions(np.zeros(n_rows, dtype=np.int64), items, 1, 6)
        for kind in model.statistics:
            found = STATISTICS[kind](one, head, 2**20)
            assert np.linalg.norm(found.values.astype(float)) <= found.sens_grid


@each
def test_model_statistics_of_nobody_are_zero(model):
    nobody = bound_contributions(np.empty(0, np.int64), np.empty(0, np.int64), 3, 6)
    for kind in model.statistics:
        assert not STATISTICS[kind](nobody, np.arange(4), 2**20).values.any()
