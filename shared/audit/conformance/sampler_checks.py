"""Is everybody drawn by an independent coin of the planned probability, afresh each time?"""

import numpy as np

from ...privacy.clipping import ClippedSum
from ...privacy.events import EVERYBODY
from ...privacy.gradients import Factors
from ...privacy.noise import Sample
from ...privacy.plan import GRID
from . import pvalues
from .probe import ASKED, N_ITEMS, Array, Ints, Outcome, Probe, works

_RATES = (50_000, 500_000)
_N_USERS = 2000


def check_frequency(probe: Probe) -> Outcome:
    """How often each customer is drawn, and whether some are drawn more often than others."""
    several, seen = [], 0.0
    for ppm in _RATES:
        scores = _coins(probe, ppm)
        several.append(pvalues.normal_p(float(scores.sum()) / scores.size**0.5))
        several.append(_chi_square_of_sums(scores, axis=0))
        blocks = scores.reshape(len(scores), 20, -1).sum(axis=2)
        several.append(_chi_square_of_sums(blocks / (scores.shape[1] / 20) ** 0.5, axis=0))
        seen = float(scores.mean())
    detail = f"{_N_USERS} customers at rates {_RATES} ppm; last mean score {seen:+.4f}"
    return Outcome(p_value=pvalues.least(several), statistic=min(several), detail=detail)


def check_sizes(probe: Probe) -> Outcome:
    """The size of a sample must vary as a Poisson sample's does; fixed batches do not."""
    several, ratio = [], 0.0
    for ppm in _RATES:
        sizes = _coins(probe, ppm).sum(axis=1) / _N_USERS**0.5
        several.append(pvalues.chi_square_p(float(np.sum(sizes**2)), len(sizes)))
        ratio = float(np.mean(sizes**2))
    detail = f"variance of sizes {ratio:.3f} of the binomial one"
    return Outcome(p_value=pvalues.least(several), statistic=ratio, detail=detail)


def check_independence(probe: Probe) -> Outcome:
    """Neighbours in one round, and one customer in consecutive rounds."""
    several = []
    for ppm in _RATES:
        scores = _coins(probe, ppm)
        for lag in (1, 2, 7):
            several.append(pvalues.correlation_p(scores[:, lag:].ravel(), scores[:, :-lag].ravel()))
            several.append(pvalues.correlation_p(scores[lag:].ravel(), scores[:-lag].ravel()))
    detail = f"{len(several)} correlations of coins"
    return Outcome(p_value=pvalues.least(several), statistic=min(several), detail=detail)


def check_reuse(probe: Probe) -> Outcome:
    """A sample serves one release; only those drawn may be added, each once."""
    plan, faults = probe.sampled_plan, []
    ledger = probe.ledger(plan, "reuse")
    stream = probe.stream("reuse")
    sample = stream.sample(100, plan.event_for("sampled", 3).sampling_ppm)
    first, second = (ledger.debit("sampled", num, request=ASKED) for num in (3, 4))
    one, two = (probe.core.gradient_sum(N_ITEMS, 1.0, GRID, sample).total() for _ in range(2))
    probe.core.release_sum(one, first, stream)
    if works(lambda: probe.core.release_sum(two, second, stream)):
        faults.append("one sample served two releases")
    absent = np.setdiff1d(np.arange(100), sample.user_nums)[:1]
    if works(lambda: _add(probe, sample, absent)):
        faults.append("a customer was added who was not drawn")
    twice = np.repeat(sample.user_nums[:1], 2)
    if works(lambda: _add(probe, sample, twice)):
        faults.append("a customer was added twice in one batch")
    total = probe.core.gradient_sum(1, 1.0, GRID, sample)
    total.add(sample.user_nums[:1], [_ones(probe, 1)])
    if works(lambda: total.add(sample.user_nums[:1], [_ones(probe, 1)])):
        faults.append("a customer was added in two batches")
    if works(lambda: _steps_of_one_sample(probe)):
        faults.append("local steps were computed from another sample than was drawn")
    everybody = probe.stream("all").sample(50, EVERYBODY).user_nums
    if everybody.tolist() != list(range(50)):
        faults.append("a sample of everybody is not everybody")
    return Outcome(statistic=float(len(faults)), faults=tuple(faults), detail="seven attempts")


def _steps_of_one_sample(probe: Probe) -> None:
    """Take local steps that all use the customers of the first."""
    samples: list[Sample] = []

    def gradient(parameters: Array, sample: Sample) -> ClippedSum:
        samples.append(sample)
        return probe.core.gradient_sum(len(parameters), 1.0, GRID, samples[0]).total()

    debit = probe.ledger(probe.sampled_plan, "reuse").debit("steps", 1, request=ASKED)
    start, stream = np.zeros(debit.event.dim), probe.stream("one sample")
    probe.core.release_moves(start, gradient, lambda p, noisy: p, debit, stream, n_users=50)


def _coins(probe: Probe, ppm: int) -> Array:
    """(n_rounds, _N_USERS) whether each was drawn, standardised; successive draws of a stream."""
    stream, rate = probe.stream("coins", str(ppm)), ppm / EVERYBODY
    coins = np.zeros((150 if probe.quick else 1000, _N_USERS))
    for drawn in coins:
        drawn[stream.sample(_N_USERS, ppm).user_nums] = 1.0
    return np.asarray((coins - rate) / (rate * (1.0 - rate)) ** 0.5)


def _chi_square_of_sums(scores: Array, axis: int) -> float:
    sums = scores.sum(axis=axis) / scores.shape[axis] ** 0.5
    return pvalues.chi_square_p(float(np.sum(sums**2)), len(sums))


def _ones(probe: Probe, n_users: int) -> Factors:
    ones = np.ones((n_users, 1, 1))
    return probe.core.factors(deltas=ones, inputs=ones)


def _add(probe: Probe, sample: Sample, users: Ints) -> None:
    probe.core.gradient_sum(1, 1.0, GRID, sample).add(users, [_ones(probe, len(users))])
