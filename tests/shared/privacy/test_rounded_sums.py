"""The law of a sum of rounded Gaussians: that of one Gaussian, blurred and rounded afterwards.

Hence a masked sum is post-processing of the Gaussian mechanism that the accountants know. By
Poisson's summation formula the two differ by about 2 n exp(-2 pi^2 s^2), s the least stddev of a
share in grid units; plans ask for 100.
"""

import math

import numpy as np
import pytest
from scipy.interpolate import BSpline
from scipy.stats import chisquare, norm

from fondaco.shared.privacy.noise import NoiseStream
from fondaco.shared.privacy.plan import MIN_STDDEV_GRID

N = 5
NODES, WEIGHTS = np.polynomial.legendre.leggauss(40)


def _rounded(stddev, reach):
    """P(rint(N(0, stddev^2)) = k) for |k| <= reach."""
    k = np.arange(-reach, reach + 1)
    return norm.sf((k - 0.5) / stddev) - norm.sf((k + 0.5) / stddev)


def _summed(stddevs, reach):
    """The pmf of a sum of rounded Gaussians for |k| <= reach."""
    wide = 2 * reach
    pmf = np.ones(1)
    for stddev in stddevs:
        pmf = np.convolve(pmf, _rounded(stddev, wide))
    middle = len(pmf) // 2
    return pmf[middle - reach : middle + reach + 1]


def _blurred(stddevs, reach):
    """The pmf of rint(N(0, sum of squares) + U1 + ... + U(n-1)), each U uniform on +-1/2.

    Rounding adds up the density over one step: one more uniform, so n in all.
    """
    n, stddev = len(stddevs), math.hypot(*stddevs)
    uniforms = BSpline.basis_element(np.arange(n + 1) - n / 2, extrapolate=False)
    k = np.arange(-reach, reach + 1)[:, None]
    pmf = np.zeros(2 * reach + 1)
    for start in np.arange(n) - n / 2:  # smooth between the knots
        at = start + (NODES + 1) / 2
        pmf += norm.pdf(k - at, scale=stddev) @ (uniforms(at) * WEIGHTS / 2)
    return pmf


def _difference(stddevs):
    """The largest difference of the two pmfs relative to theory, out to six stddev."""
    reach = math.ceil(6 * math.hypot(*stddevs))
    theory = _blurred(stddevs, reach)
    return np.max(np.abs(_summed(stddevs, reach) / theory - 1))


@pytest.mark.parametrize(("stddev", "most"), [(1, 1e-6), (2, 1e-8), (5, 1e-8), (20, 1e-8)])
def test_sum_of_rounded_gaussians_is_a_blurred_gaussian(stddev, most):
    assert _difference([stddev] * N) < most


def test_sum_of_unequal_rounded_gaussians_is_a_blurred_gaussian():
    assert _difference([2, 3, 5, 7, 11]) < 1e-8


def test_coarse_grid_would_break_the_law():
    """Why plans ask for much more than one grid unit of noise."""
    assert _difference([0.5] * N) > 0.05
    assert MIN_STDDEV_GRID >= 100


@pytest.mark.parametrize("stddev", [1, 2, 10])
def test_noise_that_silos_draw_follows_the_law_when_it_is_summed(stddev):
    draws = sum(NoiseStream.seeded(3, str(num)).gaussian(200_000, stddev) for num in range(N))
    reach = math.ceil(4 * stddev * math.sqrt(N))
    theory = _blurred([stddev] * N, reach)
    counts = np.bincount(np.clip(draws, -reach, reach) + reach, minlength=2 * reach + 1)
    tail = (1 - theory[1:-1].sum()) / 2
    expected = np.concatenate([[tail], theory[1:-1], [tail]]) * len(draws)
    assert chisquare(counts, expected, sum_check=False).pvalue > 1e-4
