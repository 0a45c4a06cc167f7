"""scipy is the oracle of every p-value."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from fondaco.shared.audit.conformance import pvalues

DEGREES = st.sampled_from([1, 2, 7, 80, 999, 2001, 16_384, 303_552, 1_000_000])


@given(DEGREES, st.floats(-8, 12))
@settings(max_examples=200, deadline=None)
def test_incomplete_gamma_functions_are_scipys(degrees, score):
    a = degrees / 2
    x = max(a + score * math.sqrt(a), 1e-3)
    for ours, theirs in ((pvalues.gamma_p, special.gammainc), (pvalues.gamma_q, special.gammaincc)):
        assert math.isclose(ours(a, x), theirs(a, x), rel_tol=1e-6, abs_tol=1e-14)


@pytest.mark.parametrize("statistic", [0.0, 1e-300, 40.0, 1e4, math.inf])
def test_chi_square_p_is_two_sided(statistic):
    expected = 2 * min(stats.chi2.cdf(statistic, 40), stats.chi2.sf(statistic, 40))
    assert math.isclose(pvalues.chi_square_p(statistic, 40), expected, abs_tol=1e-12)


def test_statistic_that_is_no_number_fits_nothing():
    assert pvalues.chi_square_p(math.nan, 10) == 0.0
    assert pvalues.least([0.5, math.nan]) == 0.0


@pytest.mark.parametrize("score", [0.0, 1.0, -4.9, 30.0])
def test_normal_p_is_two_sided(score):
    assert math.isclose(pvalues.normal_p(score), 2 * stats.norm.sf(abs(score)), rel_tol=1e-9)


def test_normal_cdf_is_scipys():
    z = np.linspace(-8, 8, 101)
    assert np.allclose(pvalues.normal_cdf(z), stats.norm.cdf(z), rtol=1e-10, atol=0)


@pytest.mark.parametrize("power", [1.0, 1.05, 1.2, 1.5])
def test_kolmogorov_p_is_scipys(power):
    uniforms = np.random.default_rng(0).uniform(size=3000) ** power
    theirs = stats.kstest(uniforms, "uniform").pvalue
    assert math.isclose(pvalues.kolmogorov_p(uniforms), theirs, rel_tol=0.1, abs_tol=1e-30)


@pytest.mark.parametrize(("count", "expected"), [(0, 3.0), (3, 3.0), (20, 3.0), (900, 1000.0)])
def test_poisson_p_is_two_sided(count, expected):
    either = stats.poisson.cdf(count, expected), stats.poisson.sf(count - 1, expected)
    theirs = min(1.0, 2 * min(either))
    assert math.isclose(pvalues.poisson_p(count, expected), theirs, rel_tol=1e-6)


def test_uniform_counts_p_is_scipys_chi_square():
    counts = np.array([90, 110, 105, 95, 130])
    assert math.isclose(pvalues.uniform_counts_p(counts), stats.chisquare(counts).pvalue)


def test_correlation_p_sees_what_is_alike_and_nothing_else():
    one, two = np.random.default_rng(0).normal(size=(2, 10_000))
    assert pvalues.correlation_p(one, two) > 1e-3
    assert pvalues.correlation_p(one, one) < 1e-100


def test_least_counts_how_often_one_looked():
    assert pvalues.least([0.01, 0.4, 0.9]) == pytest.approx(0.03)
    assert pvalues.least([0.6, 0.7]) == 1.0


@pytest.mark.parametrize("power", ["chi_square", "kolmogorov", "counts"])
def test_p_values_of_right_draws_are_uniform(power):
    """False alarms: 1e-6 each of a fresh seed; so a threshold means what it says."""
    rng = np.random.default_rng(7)
    told = {
        "chi_square": lambda: pvalues.chi_square_p(float(np.sum(rng.normal(size=50) ** 2)), 50),
        "kolmogorov": lambda: pvalues.kolmogorov_p(rng.uniform(size=200)),
        "counts": lambda: pvalues.uniform_counts_p(rng.multinomial(4000, [1 / 8] * 8)),
    }[power]
    assert stats.kstest([told() for _ in range(1000)], "uniform").pvalue > 1e-6
