"""EASE from factors of a Gram, the silo's own and everybody's."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from serving_silos import N_ITEMS

from fondaco.client.serving.solve import LowRankEase, global_factor, own_factor
from fondaco.shared.models.gram import solve_ease


def _low_rank_case(rank, seed=0):
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(N_ITEMS, rank)).astype(np.float32)
    diagonal = rng.uniform(1, 3, N_ITEMS).astype(np.float32)
    history = csr_matrix((rng.random((6, N_ITEMS)) < 0.2) * rng.uniform(0.2, 1, (6, N_ITEMS)))
    return factor, diagonal, history


@pytest.mark.parametrize("rank", [0, 1, 7, 40])
def test_low_rank_ease_is_ease_of_the_whole_gram(rank):
    factor, diagonal, history = _low_rank_case(rank)
    gram = (factor @ factor.T + np.diag(diagonal)).astype(np.float64)
    weights, _ = solve_ease(gram, 0.0)
    found = LowRankEase(factor, diagonal).score(history)
    np.testing.assert_allclose(found, history @ weights, atol=2e-4)


def test_low_rank_ease_leaves_the_history_as_it_was():
    factor, diagonal, history = _low_rank_case(5)
    before = history.copy()
    LowRankEase(factor, diagonal).score(history)
    assert (history != before).nnz == 0


def test_own_factor_is_the_silos_exact_gram():
    train = csr_matrix(np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
    factor = own_factor(train)
    expected = [[0.5, 0.5, 0.0], [0.5, 1.5, 0.0], [0.0, 0.0, 0.0]]
    np.testing.assert_allclose(factor @ factor.T, expected, atol=1e-6)


def test_own_factor_of_many_customers_is_close_to_their_gram(monkeypatch):
    train = csr_matrix((np.random.default_rng(0).random((80, N_ITEMS)) < 0.2).astype(float))
    exact = own_factor(train)
    monkeypatch.setattr("fondaco.client.serving.solve.OWN_RANK", N_ITEMS)
    cut = own_factor(train)
    assert cut.shape == (N_ITEMS, N_ITEMS)
    np.testing.assert_allclose(cut @ cut.T, exact @ exact.T, atol=1e-4)


def test_global_factor_covers_the_whole_catalogue(model, catalogue):
    factor, diagonal = global_factor(model, catalogue)
    assert len(factor) == len(diagonal) == N_ITEMS
    gram = factor @ factor.T + np.diag(diagonal)
    assert np.isfinite(gram).all()
    assert np.linalg.eigvalsh(gram)[0] > -1e-3
    assert np.all(np.diag(gram) > 0)
