"""Secret coins: who takes part in a noisy sum. False alarms are those of a fresh seed."""

import math

import numpy as np
import pytest
from scipy import stats

from fondaco.shared.errors import ConfigError
from fondaco.shared.privacy.events import EVERYBODY
from fondaco.shared.privacy.noise import NoiseStream

N_USERS = 200_000


def _sample(label, sampling_ppm, n_users=N_USERS):
    return NoiseStream.seeded(11, label).sample(n_users, sampling_ppm)


@pytest.mark.parametrize("sampling_ppm", [1000, 50_000, 250_000, 500_000, 999_000])
def test_sample_holds_each_customer_with_the_stated_probability(sampling_ppm):
    """False alarms: 1e-6 each."""
    n_sampled = len(_sample("rate", sampling_ppm).user_nums)
    assert stats.binomtest(n_sampled, N_USERS, sampling_ppm / EVERYBODY).pvalue > 1e-6


@pytest.mark.parametrize("wrong", [0.96, 1.04])
def test_sample_of_a_wrong_probability_is_rejected(wrong):
    """The test above has power: 4 % of error is 18 standard deviations."""
    n_sampled = len(_sample("rate", 500_000).user_nums)
    assert stats.binomtest(n_sampled, N_USERS, 0.5 * wrong).pvalue < 1e-6


def test_sample_favours_nobody():
    """chi-square over 100 blocks of customers; false alarms: 1e-6."""
    drawn = _sample("blocks", 100_000).user_nums
    assert stats.chisquare(np.bincount(drawn // (N_USERS // 100), minlength=100)).pvalue > 1e-6


def test_neighbours_are_drawn_independently():
    """False alarms: 1e-6."""
    coins = np.zeros(N_USERS)
    coins[_sample("pairs", 500_000).user_nums] = 1.0
    score = stats.pearsonr(coins[1:], coins[:-1]).statistic * math.sqrt(N_USERS)
    assert abs(score) < stats.norm.isf(5e-7)


def test_one_customer_is_drawn_afresh_in_every_step():
    """False alarms: 1e-6; the size of a sample varies as a Poisson sample's does."""
    stream = NoiseStream.seeded(2, "steps")
    drawn = [len(stream.sample(1, 100_000).user_nums) for _ in range(20_000)]
    assert set(drawn) == {0, 1}
    assert stats.binomtest(sum(drawn), len(drawn), 0.1).pvalue > 1e-6


def test_sample_names_distinct_customers_in_order():
    drawn = _sample("order", 300_000, 1000).user_nums
    assert np.all(np.diff(drawn) > 0)
    assert 0 <= drawn[0] < drawn[-1] < 1000
    assert drawn.dtype == np.int64


def test_full_batch_takes_everybody_and_tosses_no_coin():
    stream = NoiseStream.seeded(1)
    assert stream.sample(7, EVERYBODY).user_nums.tolist() == list(range(7))
    assert np.array_equal(stream.gaussian(9, 1000), NoiseStream.seeded(1).gaussian(9, 1000))


@pytest.mark.parametrize("sampling_ppm", [1, 500_000, EVERYBODY])
def test_sample_carries_its_probability(sampling_ppm):
    assert _sample("label", sampling_ppm, 10).sampling_ppm == sampling_ppm


@pytest.mark.parametrize("sampling_ppm", [1, EVERYBODY])
def test_silo_without_customers_samples_nobody(sampling_ppm):
    assert len(_sample("nobody", sampling_ppm, 0).user_nums) == 0


def test_rarest_sample_is_usually_nobody():
    assert len(_sample("rare", 1, 10).user_nums) == 0


@pytest.mark.parametrize("sampling_ppm", [0, -1, EVERYBODY + 1])
def test_sample_refuses_what_is_no_probability(sampling_ppm):
    with pytest.raises(ConfigError, match="sampling_ppm"):
        NoiseStream.from_system().sample(10, sampling_ppm)


def test_coins_of_two_streams_are_independent():
    """False alarms: 1e-6; who was in one sample says nothing about the other."""
    one, two = (_sample(label, 500_000).user_nums for label in ("north", "south"))
    both = len(np.intersect1d(one, two))
    assert stats.binomtest(both, len(one), 0.5).pvalue > 1e-6


def test_system_coins_differ_every_time():
    """False alarms: 2^-1000."""
    one, two = (NoiseStream.from_system().sample(1000, 500_000).user_nums for _ in range(2))
    assert not np.array_equal(one, two)


def test_coins_and_noise_of_one_stream_do_not_share_words():
    stream = NoiseStream.seeded(5, "words")
    coins = stream.sample(64, 500_000)
    after = stream.gaussian(64, 1000)
    assert np.array_equal(
        NoiseStream.seeded(5, "words").sample(64, 500_000).user_nums, coins.user_nums
    )
    assert not np.array_equal(NoiseStream.seeded(5, "words").gaussian(64, 1000), after)
