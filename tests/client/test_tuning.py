"""How a silo's mix is tuned."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from fondaco.client.serving.tuning import (
    EVEN_SIGNAL,
    TRUST_GRID,
    Judge,
    averaging_weights,
    trust_prior,
    tune_sides,
)
from fondaco.shared.fusion import FUSERS
from fondaco.shared.metrics import hits, ndcg, rank_topk


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 30))
def test_judge_agrees_with_the_reported_ndcg(seed, k):
    rng = np.random.default_rng(seed)
    mask = rng.random((5, 12)) < 0.2
    targets = ~mask & (rng.random(mask.shape) < 0.3)
    targets[:, 0], mask[:, 0] = True, False
    scores = rng.permutation(60).reshape(5, 12).astype(np.float32)
    ranking = rank_topk(scores, csr_matrix(mask.astype(float)), k)
    hit = hits(ranking, csr_matrix(targets.astype(float)))
    expected = ndcg(hit, targets.sum(axis=1), min(k, 12))
    np.testing.assert_allclose(Judge(mask, targets, k)(scores), expected, atol=1e-9)


SHARPNESS = 4.0


@given(seed=st.integers(0, 10**6), n_users=st.integers(0, 30), sharpness=st.floats(0.0, 20.0))
def test_averaging_weights_sum_to_one(seed, n_users, sharpness):
    rng = np.random.default_rng(seed)
    weights = averaging_weights(rng.random((4, n_users)), sharpness, rng.uniform(0.1, 3.0, 4))
    assert weights.sum() == pytest.approx(1.0)
    assert (weights >= 0).all()


def test_averaging_weights_prefer_the_better_setting():
    rng = np.random.default_rng(0)
    values = rng.random((3, 200)) * 0.1 + np.array([[0.0], [0.3], [0.02]])
    weights = averaging_weights(values, SHARPNESS)
    assert weights[1] > 0.99


def test_averaging_weights_of_equal_settings_are_the_prior():
    values = np.tile(np.random.default_rng(0).random(9), (3, 1))
    prior = np.array([1.0, 1.0, 2.0])
    assert averaging_weights(values, SHARPNESS) == pytest.approx([1 / 3] * 3)
    assert averaging_weights(values, SHARPNESS, prior) == pytest.approx([0.25, 0.25, 0.5])


def test_averaging_weights_without_sharpness_are_the_prior():
    values = np.random.default_rng(0).random((2, 9))
    assert averaging_weights(values, 0.0, np.array([1.0, 3.0])) == pytest.approx([0.25, 0.75])


def test_averaging_weights_of_one_customer_are_the_prior():
    assert averaging_weights(np.array([[0.0], [1.0]]), SHARPNESS).tolist() == [0.5, 0.5]


def test_more_customers_make_averaging_weights_more_decided():
    rng = np.random.default_rng(0)
    values = rng.random((2, 400)) + np.array([[0.0], [0.2]])
    few, many = (averaging_weights(values[:, :n], SHARPNESS)[1] for n in (5, 400))
    assert 0.5 < few < many


def test_sharpness_makes_averaging_weights_more_decided():
    values = np.random.default_rng(0).random((2, 40)) + np.array([[0.0], [0.2]])
    soft, hard = (averaging_weights(values, sharpness)[1] for sharpness in (0.5, 8.0))
    assert 0.5 < soft < hard


def test_trust_prior_grows_with_what_everybody_knows():
    """The centre lies at signal^2 / (signal^2 + EVEN_SIGNAL): 0.5 where both count the same."""
    means = [p @ TRUST_GRID / p.sum() for p in map(trust_prior, (0.0, EVEN_SIGNAL**0.5, 9.0))]
    assert means[0] < 0.25 < means[1] < 0.75 < means[2]
    assert (trust_prior(0.0) > 0).all()


def test_side_weights_follow_what_a_side_adds():
    rng = np.random.default_rng(0)
    targets = rng.random((150, 20)) < 0.1
    targets[:, 0] |= ~targets.any(axis=1)
    base, noise = rng.normal(size=(2, *targets.shape)).astype(np.float32)
    good = (targets + rng.normal(0, 0.3, targets.shape)).astype(np.float32)
    judge = Judge(np.zeros_like(targets), targets, 10)
    found = tune_sides(base, [good, noise], judge, FUSERS["weighted"])
    assert found[0] > 1.0 > found[1]
