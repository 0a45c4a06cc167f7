"""A silo of many customers: the same own statistics without a matrix of customers by customers."""

import numpy as np
import pytest
from scipy.sparse import random as random_matrix

from fondaco.client.serving import solve


@pytest.mark.parametrize("shape", [(600, 300), (400, 900)])
def test_sparse_way_gives_the_best_part_too(shape, monkeypatch):
    rows = random_matrix(*shape, density=0.03, random_state=np.random.default_rng(0), format="csr")
    rows.data[:] = 1.0
    monkeypatch.setattr(solve, "OWN_RANK", 40)
    dense = solve.own_factor(rows)
    monkeypatch.setattr(solve, "MOST_DENSE", 100)
    sparse = solve.own_factor(rows)
    assert sparse.shape == dense.shape == (shape[1], 40)
    assert sparse.dtype == dense.dtype
    np.testing.assert_allclose(sparse @ sparse.T, dense @ dense.T, atol=2e-3)
