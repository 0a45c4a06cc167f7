import importlib

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from fondaco.shared.errors import ConfigError, DataError
from fondaco.shared.metrics import evaluate
from fondaco.simulation import baselines

N_ITEMS = 60


def _market(n_users, seed):
    """Customers of three tastes, each with its own third of the items: (history, targets)."""
    rng = np.random.default_rng(seed)
    taste = rng.integers(3, size=n_users)
    chance = np.where(np.arange(N_ITEMS) // 20 == taste[:, None], 0.5, 0.03)
    taken = rng.random((n_users, N_ITEMS)) < chance
    taken[np.arange(n_users), 20 * taste] = True
    hidden = taken & (rng.random(taken.shape) < 0.3)
    hidden[np.arange(n_users), 20 * taste] = True
    return csr_matrix(taken & ~hidden, dtype=float), csr_matrix(hidden, dtype=float)


@pytest.fixture(scope="module")
def market():
    train, more = _market(300, 0)
    return (train + more).tocsr(), _market(80, 1), _market(80, 2)


def _fit(name, market, metric="ndcg@10"):
    train, valid, _ = market
    return baselines.BASELINES[name](train, *valid, metric, np.random.default_rng(0))


def _quality(scorer, fold):
    history, targets = fold
    ranking = baselines.rank_by(scorer, history, 10)
    return evaluate(ranking, targets, ("ndcg@10",), popularity=np.ones(N_ITEMS))["ndcg@10"].mean()


@pytest.mark.parametrize("name", ["item_knn", "ease_pooled", "ials_pooled"])
def test_every_baseline_learns_more_than_popularity(name, market):
    floor = _quality(_fit("popularity", market), market[2])
    assert _quality(_fit(name, market), market[2]) > 1.5 * floor


@pytest.mark.parametrize("name", list(baselines.BASELINES))
def test_every_baseline_scores_float32_and_is_deterministic(name, market):
    history = market[2][0]
    rows = np.arange(history.shape[0])
    first, again = (_fit(name, market)(history, rows) for _ in "ab")
    assert first.dtype == np.float32
    assert first.shape == history.shape
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("name", list(baselines.BASELINES))
def test_customer_without_history_gets_popular_items(name, market):
    nobody = csr_matrix((1, N_ITEMS))
    popularity = np.asarray(market[0].sum(axis=0))[0]
    expected = np.argsort(-popularity, kind="stable")[:5]
    ranking = baselines.rank_by(_fit(name, market), nobody, 5)
    assert ranking[0].tolist() == expected.tolist()


@pytest.mark.parametrize("name", list(baselines.BASELINES))
def test_every_baseline_works_without_validation_customers(name, market):
    nobody = csr_matrix((0, N_ITEMS))
    scorer = baselines.BASELINES[name](
        market[0], nobody, nobody, "ndcg@10", np.random.default_rng(0)
    )
    assert _quality(scorer, market[2]) > 0


@pytest.mark.parametrize("name", ["item_knn", "ease_pooled"])
def test_items_beyond_the_head_score_only_the_tie_break(name, market, monkeypatch):
    monkeypatch.setattr(baselines, "KNN_HEAD", 5)
    monkeypatch.setattr(baselines, "EASE_HEAD", 5)
    scores = _fit(name, market)(market[2][0], np.arange(80))
    assert (np.abs(scores).max(axis=0) > 1e-5).sum() == 5


def test_baselines_refuse_a_market_without_rows(market):
    nobody = csr_matrix((3, N_ITEMS))
    for name in ("item_knn", "ease_pooled"):
        with pytest.raises(DataError, match="no training rows"):
            _fit(name, (nobody, *market[1:]))


def test_ease_weights_equal_the_textbook_formula():
    gram = np.array([[4.0, 1.0, 0.0], [1.0, 3.0, 1.0], [0.0, 1.0, 2.0]], dtype=np.float32)
    inverse = np.linalg.inv(gram + 2.0 * np.eye(3))
    expected = -inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0.0)
    np.testing.assert_allclose(baselines._ease_weights(gram, 2.0), expected, rtol=1e-6)


def test_ease_weights_refuse_a_gram_that_is_not_positive_definite():
    with pytest.raises(ValueError, match="not positive definite"):
        baselines._ease_weights(-np.eye(2, dtype=np.float32), 0.5)


def test_nearest_items_follow_the_shrunk_cosine_by_hand(monkeypatch):
    monkeypatch.setattr(baselines, "KNN_NEIGHBOURS", (2,))
    train = csr_matrix(np.array([[1, 1, 0], [1, 1, 1], [1, 0, 1.0], [1, 0, 0]]))
    neighbours, cosines = baselines._nearest_items(train)[20.0]
    assert neighbours[0].tolist() in ([1, 2], [2, 1])
    np.testing.assert_allclose(cosines[0], 2 / (np.sqrt(4 * 2) + 20), rtol=1e-6)
    assert neighbours[1].tolist() == [0, 2]


def test_nearest_items_do_not_depend_on_batches(market, monkeypatch):
    whole = baselines._nearest_items(market[0])
    monkeypatch.setattr(baselines, "_BATCH_CELLS", 7 * N_ITEMS)
    parts = baselines._nearest_items(market[0])
    for shrink, (_, cosines) in whole.items():
        np.testing.assert_array_equal(parts[shrink][1], cosines)


def test_tuner_climbs_to_the_peak_and_stops(market):
    _, (history, targets), _ = market
    tuner = baselines._Tuner(history, targets, "ndcg@10", np.random.default_rng(0))
    made = []

    def candidate(height):
        def make():
            made.append(height)
            return lambda known, rows: (height * targets[rows] - known).toarray().astype("f4")

        return make

    best = tuner.climb([candidate(h) for h in (0, 1, 0, -1, -1, -1)])
    assert made == [-1, 0, 1, 0]
    assert _quality(best, (history, targets)) == pytest.approx(1.0)


def test_missing_implicit_is_named_with_the_way_out(market, monkeypatch):
    def refuse(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(ConfigError, match=r"fondaco\[demo\].*--set baselines="):
        _fit("ials_pooled", market)
