"""From guesses to numbers: lower bounds on epsilon, error rates and how sure they are.

Formal guarantee of `one_run_bound`: if the mechanism is (epsilon, delta)-DP under adding or
removing one customer, the bound exceeds epsilon with a probability of at most 1 - confidence,
whatever the scores are made of. Which guesses are counted is fixed beforehand (`GUESSES`), and
the significance is divided among them and among the score functions.
"""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtr, ndtri
from scipy.stats import binom, rankdata

from fondaco.shared.calibration import gaussian_mu
from fondaco.shared.privacy.accountant import epsilon_bound
from fondaco.shared.privacy.events import Mechanism

Array = NDArray[np.float64]

MOST_EPSILON = 64.0
"""No bound is looked for above."""
_CLOSE = 1e-4


class Guesses(NamedTuple):
    """How many canaries are guessed: a share of them by the largest scores, by the smallest."""

    included: float
    excluded: float


GUESSES = (
    Guesses(0.15, 0.0),
    Guesses(0.05, 0.05),
    Guesses(0.1, 0.1),
    Guesses(0.2, 0.2),
    Guesses(0.3, 0.3),
)


class Guessed(NamedTuple):
    """Outcome of guessing which canaries took part."""

    n_canaries: int
    n_guesses: int
    n_correct: int


Bound = Callable[[Guessed, float, float, float], float]
"""(guessed, significance, delta, at_least) -> epsilon refuted at that significance, or
`at_least` where no larger one is."""


def guess(scores: Array, included: NDArray[np.bool_], guesses: Guesses) -> Guessed:
    """Return how many of the guesses are right.

    Args:
        scores: (n_canaries,) large for canaries that seem to have taken part.
        included: (n_canaries,) the coins.
        guesses: how many are guessed.
    """
    n_canaries = len(scores)
    order = np.argsort(-scores, kind="stable")
    n_top, n_bottom = (int(share * n_canaries) for share in guesses)
    top, bottom = order[:n_top], order[n_canaries - n_bottom :]
    correct = included[top].sum() + (~included[bottom]).sum()
    return Guessed(n_canaries, n_top + n_bottom, int(correct))


def one_run_p_value(guessed: Guessed, epsilon: float, delta: float) -> float:
    """Return the largest chance of so many right guesses under (epsilon, delta)-DP.

    Source: Steinke, Nasr & Jagielski 2023, Theorem 5.2.
    """
    n_canaries, n_guesses, n_correct = guessed
    chance = float(expit(epsilon))
    beta = float(binom.sf(n_correct - 1, n_guesses, chance))
    if delta == 0.0 or n_correct == 0:
        return min(beta, 1.0)
    fewer = np.arange(1, n_correct + 1)
    gains = (binom.sf(n_correct - fewer - 1, n_guesses, chance) - beta) / fewer
    return min(beta + 2.0 * n_canaries * delta * max(float(gains.max()), 0.0), 1.0)


def by_counts(guessed: Guessed, significance: float, delta: float, at_least: float) -> float:
    """Return the epsilon that the number of right guesses refutes; a `Bound`."""
    return _largest(
        lambda epsilon: one_run_p_value(guessed, epsilon, delta) <= significance, at_least
    )


def by_tradeoff(guessed: Guessed, significance: float, delta: float, at_least: float) -> float:
    """Return the epsilon at `delta` of the Gaussian mechanism that is refuted; a `Bound`.

    Stronger than `by_counts`: it holds the guesses against the whole trade-off curve of a
    mu-GDP mechanism, not against one point of it, so it bounds Gaussian mechanisms alone. A
    sampled one is covered: up to its own epsilon its delta stays below that of the unsampled
    Gaussian with the same epsilon at `delta` (a test holds that for the audited settings).

    Source: Mahloujifar, Melis & Chaudhuri 2024, Algorithm 3.
    """
    lowest = gaussian_mu(at_least, delta) if at_least else 0.0
    mu = _largest(lambda tried: _tradeoff_refuted(guessed, tried, significance), lowest)
    return at_least if mu == lowest else epsilon_of(mu, delta)


BOUNDS: Mapping[str, Bound] = {"one-run": by_counts, "one-run f-dp": by_tradeoff}


def one_run_bound(
    scores: Mapping[str, Array],
    included: NDArray[np.bool_],
    shares: Mapping[str, float],
    *,
    bound: Bound,
    delta: float,
    confidence: float = 0.95,
) -> float:
    """Return a lower bound on epsilon from one run with many canaries [1].

    Args:
        scores: score function -> (n_canaries,).
        included: (n_canaries,) independent fair coins.
        shares: score function -> its part of the significance; they sum to at most 1.
        bound: an entry of BOUNDS.
        delta: of the claim [probability].
        confidence: [probability].
    """
    best = 0.0
    for name, values in scores.items():
        each = (1.0 - confidence) * shares[name] / len(GUESSES)
        for guesses in GUESSES:
            best = bound(guess(values, included, guesses), each, delta, best)
    return best


def epsilon_of(mu: float, delta: float) -> float:
    """Return the epsilon of a mu-GDP mechanism at `delta` [1]."""
    return epsilon_bound((Mechanism(1 / Fraction(mu)),), delta)


def epsilon_of_normals(included: Array, excluded: Array, delta: float) -> float:
    """Return the epsilon of two normal laws of one spread, fitted to the canaries' statistics [1].

    One spread, because the tails at `delta` rest on it: two fitted ones err upwards.

    Args:
        included: (n_in,) statistics of the canaries that took part.
        excluded: (n_out,) of the others.
        delta: [probability].
    """
    spread = math.sqrt((float(included.var()) + float(excluded.var())) / 2)
    shift = max(float(included.mean() - excluded.mean()), 0.0)
    if shift >= MOST_EPSILON * spread:
        return MOST_EPSILON
    return min(epsilon_of(max(shift / spread, 1e-6), delta), MOST_EPSILON)


def auc(included: Array, excluded: Array) -> float:
    """Return the chance that an included one scores above an excluded one [probability]."""
    n_in, n_out = len(included), len(excluded)
    ranks = rankdata(np.concatenate([included, excluded]))
    return float((ranks[:n_in].sum() - n_in * (n_in + 1) / 2) / (n_in * n_out))


def tpr_at(included: Array, excluded: Array, fpr: float) -> float:
    """Return the share of included ones above the threshold that `fpr` of the others pass."""
    allowed = int(fpr * len(excluded))
    threshold = np.sort(excluded)[len(excluded) - 1 - allowed]
    return float((included > threshold).mean())


def _tradeoff_refuted(guessed: Guessed, mu: float, significance: float) -> bool:
    """Whether so many right guesses are too many for a mu-GDP mechanism."""
    n_canaries, n_guesses, n_correct = guessed
    right = significance * n_correct / n_canaries
    wrong = significance * (n_guesses - n_correct) / n_canaries
    for k in range(n_correct - 1, -1, -1):
        more = max(wrong, float(ndtr(ndtri(right) - mu)))
        if more == wrong:
            break
        right = min(right + k / (n_guesses - k) * (more - wrong), 1.0)
        wrong = more
        if right + wrong > n_guesses / n_canaries:
            return True
    return right + wrong > n_guesses / n_canaries


def _largest(refuted: Callable[[float], bool], at_least: float) -> float:
    """Return the largest value that is still refuted, `at_least` if that is not."""
    if not refuted(at_least):
        return at_least
    low, high = at_least, max(1.0, 2.0 * at_least)
    while refuted(high):
        if high >= MOST_EPSILON:
            return MOST_EPSILON
        low, high = high, min(2.0 * high, MOST_EPSILON)
    while high - low > _CLOSE and math.isfinite(high):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low
