"""Statistical tests draw seeded noise, so they pass always or never.

The false-alarm rates named here are those of a fresh seed: what a maintainer risks who changes
the generator.
"""

import hashlib
import math

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from scipy import stats

from fondaco.shared.errors import ConfigError
from fondaco.shared.privacy.noise import NoiseStream
from fondaco.shared.privacy.plan import MAX_STDDEV_GRID

STDDEV = 5 * 2**20
N_DRAWS = 400_000


def _draw(label, dim=N_DRAWS, stddev=STDDEV):
    return NoiseStream.seeded(7, label).gaussian(dim, stddev)


def _chi_square_p(noise, stddev):
    """Two-sided p-value of sum z^2 against chi-square with one degree per draw."""
    statistic = float(np.sum((noise / stddev) ** 2))
    below = stats.chi2.cdf(statistic, len(noise))
    return 2 * min(below, stats.chi2.sf(statistic, len(noise)))


def test_noise_has_its_stated_scale():
    assert _chi_square_p(_draw("scale"), STDDEV) > 1e-6  # false alarms: 1e-6


@pytest.mark.parametrize("factor", [0.5, 0.95, 0.99, 1.01, 1.05, 2.0])
def test_noise_of_a_wrong_scale_is_rejected(factor):
    """The test above has power: even 1 % of error (9 standard deviations of it) is seen."""
    assert _chi_square_p(_draw("scale"), STDDEV * factor) < 1e-6


def test_noise_is_gaussian_in_all_its_range():
    assert stats.kstest(_draw("shape") / STDDEV, "norm").pvalue > 1e-6  # false alarms: 1e-6


def test_noise_has_the_tails_of_a_gaussian():
    beyond = np.abs(_draw("tails", 2_000_000)) > 4 * STDDEV
    expected = 2_000_000 * 2 * stats.norm.sf(4)
    assert stats.poisson.cdf(beyond.sum(), expected) > 1e-6
    assert stats.poisson.sf(beyond.sum() - 1, expected) > 1e-6


@pytest.mark.parametrize("lag", [1, 2, 32_768, 65_536])
def test_noise_does_not_correlate_with_itself(lag):
    """False alarms: 1e-6 each; half a chunk and a chunk are where Box-Muller pairs up."""
    z = _draw("lags") / STDDEV
    score = float(np.mean(z[lag:] * z[:-lag])) * math.sqrt(len(z) - lag)
    assert abs(score) < stats.norm.isf(5e-7)


def test_squares_of_a_box_muller_pair_do_not_correlate():
    z = (_draw("pairs", 65_536) / STDDEV) ** 2
    score = stats.pearsonr(z[:32_768], z[32_768:]).statistic * math.sqrt(32_768)
    assert abs(score) < stats.norm.isf(5e-7)


def test_noise_is_whole_numbers_of_both_parities():
    noise = _draw("support")
    assert noise.dtype == np.int64
    assert stats.binomtest(int(np.sum(noise % 2)), len(noise)).pvalue > 1e-6


def test_noise_reaches_every_integer_at_the_largest_scale():
    noise = _draw("support", stddev=MAX_STDDEV_GRID)
    residues = np.bincount(noise % 16, minlength=16)
    assert stats.chisquare(residues).pvalue > 1e-6
    assert _chi_square_p(noise, MAX_STDDEV_GRID) > 1e-6


@pytest.mark.parametrize("stddev", [0, -1, MAX_STDDEV_GRID + 1, 10**25])
def test_noise_refuses_a_scale_that_float64_cannot_carry(stddev):
    with pytest.raises(ConfigError):
        NoiseStream.from_system().gaussian(1, stddev)


@pytest.mark.parametrize("dim", [0, 1, 2, 3, 65_535, 65_536, 65_537])
def test_noise_has_the_asked_length(dim):
    assert _draw("length", dim).shape == (dim,)


def test_seeded_streams_repeat_for_equal_labels():
    one = NoiseStream.seeded(1, "north", "gram").gaussian(100, STDDEV)
    assert np.array_equal(NoiseStream.seeded(1, "north", "gram").gaussian(100, STDDEV), one)


def test_seeded_stream_is_the_same_on_every_machine():
    noise = NoiseStream.seeded(0, "golden").gaussian(3, 1000)
    assert noise.tolist() == [-933, -452, 1151]


@pytest.mark.parametrize(
    "other", [(2, "north", "gram"), (1, "south", "gram"), (1, "northgram"), (1, "north", "gra")]
)
def test_seeded_streams_of_other_labels_are_independent(other):
    """False alarms: 1e-6 each."""
    one = NoiseStream.seeded(1, "north", "gram").gaussian(N_DRAWS, STDDEV) / STDDEV
    two = NoiseStream.seeded(*other).gaussian(N_DRAWS, STDDEV) / STDDEV
    assert abs(float(np.mean(one * two))) * math.sqrt(N_DRAWS) < stats.norm.isf(5e-7)


def test_one_stream_never_repeats_itself():
    stream = NoiseStream.seeded(1, "north")
    assert not np.array_equal(stream.gaussian(100, STDDEV), stream.gaussian(100, STDDEV))


def test_system_streams_differ_and_say_where_they_come_from():
    one, two = NoiseStream.from_system(), NoiseStream.from_system()
    assert not np.array_equal(one.gaussian(100, STDDEV), two.gaussian(100, STDDEV))
    assert one.source == "getrandom chacha20"


def test_seeded_streams_say_that_they_protect_nobody():
    assert NoiseStream.seeded(1).source == "seeded chacha20: no claim"


def test_system_stream_has_its_stated_scale():
    noise = NoiseStream.from_system().gaussian(100_000, STDDEV)
    assert _chi_square_p(noise, STDDEV) > 1e-9  # false alarms: 1e-9 of all test runs


def test_keystream_is_chacha20_of_the_hashed_labels():
    key = hashlib.sha256(b"1\x00north").digest()
    stream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()
    expected = np.frombuffer(stream.update(bytes(64)), dtype="<u8")
    assert np.array_equal(NoiseStream.seeded(1, "north")._words(8), expected)


class _Extremes(NoiseStream):
    """A stream whose every word is the same."""

    def __init__(self, word):
        super().__init__(bytes(32), "test")
        self._word = word

    def _words(self, n):
        return np.full(n, self._word, dtype=np.uint64)


@pytest.mark.parametrize(("word", "radius"), [(0, math.sqrt(130 * math.log(2))), (2**64 - 1, 0.0)])
def test_radius_is_finite_at_both_ends_of_its_uniform(word, radius):
    normal = _Extremes(word)._standard_normal(2)
    assert math.isclose(float(np.hypot(*normal)), radius, abs_tol=1e-12)


def _rounded_pmf(stddev, reach):
    k = np.arange(-reach, reach + 1)
    return stats.norm.cdf((k + 0.5) / stddev) - stats.norm.cdf((k - 0.5) / stddev)


def _pmf_of_postprocessed_gaussian(stddev, n, reach):
    """pmf of rint(N(0, n stddev^2) + Irwin-Hall(n - 1)): the density of the Gaussian plus n
    centred uniforms, read at the integers, by inverting its characteristic function."""
    t, step = np.linspace(-40 / stddev, 40 / stddev, 20_001, retstep=True)
    transform = np.exp(-n * (stddev * t) ** 2 / 2) * np.sinc(t / (2 * np.pi)) ** n
    return np.cos(np.outer(np.arange(-reach, reach + 1), t)) @ transform * step / (2 * np.pi)


@pytest.mark.parametrize(("stddev", "n"), [(1.5, 2), (2.0, 5), (4.0, 3)])
def test_sum_of_rounded_gaussians_is_a_postprocessed_gaussian(stddev, n):
    """Hence Gaussian accounting holds for the sum of all silos' noise; tau >= 100 in plans."""
    reach = int(12 * stddev)
    one = _rounded_pmf(stddev, reach)
    total = one
    for _ in range(n - 1):
        total = np.convolve(total, one)
    middle = slice((len(total) - 1) // 2 - reach, (len(total) - 1) // 2 + reach + 1)
    theory = _pmf_of_postprocessed_gaussian(stddev, n, reach)
    seen = total[middle]
    aliasing = 2 * n * math.exp(-2 * (math.pi * stddev) ** 2 * (1 - 1 / n))
    assert np.max(np.abs(seen - theory)) < aliasing + 1e-14


def test_sum_of_rounded_gaussians_differs_from_theory_on_a_grid_too_coarse():
    one = _rounded_pmf(0.3, 12)
    theory = _pmf_of_postprocessed_gaussian(0.3, 2, 12)
    assert np.max(np.abs(np.convolve(one, one)[12:-12] - theory)) > 1e-3


def test_noise_of_many_silos_adds_up_to_the_noise_of_the_plan(plan):
    """False alarms: 1e-6; the honest silos alone carry what the guarantee rests on."""
    event, cohort = plan.releases[0], plan.cohort
    honest = cohort.n_min - cohort.t_collude
    total = sum(
        NoiseStream.seeded(3, f"silo {num}").gaussian(N_DRAWS, event.silo_stddev_grid)
        for num in range(honest)
    )
    assert _chi_square_p(total, event.stddev_grid) > 1e-6
