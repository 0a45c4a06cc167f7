import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import nnls

from fondaco.shared.catalogue import Catalogue
from fondaco.shared.features import ItemFeatures, item_features
from fondaco.shared.models import gram
from fondaco.shared.models.least_squares import nonnegative_fit
from fondaco.shared.privacy.clipping import gram_dim, gram_sum
from fondaco.shared.privacy.contribution import bound_contributions
from fondaco.shared.vocabulary import Vocabulary

NO_FEATURES = ItemFeatures(names=(), blocks=())
GRID = 2**20


def _features(texts):
    n_items = len(texts)
    return item_features(
        Catalogue(
            items=Vocabulary(tuple(f"i{num:04d}" for num in range(n_items))),
            texts=tuple(texts),
            categories=("",) * n_items,
            brands=("",) * n_items,
            prices=np.full(n_items, np.nan),
        )
    )


def _sales(n_users=400, n_items=30, seed=0):
    """Customers of two tastes: (histories' Gram, popularity)."""
    rng = np.random.default_rng(seed)
    taste = rng.integers(2, size=(n_users, 1))
    chance = np.where(np.arange(n_items) % 2 == taste, 0.4, 0.05) * rng.uniform(0.3, 1, n_items)
    taken = (rng.random((n_users, n_items)) < chance).astype(float)
    weight = 1.0 / np.maximum(taken.sum(axis=1, keepdims=True), 1)
    return (taken * weight).T @ taken, (taken * np.sqrt(weight)).sum(axis=0)


def _noise(size, stddev, seed=0):
    """Symmetric, with the stddev on and stddev / sqrt(2) off the diagonal, as released."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, stddev, gram_dim(size))
    return gram.unpack_gram(z)


def _model(matrix, popularity, *, stddev=0.5, features=NO_FEATURES, head=None):
    return gram.denoise_gram(
        matrix,
        stddev,
        head=np.arange(len(matrix)) if head is None else head,
        noisy_popularity=popularity,
        popularity=popularity,
        popularity_stddev=0.1,
        features=features,
    )


def test_unpack_gram_undoes_the_packing_of_clipped_sums():
    # ann has items 0 and 1, bob item 1 only: G = [[1/2, 1/2, 0], [1/2, 3/2, 0], [0, 0, 0]]
    histories = bound_contributions(np.array([0, 0, 1]), np.array([0, 1, 1]), 2, 3)
    z = gram_sum(histories, GRID).values / GRID
    expected = [[0.5, 0.5, 0.0], [0.5, 1.5, 0.0], [0.0, 0.0, 0.0]]
    np.testing.assert_allclose(gram.unpack_gram(z), expected, atol=2 / GRID)


@given(size=st.integers(1, 12))
def test_unpack_gram_keeps_the_norm(size):
    z = np.random.default_rng(size).normal(size=gram_dim(size))
    matrix = gram.unpack_gram(z)
    assert matrix.shape == (size, size)
    assert np.array_equal(matrix, matrix.T)
    assert np.linalg.norm(matrix) == pytest.approx(np.linalg.norm(z))


def test_noise_edge_bounds_what_noise_alone_shows():
    top = np.linalg.eigvalsh(_noise(300, 2.0))[-1]
    assert top == pytest.approx(gram.noise_edge(2.0, 300), rel=0.05)


def test_shrink_drops_what_is_below_the_edge_and_shrinks_the_rest():
    factors = gram.shrink(np.diag([5.0, 3.0, 2.9, -9.0]), 3.0)
    assert factors.shape == (4, 1)
    np.testing.assert_allclose(factors @ factors.T, np.diag([4.0, 0, 0, 0]), atol=1e-12)


def test_shrink_without_an_edge_keeps_a_gram_as_it_is():
    matrix, _ = _sales()
    factors = gram.shrink(matrix, 0.0)
    np.testing.assert_allclose(factors @ factors.T, matrix, atol=1e-9)


def test_ease_is_the_closed_form_with_a_zero_diagonal():
    matrix, _ = _sales()
    weights, inverse = gram.solve_ease(matrix, 2.0)
    expected = np.linalg.inv(matrix + 2.0 * np.eye(30))
    np.testing.assert_allclose(inverse, expected, atol=1e-10)
    off = ~np.eye(30, dtype=bool)
    np.testing.assert_allclose(weights[off], (-expected / np.diag(expected))[off], atol=1e-10)
    assert not np.diag(weights).any()


def test_ease_leaves_its_input_as_it_was():
    matrix, _ = _sales()
    before = matrix.copy()
    gram.solve_ease(matrix, 2.0)
    assert np.array_equal(matrix, before)


@given(
    mu=st.floats(0.01, 10),
    users=st.integers(1, 10**8),
    more=st.integers(0, 10**6),
    with_features=st.booleans(),
)
def test_head_grows_with_customers_and_budget_up_to_its_cap(mu, users, more, with_features):
    def size(mu, users, n_items=10**6):
        return gram.head_size(mu, users, n_items, with_features=with_features)

    assert gram.MIN_HEAD <= size(mu, users) <= size(mu, users + more) <= gram.MAX_HEAD
    assert size(mu, users) <= size(mu * 1.5, users)
    assert size(mu, users, 70) == 70


def test_head_is_larger_with_features():
    plain, featured = (
        gram.head_size(1.0, 10_000, 10**6, with_features=known) for known in (False, True)
    )
    assert (plain, featured) == (1000, 1500)


def test_denoised_gram_is_closer_to_the_truth():
    truth, popularity = _sales(n_items=200)
    noisy = truth + _noise(200, 0.5)
    found = _model(noisy, popularity).matrix(NO_FEATURES)
    assert np.linalg.norm(found - truth) < 0.5 * np.linalg.norm(noisy - truth)


@pytest.mark.parametrize("seed", range(5))
def test_pure_noise_falls_back_to_popularity(seed):
    _, popularity = _sales(n_items=120)
    model = _model(_noise(120, 50.0, seed), popularity, stddev=75.0)
    assert model.factors.shape == (120, 1)
    assert np.corrcoef(model.factors[:, 0], popularity)[0, 1] > 0.999
    assert np.isfinite(model.matrix(NO_FEATURES)).all()


@pytest.mark.parametrize("seed", range(4))
def test_texts_that_no_two_items_share_change_nothing(seed):
    """Their kernel is the identity: off the diagonal nothing but rounding could be fitted."""
    truth, popularity = _sales(n_users=500, n_items=200, seed=seed)
    noisy = truth + _noise(200, 0.5, seed)
    features = _features([f"word{num}" for num in range(200)])
    model = _model(noisy, popularity, features=features)
    assert not model.kernel_weights.any()
    assert np.array_equal(model.matrix(features), _model(noisy, popularity).matrix(NO_FEATURES))


def test_features_that_explain_sales_get_weight():
    truth, popularity = _sales()
    features = _features(["odd" if num % 2 else "even" for num in range(30)])
    assert _model(truth + _noise(30, 0.5), popularity, features=features).kernel_weights[0] > 0


def _tail_case(features):
    truth, popularity = _sales(n_items=30)
    head = np.argsort(-popularity)[:20]
    model = _model(truth[np.ix_(head, head)], popularity, features=features, head=head)
    return model, popularity, np.setdiff1d(np.arange(30), head)


def test_item_factors_of_enough_rank_are_the_full_solution():
    features = _features([f"{'odd' if num % 2 else 'even'} thing" for num in range(30)])
    model, popularity, tail = _tail_case(features)
    left, right = gram.item_factors(model, features, popularity, 0.3)
    weights, inverse = gram.solve_ease(model.matrix(features), 0.3)
    full = np.zeros((20, 30))
    full[:, model.head] = weights
    full[:, tail] = inverse @ model.cross(features, tail, popularity[tail])
    np.testing.assert_allclose(left @ right.T, full, atol=1e-9)


def test_item_factors_do_not_depend_on_the_size_of_blocks(monkeypatch):
    model, popularity, _ = _tail_case(NO_FEATURES)
    left, right = gram.item_factors(model, NO_FEATURES, popularity, 0.3)
    monkeypatch.setattr(gram, "_TAIL_BLOCK", 3)
    again_left, again_right = gram.item_factors(model, NO_FEATURES, popularity, 0.3)
    np.testing.assert_allclose(again_left @ again_right.T, left @ right.T, atol=1e-9)


def test_item_factors_have_at_most_the_agreed_rank(monkeypatch):
    monkeypatch.setattr(gram, "RANK", 5)
    model, popularity, _ = _tail_case(NO_FEATURES)
    left, right = gram.item_factors(model, NO_FEATURES, popularity, 0.3)
    assert (left.shape, right.shape) == ((20, 5), (30, 5))
    np.testing.assert_allclose(left.T @ left, np.eye(5), atol=1e-9)


def test_top_items_break_ties_by_number():
    assert gram.top_items(np.array([1.0, 3.0, 1.0, 3.0]), 3).tolist() == [1, 3, 0]


@given(seed=st.integers(0, 10**6), k=st.integers(1, 4))
def test_nonnegative_fit_agrees_with_the_design_matrix(seed, k):
    rng = np.random.default_rng(seed)
    design, seen = rng.normal(size=(12, k)), rng.normal(size=12)
    normal = design.T @ design
    found = nonnegative_fit(normal, design.T @ seen, np.diag(normal))
    np.testing.assert_allclose(found, nnls(design, seen)[0], atol=1e-6)


def test_nonnegative_fit_does_not_depend_on_units():
    rng = np.random.default_rng(0)
    design, seen, units = rng.normal(size=(9, 3)), rng.normal(size=9), np.array([1e-6, 1.0, 1e6])
    scaled = design * units
    normal = scaled.T @ scaled
    found = nonnegative_fit(normal, scaled.T @ seen, np.diag(normal))
    np.testing.assert_allclose(found * units, nnls(design, seen)[0], atol=1e-6)


def test_nonnegative_fit_gives_nothing_to_rounding():
    found = nonnegative_fit(np.diag([4.0, 1e-15]), np.array([8.0, 1e-3]), np.array([5.0, 1.0]))
    np.testing.assert_allclose(found, [2.0, 0.0])
    assert not nonnegative_fit(np.zeros((1, 1)), np.zeros(1), np.ones(1)).any()
