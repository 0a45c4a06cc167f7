"""How much noise a plan needs for its epsilon.

Outside of the trusted core: a `RunPlan` checks its own cost and noise when it is made, so who
calibrated it need not be trusted.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from dp_accounting.rdp import RdpAccountant

from .errors import ConfigError
from .privacy import accountant
from .privacy.events import EVERYBODY, Mechanism, PrivacyEvent
from .privacy.plan import GRID, Cohort, RunPlan, Trust

CLOSE = 0.999
"""A calibrated plan costs at least this part of its target."""
MAX_TRIES = 40


@dataclass(frozen=True, kw_only=True)
class Statistic:
    """A sum that the plan wants released, once or in several rounds.

    Attributes:
        share: its part of the budget (of mu squared), relative to the others'.
        dim: numbers released.
        rounds: federated rounds.
        sampling_ppm: Poisson probability that a customer takes part [parts per million].
        steps: noisy local steps in each round.
    """

    kind: str
    share: float
    dim: int
    rounds: int = 1
    sampling_ppm: int = EVERYBODY
    steps: int = 1

    def multiplier(self, mu: float) -> float:
        """Return the noise multiplier that spends about mu^2 on all of its rounds [1].

        Exact without sampling; with it by the central limit theorem of Bu et al. 2020, which
        is close enough to divide by: what the whole costs is held against PLD afterwards.
        """
        each = mu**2 / (self.rounds * self.steps)
        rate = self.sampling_ppm / EVERYBODY
        squared = each if rate == 1.0 else math.log1p(each / rate**2)
        return 1.0 / math.sqrt(squared)


def plan_releases(
    statistics: Sequence[Statistic],
    *,
    epsilon: float,
    target_delta: float,
    cohort: Cohort,
    trust: Trust,
    grid: int = GRID,
    earlier: Sequence[PrivacyEvent] = (),
) -> tuple[PrivacyEvent, ...]:
    """Return the releases of all statistics, one after another, that together cost `epsilon`.

    Args:
        statistics: in the order of their rounds.
        epsilon: of everything, `earlier` included [1].
        target_delta: [probability].
        cohort: who shares the noise.
        trust: whether it is shared.
        grid: grid units per unit of a customer's clipped contribution.
        earlier: releases of earlier plans about the same customers.

    Raises:
        ConfigError: a share is not positive, epsilon or delta is out of range, or `earlier`
            leaves nothing.
    """
    if any(not s.share > 0 for s in statistics):
        raise ConfigError("every release needs a positive share of the budget")
    total = sum(s.share for s in statistics)
    spent = tuple(event.joint for event in earlier)

    def stddev(statistic: Statistic, mu: float) -> int:
        return math.ceil(grid * statistic.multiplier(mu * math.sqrt(statistic.share / total)))

    def mechanisms(mu: float) -> tuple[Mechanism, ...]:
        return spent + tuple(
            Mechanism(Fraction(stddev(s, mu), grid), s.sampling_ppm, s.rounds * s.steps)
            for s in statistics
        )

    mu = calibrate(epsilon, target_delta, mechanisms, _left(epsilon, target_delta, spent))
    each = [(s, stddev(s, mu)) for s in statistics for _ in range(s.rounds)]
    return tuple(
        PrivacyEvent(
            kind=statistic.kind,
            round_num=round_num,
            dim=statistic.dim,
            sens_grid=grid,
            stddev_grid=noise,
            silo_stddev_grid=cohort.silo_stddev(noise, trust),
            sampling_ppm=statistic.sampling_ppm,
            steps=statistic.steps,
        )
        for round_num, (statistic, noise) in enumerate(each, start=1)
    )


def _left(epsilon: float, target_delta: float, spent: tuple[Mechanism, ...]) -> float:
    """Return about how much mu `spent` leaves of `epsilon` [1]."""
    whole = gaussian_mu(epsilon, target_delta)
    if not spent:
        return whole
    gone = accountant.epsilon_pld(spent, target_delta)
    if gone >= epsilon:
        raise ConfigError(f"{gone:.3f} of {epsilon=} was spent before; nothing is left")
    return math.sqrt(whole**2 - gaussian_mu(gone, target_delta) ** 2)


def filter_budget(releases: Sequence[PrivacyEvent], target_delta: float) -> tuple[str, int]:
    """Return the filter's order as text and the plan's own cost at it [1e-9 RDP]."""
    order = _best_order(tuple(event.joint for event in releases), target_delta)
    return str(order), sum(accountant.rdp_units(event.joint, order) for event in releases)


def gaussian_mu(epsilon: float, target_delta: float) -> float:
    """Return mu such that a mu-GDP mechanism is exactly (epsilon, target_delta)-DP [1].

    Raises:
        ConfigError: epsilon or target_delta is outside of its range.

    Source: Balle & Wang 2018, Theorem 8, solved by bisection.
    """
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise ConfigError(f"{epsilon=} must be a finite number > 0")
    if not 0 < target_delta < 1:
        raise ConfigError(f"{target_delta=} must lie between 0 and 1")
    low, high = 1e-6, 1e3
    for _ in range(200):
        mu = math.sqrt(low * high)
        low, high = (
            (mu, high) if accountant.gaussian_delta(epsilon, mu) <= target_delta else (low, mu)
        )
    return low


def calibrate(
    epsilon: float,
    target_delta: float,
    mechanisms: Callable[[float], tuple[Mechanism, ...]],
    start: float,
) -> float:
    """Return the largest mu found whose releases cost at most `epsilon` by PLD [1].

    Starts at the Gaussian mu, which is exact where nobody is sampled, and then halves the
    bracket of what is affordable and what is not; the discretisation overestimates by about 1e-4.

    Args:
        epsilon: target of the whole plan [1].
        target_delta: [probability].
        mechanisms: mu -> everything that the customers are charged for.
        start: first mu tried [1].

    Raises:
        ConfigError: no mu was found.
    """
    low, high, mu = 0.0, math.inf, start
    for _ in range(MAX_TRIES):
        spent = accountant.epsilon_pld(mechanisms(mu), target_delta)
        if CLOSE * epsilon <= spent <= epsilon:
            return mu
        low, high = (mu, high) if spent <= epsilon else (low, mu)
        if low and math.isfinite(high):
            mu = math.sqrt(low * high)
        else:
            mu *= min(epsilon / spent, 0.99) if spent > epsilon else max(epsilon / spent, 1.01)
    if not low:
        raise ConfigError(f"no noise found for {epsilon=} at {target_delta=}")
    return low


def epsilon_in_silos(plan: RunPlan, n_silos: int) -> float:
    """Return the epsilon of a customer whose rows lie in `n_silos` silos [1].

    In one shared sum the contributions add up: sensitivity n_silos * C, and sampling is not
    counted on. Silos that add all noise themselves are separate releases.
    """
    if n_silos == 1:
        return plan.epsilons()["epsilon"]
    if plan.trust == "silo":
        several = tuple(m._replace(steps=m.steps * n_silos) for m in plan.mechanisms)
    else:
        several = tuple(Mechanism(m.multiplier / n_silos, steps=m.steps) for m in plan.mechanisms)
    return accountant.epsilon_bound(several, float(plan.target_delta))


def _best_order(mechanisms: Sequence[Mechanism], target_delta: float) -> Fraction:
    """Return the Renyi order at which these releases are cheapest [1]."""
    rdp = RdpAccountant()
    rdp.compose(accountant.as_dp_event(mechanisms))
    order = rdp.get_epsilon_and_optimal_order(target_delta)[1]
    return Fraction(str(float(order)))
