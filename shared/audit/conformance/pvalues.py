"""p-values in plain Python: an auditor needs no statistics library.

A p-value here is the probability that right code gives a statistic at least as far out.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

_TERMS = 100_000
_CLOSE = 1e-12
_TINY = 1e-300

Array = NDArray[np.float64]


def normal_p(score: float) -> float:
    """Two-sided p-value of a standard normal `score`."""
    return math.erfc(abs(score) / math.sqrt(2.0))


def normal_cdf(values: Array) -> Array:
    """(n,) standard normal distribution function."""
    return np.array([math.erfc(-value) / 2 for value in (values / math.sqrt(2.0)).tolist()])


def chi_square_p(statistic: float, degrees: int) -> float:
    """Two-sided p-value of a sum of `degrees` squared standard normals."""
    below = gamma_p(degrees / 2, statistic / 2)
    return min(1.0, 2.0 * min(below, gamma_q(degrees / 2, statistic / 2)))


def chi_square_upper_p(statistic: float, degrees: int) -> float:
    """p-value of a goodness-of-fit statistic: too large only."""
    return gamma_q(degrees / 2, statistic / 2)


def kolmogorov_p(uniforms: Array) -> float:
    """p-value of (n,) numbers being uniform on [0, 1], by the asymptotic distribution."""
    n = len(uniforms)
    ordered = np.sort(uniforms)
    ranks = np.arange(n + 1) / n
    distance = float(max(np.max(ranks[1:] - ordered), np.max(ordered - ranks[:-1])))
    # Stephens 1970: holds from n = 10 on, not in the limit alone.
    scaled = (math.sqrt(n) + 0.12 + 0.11 / math.sqrt(n)) * distance
    if scaled < 0.2:  # noqa: PLR2004  (there the series is 1 to all digits)
        return 1.0
    terms = ((-1) ** (k - 1) * math.exp(-2.0 * k * k * scaled * scaled) for k in range(1, 101))
    return min(1.0, max(0.0, 2.0 * math.fsum(terms)))


def poisson_p(count: int, expected: float) -> float:
    """Two-sided p-value of a Poisson `count`."""
    at_most = gamma_q(count + 1.0, expected)
    at_least = gamma_p(float(count), expected) if count else 1.0
    return min(1.0, 2.0 * min(at_most, at_least))


def correlation_p(one: Array, two: Array) -> float:
    """Two-sided p-value of two independent (n,) samples of variance 1 and mean 0."""
    return normal_p(float(np.mean(one * two)) * math.sqrt(len(one)))


def uniform_counts_p(counts: Sequence[int] | NDArray[np.int64]) -> float:
    """p-value of counts that should be equal but for chance (chi-square)."""
    seen = np.asarray(counts, dtype=np.float64)
    expected = seen.mean()
    return chi_square_upper_p(float(np.sum((seen - expected) ** 2) / expected), len(seen) - 1)


def least(p_values: Iterable[float]) -> float:
    """Return one p-value for several: the least, times their number (Bonferroni)."""
    several = [p if math.isfinite(p) else 0.0 for p in p_values]
    return min(1.0, len(several) * min(several))


def gamma_p(a: float, x: float) -> float:
    """Regularised lower incomplete gamma function. Source: Abramowitz & Stegun 6.5.29."""
    if not x > 0 or x >= a + 1.0:
        return 0.0 if x <= 0 else 1.0 - gamma_q(a, x)
    term = total = 1.0 / a
    for k in range(1, _TERMS):
        term *= x / (a + k)
        total += term
        if term < total * _CLOSE:
            break
    return total * _prefactor(a, x)


def gamma_q(a: float, x: float) -> float:
    """Regularised upper incomplete gamma function, by Lentz' continued fraction."""
    if not x >= a + 1.0:
        return 1.0 - gamma_p(a, x) if not math.isnan(x) else 0.0
    if math.isinf(x):
        return 0.0
    b = x + 1.0 - a
    c, d = 1.0 / _TINY, 1.0 / b
    fraction = d
    for k in range(1, _TERMS):
        weight = -k * (k - a)
        b += 2.0
        d = 1.0 / (weight * d + b or _TINY)
        c = b + weight / c or _TINY
        fraction *= c * d
        if abs(c * d - 1.0) < _CLOSE:
            break
    return fraction * _prefactor(a, x)


def _prefactor(a: float, x: float) -> float:
    """x^a e^-x / Gamma(a), by Stirling's series where its terms would cancel."""
    if a < 1000.0:  # noqa: PLR2004
        return math.exp(a * math.log(x) - x - math.lgamma(a))
    part = (x - a) / a
    exponent = a * (math.log1p(part) - part) - 1.0 / (12.0 * a)
    return math.sqrt(a / (2.0 * math.pi)) * math.exp(exponent) if exponent > -745.0 else 0.0  # noqa: PLR2004
