"""Bounds of audits: against published numbers, closed forms and mechanisms of known epsilon."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm

from fondaco.shared.calibration import gaussian_mu
from fondaco.simulation.attacks.bounds import (
    BOUNDS,
    GUESSES,
    MOST_EPSILON,
    Guessed,
    Guesses,
    auc,
    by_counts,
    by_tradeoff,
    epsilon_of,
    epsilon_of_normals,
    guess,
    one_run_bound,
    one_run_p_value,
    tpr_at,
)


def _hull(counts):
    """Places of the upper convex hull of (false negatives, true negatives), by monotone chain."""
    kept = []
    for place, (x, y) in enumerate(counts.tolist()):
        while len(kept) > 1:
            (x0, y0), (x1, y1) = counts[kept[-2]].tolist(), counts[kept[-1]].tolist()
            if (x1 - x0) * (y - y0) < (y1 - y0) * (x - x0):
                break
            kept.pop()
        kept.append(place)
    return np.array(kept)


def _over_all_thresholds(bound, shift, n=10_000):
    """The bound as jax_privacy takes it: any number of "in" guesses, Bonferroni over the hull."""
    excluded = norm.ppf((np.arange(n) + 0.5) / n)
    included = excluded + shift
    thresholds = np.append(np.union1d(included, excluded), np.inf)
    missed = np.searchsorted(included, thresholds)
    passed = np.searchsorted(excluded, thresholds)
    kept = _hull(np.stack([missed, passed], axis=1))
    right, wrong = n - missed[kept], n - passed[kept]
    best = 0.0
    for num in np.argsort(-right / np.maximum(right + wrong, 1)):
        if right[num] + wrong[num]:
            guessed = Guessed(2 * n, int(right[num] + wrong[num]), int(right[num]))
            best = bound(guessed, 0.05 / len(kept), 1e-6, best)
    return best


@pytest.mark.parametrize(
    ("bound", "shift", "published"),
    [
        (by_counts, 1, 1.13346),
        (by_counts, 4, 4.395568),
        (by_tradeoff, 1, 2.164749),
        (by_tradeoff, 4, 9.133752),
    ],
)
def test_bounds_agree_with_published_ones(bound, shift, published):
    """Of jax_privacy's tests: two normal laws of 10,000 canaries each, delta 1e-6."""
    assert _over_all_thresholds(bound, shift) == pytest.approx(published, abs=5e-4)


@given(
    st.integers(1, 60),
    st.integers(0, 60),
    st.floats(0, 4),
    st.sampled_from([0.0, 1e-6, 1e-3, 0.1]),
)
def test_p_value_is_the_papers_sum(n_guesses, n_wrong, epsilon, delta):
    n_correct = max(0, n_guesses - n_wrong)
    chance = 1 / (1 + math.exp(-epsilon))
    beta = sum(binom.pmf(k, n_guesses, chance) for k in range(n_correct, n_guesses + 1))
    gains = [
        sum(binom.pmf(k, n_guesses, chance) for k in range(n_correct - i, n_correct)) / i
        for i in range(1, n_correct + 1)
    ]
    expected = min(1.0, beta + 2 * 100 * delta * max([0.0, *gains]))
    found = one_run_p_value(Guessed(100, n_guesses, n_correct), epsilon, delta)
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("n_canaries", [1000, 2000])
def test_no_claim_above_the_ceiling_can_be_refuted(n_canaries):
    all_right = Guessed(n_canaries, n_canaries, n_canaries)
    ceiling = math.log(n_canaries / math.log(1 / 0.05))
    assert by_counts(all_right, 0.05, 0.0, 0.0) == pytest.approx(ceiling, abs=0.01)


def test_bound_by_tradeoff_is_the_stronger_one():
    guessed = Guessed(1000, 200, 180)
    counts, tradeoff = (bound(guessed, 0.05, 1e-5, 0.0) for bound in (by_counts, by_tradeoff))
    assert 0 < counts < tradeoff


@pytest.mark.parametrize("bound", BOUNDS.values(), ids=BOUNDS.keys())
def test_bound_grows_with_right_guesses_and_falls_with_delta(bound):
    found = [bound(Guessed(1000, 100, right), 0.05, 1e-5, 0.0) for right in (50, 70, 85, 100)]
    assert found[0] == 0
    assert found == sorted(found)
    assert bound(Guessed(1000, 100, 90), 0.05, 1e-2, 0.0) <= bound(
        Guessed(1000, 100, 90), 0.05, 0.0 if bound is by_counts else 1e-5, 0.0
    )


def test_what_is_at_least_known_is_never_lost():
    assert by_counts(Guessed(1000, 100, 50), 0.05, 1e-5, 1.5) == 1.5
    assert by_tradeoff(Guessed(1000, 100, 50), 0.05, 1e-5, 1.5) == 1.5


def test_guesses_count_both_ends():
    scores = np.array([5.0, 4.0, 3.0, 2.0, 1.0, 0.0, -1.0, -2.0, -3.0, -4.0])
    included = np.array([1, 0, 1, 1, 0, 0, 1, 0, 0, 1], dtype=bool)
    assert guess(scores, included, Guesses(0.2, 0.3)) == (10, 5, 3)
    assert guess(scores, included, Guesses(0.3, 0.0)) == (10, 3, 2)


def test_guesses_leave_nobody_twice():
    assert all(g.included + g.excluded <= 1 for g in GUESSES)


def _alarms(name, claim, draw, n_runs=100):
    """How many of `n_runs` runs put the bound above the claim; up to 5 % may."""
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(n_runs):
        included = rng.random(500) < 0.5
        scores = {"only": draw(included, rng)}
        bound = one_run_bound(scores, included, {"only": 1.0}, bound=BOUNDS[name], delta=1e-5)
        alarms += bound > claim
    return alarms


def test_counts_stay_below_randomised_response():
    """It is exactly 1-DP and the worst case of the bound. False alarm of this test: below 2 %."""

    def answers(included, rng):
        kept = rng.random(len(included)) < 1 / (1 + math.exp(-1.0))
        return np.where(kept, included, ~included) + 1e-6 * rng.random(len(included))

    assert _alarms("one-run", 1.0, answers) <= 10


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds_stay_below_gaussian_noise(name):
    """The false alarm of this test is below 2 %."""
    mu = gaussian_mu(1.0, 1e-5)

    def noisy(included, rng):
        return mu * included + rng.normal(size=len(included))

    assert _alarms(name, 1.0, noisy) <= 10


def test_gaussian_epsilon_is_found_again():
    assert epsilon_of(gaussian_mu(2.0, 1e-5), 1e-5) == pytest.approx(2.0, abs=1e-6)


@pytest.mark.parametrize("mu", [0.5, 1.0, 3.0])
def test_estimate_of_normal_laws_is_that_of_the_gaussian_mechanism(mu):
    excluded = 0.01 * norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    found = epsilon_of_normals(excluded + mu * 0.01, excluded, 1e-5)
    assert found == pytest.approx(epsilon_of(mu, 1e-5), rel=5e-3)


def test_estimate_is_nothing_for_equal_laws_and_the_most_for_sure_ones():
    assert epsilon_of_normals(np.array([1.0, 2.0]), np.array([1.0, 2.0]), 1e-5) < 1e-4
    assert epsilon_of_normals(np.ones(3), np.zeros(3), 1e-5) == MOST_EPSILON


def test_auc_and_tpr_can_be_checked_by_hand():
    included, excluded = np.array([3.0, 1.0, 2.0]), np.array([0.0, 1.0, 2.5, -1.0])
    assert auc(included, excluded) == pytest.approx((4 + 2.5 + 3) / 12)
    assert tpr_at(included, excluded, 0.0) == pytest.approx(1 / 3)
    assert tpr_at(included, excluded, 0.25) == pytest.approx(2 / 3)
