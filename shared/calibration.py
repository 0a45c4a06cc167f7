"""How much noise a plan needs for its epsilon.

Outside of the trusted core: a `RunPlan` checks its own cost and noise when it is made, so who
calibrated it need not be trusted.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from dp_accounting import dp_event
from dp_accounting.rdp import RdpAccountant

from .errors import ConfigError
from .privacy import accountant
from .privacy.events import PrivacyEvent
from .privacy.plan import GRID, SHARES_TOTAL, Cohort, RunPlan, Trust


@dataclass(frozen=True, kw_only=True)
class Statistic:
    """A sum that the plan wants released: its name, its part of the budget, its length."""

    kind: str
    share_ppm: int
    dim: int


def plan_releases(
    statistics: Sequence[Statistic],
    *,
    epsilon: float,
    target_delta: float,
    cohort: Cohort,
    trust: Trust,
    grid: int = GRID,
) -> tuple[PrivacyEvent, ...]:
    """Return one release per statistic, in rounds 1, 2, ..., that together cost `epsilon`.

    A release with share s gets the noise multiplier 1 / (mu sqrt(s)), rounded up to the grid.

    Raises:
        ConfigError: a share is not positive, or epsilon or delta is out of range.
    """
    if any(s.share_ppm <= 0 for s in statistics):
        raise ConfigError("every release needs a positive share of the budget")

    def stddevs(mu: float) -> list[int]:
        parts = (s.share_ppm / SHARES_TOTAL for s in statistics)
        return [math.ceil(grid / (mu * math.sqrt(part))) for part in parts]

    mu = calibrate(
        epsilon, target_delta, lambda mu: tuple(Fraction(stddev, grid) for stddev in stddevs(mu))
    )
    return tuple(
        PrivacyEvent(
            kind=statistic.kind,
            round_num=round_num,
            share_ppm=statistic.share_ppm,
            dim=statistic.dim,
            sens_grid=grid,
            stddev_grid=stddev,
            silo_stddev_grid=cohort.silo_stddev(stddev, trust),
        )
        for round_num, (statistic, stddev) in enumerate(
            zip(statistics, stddevs(mu), strict=True), start=1
        )
    )


def filter_budget(releases: Sequence[PrivacyEvent], target_delta: float) -> tuple[str, int]:
    """Return the filter's order as text and the plan's own cost at it [1e-9 RDP]."""
    order = _best_order([event.noise_multiplier for event in releases], target_delta)
    return str(order), sum(accountant.rdp_units(event, order) for event in releases)


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
    epsilon: float, target_delta: float, multipliers: Callable[[float], tuple[Fraction, ...]]
) -> float:
    """Return the largest mu found whose releases cost at most `epsilon` by PLD [1].

    Starts at the exact Gaussian mu and steps down by the ratio of target and PLD, because PLD's
    discretisation overestimates by about 1e-4.

    Args:
        epsilon: target of the whole plan [1].
        target_delta: [probability].
        multipliers: mu -> noise multipliers of all releases of the plan.

    Raises:
        ConfigError: no mu was found, or an argument is outside of its range.
    """
    mu = gaussian_mu(epsilon, target_delta)
    for _ in range(20):
        spent = accountant.epsilon_pld(multipliers(mu), target_delta)
        if spent <= epsilon:
            return mu
        mu *= epsilon / spent
    raise ConfigError(f"no noise found for {epsilon=} at {target_delta=}")


def epsilon_in_silos(plan: RunPlan, n_silos: int) -> float:
    """Return the epsilon of a customer whose rows lie in `n_silos` silos [1].

    In one shared sum the contributions add up: sensitivity n_silos * C. Silos that add all
    noise themselves are separate releases: sqrt(n_silos) * C.
    """
    factor = n_silos if plan.trust == "aggregate" else Fraction(math.sqrt(n_silos))
    multipliers = tuple(multiplier / factor for multiplier in plan.multipliers)
    return accountant.epsilon_gaussian(multipliers, float(plan.target_delta))


def _best_order(multipliers: Sequence[Fraction], target_delta: float) -> Fraction:
    """Return the Renyi order at which these releases are cheapest [1]."""
    rdp = RdpAccountant()
    for multiplier in multipliers:
        rdp.compose(dp_event.GaussianDpEvent(float(multiplier)))
    order = rdp.get_epsilon_and_optimal_order(target_delta)[1]
    return Fraction(str(float(order)))
