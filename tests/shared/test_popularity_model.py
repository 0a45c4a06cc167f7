import numpy as np
import pytest

from fondaco.shared.catalogue import Catalogue
from fondaco.shared.features import ItemFeatures, item_features
from fondaco.shared.models.popularity import denoise_popularity, empirical_bayes_mean
from fondaco.shared.vocabulary import Vocabulary

N = 400
NO_FEATURES = ItemFeatures(names=(), blocks=())


def _features(texts):
    return item_features(
        Catalogue(
            items=Vocabulary(tuple(f"i{num:04d}" for num in range(len(texts)))),
            texts=tuple(texts),
            categories=("",) * len(texts),
            brands=("",) * len(texts),
            prices=np.full(len(texts), np.nan),
        )
    )


def _truth():
    """Items of ten kinds, each kind with its own level."""
    kinds = np.arange(N) % 10
    return kinds, 3.0 * kinds + np.random.default_rng(0).exponential(1.0, N)


def _noisy(truth, stddev=4.0, seed=1):
    return truth + np.random.default_rng(seed).normal(0, stddev, len(truth))


def _error(found, truth):
    return np.sqrt(np.mean((found - truth) ** 2))


def test_denoised_popularity_is_closer_to_the_truth():
    _, truth = _truth()
    noisy = _noisy(truth)
    assert _error(denoise_popularity(noisy, 4.0, NO_FEATURES), truth) < _error(noisy, truth)


def test_features_that_tell_popularity_bring_it_closer():
    kinds, truth = _truth()
    noisy = _noisy(truth)
    with_text = denoise_popularity(noisy, 4.0, _features([f"kind{kind}" for kind in kinds]))
    plain = denoise_popularity(noisy, 4.0, NO_FEATURES)
    assert _error(with_text, truth) < 0.5 * _error(plain, truth)


@pytest.mark.parametrize("seed", range(3))
def test_texts_that_no_two_items_share_do_no_harm(seed):
    _, truth = _truth()
    noisy = _noisy(truth, seed=seed)
    found = denoise_popularity(noisy, 4.0, _features([f"word{num}" for num in range(N)]))
    assert _error(found, truth) < _error(noisy, truth)


@pytest.mark.parametrize("texts", [[], ["kind"] * N, [f"kind{num % 7}" for num in range(N)]])
def test_denoised_popularity_is_finite_and_never_negative(texts):
    features = _features(texts) if texts else NO_FEATURES
    found = denoise_popularity(_noisy(np.zeros(N)), 4.0, features)
    assert np.isfinite(found).all()
    assert (found >= 0).all()


@pytest.mark.parametrize("stddev", [1e-3, 0.1, 2.0])
def test_values_far_above_the_noise_stay(stddev):
    """However large: a prior on a coarse grid must not pull them to its points."""
    truth = np.concatenate([np.zeros(200), np.geomspace(30 * stddev, 1e6 * stddev, 200)])
    noisy = _noisy(truth, stddev)
    found = empirical_bayes_mean(noisy, stddev)
    np.testing.assert_array_equal(found[200:], noisy[200:])
    assert _error(found[:200], 0.0) < 0.3 * stddev


@pytest.mark.parametrize("stddev", [0.5, 1.3, 4.0])
def test_empirical_bayes_keeps_the_order(stddev):
    _, truth = _truth()
    noisy = np.sort(_noisy(truth, stddev))
    assert (np.diff(empirical_bayes_mean(noisy, stddev)) >= -1e-9).all()


def test_empirical_bayes_of_equal_values_is_finite():
    assert np.isfinite(empirical_bayes_mean(np.full(5, 2.0), 1.0)).all()
    assert np.isfinite(empirical_bayes_mean(np.full(5, -2.0), 1.0)).all()
