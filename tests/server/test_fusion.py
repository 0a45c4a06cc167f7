"""Weights of the parts from noisy gains."""

import numpy as np
import pytest
from scipy.stats import norm

from fondaco.server import fusion
from fondaco.server.fusion import choose_weights, reference_alone
from fondaco.shared.models.autoencoder import AutoencoderTerms
from fondaco.shared.models.base import Terms
from fondaco.shared.models.terms import BUCKET_EDGES, FUSION_CLIP, FUSION_WEIGHTS

N_BUCKETS, N_SETTINGS = len(BUCKET_EDGES) + 1, len(FUSION_WEIGHTS)
NETWORK, POPULARITY = 0, 1  # parts beside the reference, in the order of the release


@pytest.fixture(scope="module")
def plan(make_plan):
    """Gram (the reference), autoencoder and popularity."""
    terms = {"gram": Terms().as_text(), "autoencoder": AutoencoderTerms().as_text()}
    return make_plan(models=terms)


def _total(plan, gains):
    """(n_buckets, 2, n_settings) gains [metric] as a joint release [grid units]."""
    return np.rint(np.asarray(gains) / FUSION_CLIP * plan.grid).astype(np.int64).ravel()


def _nothing():
    return np.zeros((N_BUCKETS, 2, N_SETTINGS))


def _choose(plan, gains, noise=1.0):
    """Weights where the noise of every number is `noise` [metric]."""
    return choose_weights(plan, _total(plan, gains), noise / FUSION_CLIP)


def test_without_gain_the_reference_stands_alone(plan):
    expected = [[1.0, 0.0, 0.0]] * N_BUCKETS
    for gains in (_nothing(), _nothing() - 50.0):
        found = _choose(plan, gains)
        assert found.dtype == np.float32
        assert found.tolist() == expected == reference_alone(plan).tolist()


def test_a_part_that_helps_everybody_gets_its_best_weight_everywhere(plan):
    gains = _nothing()
    gains[:, NETWORK] = [2.0, 6.0, 9.0, -4.0]
    found = _choose(plan, gains)
    np.testing.assert_allclose(found[:, 1], FUSION_WEIGHTS[2])
    assert not found[:, 2].any()
    assert np.all(found[:, 0] == 1.0)


@pytest.mark.parametrize("bucket", range(N_BUCKETS))
def test_a_clear_gain_in_one_bucket_counts_there_alone(plan, bucket):
    gains = _nothing()
    gains[:, POPULARITY, :] = -3.0
    gains[bucket, POPULARITY] = [1.0, 2.0, 3.0, 8.0]
    found = _choose(plan, gains)
    expected = np.zeros(N_BUCKETS)
    expected[bucket] = FUSION_WEIGHTS[3]
    np.testing.assert_allclose(found[:, 2], expected)
    assert not found[:, 1].any()


def test_a_bucket_that_is_harmed_leaves_the_common_weight(plan):
    gains = _nothing()
    gains[:, NETWORK] = [1.0, 2.0, 12.0, 3.0]
    gains[3, NETWORK] = [-1.0, -2.0, -5.0, -9.0]
    np.testing.assert_allclose(_choose(plan, gains)[:, 1], [FUSION_WEIGHTS[2]] * 3 + [0.0])


def test_a_gain_within_the_noise_is_no_gain(plan):
    """Together 1.6 where the noise of four buckets is 2; the same at a tenth of it is sure."""
    gains = _nothing()
    gains[:, NETWORK, 1] = 0.4
    assert not _choose(plan, gains)[:, 1].any()
    np.testing.assert_allclose(_choose(plan, gains, noise=0.1)[:, 1], FUSION_WEIGHTS[1])


def test_parts_are_weighed_apart(plan):
    gains = _nothing()
    gains[:, NETWORK, 0] = 9.0
    gains[:, POPULARITY, 3] = 9.0
    found = _choose(plan, gains)
    np.testing.assert_allclose(found, [[1.0, FUSION_WEIGHTS[0], FUSION_WEIGHTS[3]]] * N_BUCKETS)


def test_gains_are_those_of_the_release_however_fine_its_grid(plan):
    gains = np.random.default_rng(0).normal(0, 4, (N_BUCKETS, 2, N_SETTINGS))
    found = _choose(plan, gains)
    rounded = _total(plan, gains) / plan.grid * FUSION_CLIP
    np.testing.assert_allclose(rounded, gains.ravel(), atol=1e-6)
    assert set(np.unique(found[:, 1:])) <= {0.0, *np.float32(FUSION_WEIGHTS)}


def test_noise_alone_earns_a_weight_as_often_as_stated(plan):
    """Of four settings without any gain the best lies above SURE deviations with 1 - Phi^4.

    That is 50 % at SURE = 1, 9 % at 2. A bucket leaves the common weight on top of it, with
    at most 1 - Phi(OWN_WEIGHT)^4 = 9 % each. 2,000 draws: a rate's deviation is at most 0.011,
    so that a false alarm of this test beyond five of them has a probability below 1e-6.
    """
    rng = np.random.default_rng(7)
    found = np.array(
        [_choose(plan, rng.normal(0, 1, (N_BUCKETS, 2, N_SETTINGS)))[:, 2] > 0 for _ in range(2000)]
    )
    common = 1 - norm.cdf(fusion.SURE) ** N_SETTINGS
    bucket = 1 - norm.cdf(fusion.OWN_WEIGHT) ** N_SETTINGS
    most = found.sum(axis=1) >= N_BUCKETS - 1
    assert most.mean() == pytest.approx(common, abs=0.055)
    assert common - 0.055 < found.any(axis=1).mean() < common + N_BUCKETS * bucket + 0.055
