"""Events -> epsilon. PLD certifies a whole plan; RDP at one fixed order enforces it.

PLD of a plan that is fixed before round 1 is a valid certificate even if training stops early,
but no valid *filter*: whether one more release is allowed is decided by integer RDP costs at
the plan's order (Feldman & Zrnic 2021; Whitehouse et al. 2023).
"""

import math
from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache

from dp_accounting import dp_event
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from ..errors import ConfigError
from .events import EVERYBODY, Mechanism

UNITS_PER_RDP = 10**9
SIDE_DELTA = 1e-12
"""At this delta Google's RDP epsilon of one order is turned back into RDP [probability]."""


def as_dp_event(mechanisms: Iterable[Mechanism]) -> dp_event.DpEvent:
    """Return the mechanisms for `dp_accounting`, equal ones counted.

    All unsampled ones are joined into one exactly: together they are a Gaussian of
    mu^2 = sum of steps / multiplier^2 (Dong, Roth & Su 2022, Corollary 3.3).
    """
    parts: list[dp_event.DpEvent] = []
    mechanisms = tuple(mechanisms)
    mu = _joint_mu(m for m in mechanisms if m.sampling_ppm == EVERYBODY)
    if mu:
        parts.append(dp_event.GaussianDpEvent(1.0 / mu))
    times: Counter[tuple[Fraction, int]] = Counter()
    for multiplier, sampling_ppm, steps in mechanisms:
        if sampling_ppm != EVERYBODY:
            times[multiplier, sampling_ppm] += steps
    for (multiplier, sampling_ppm), steps in times.items():
        noisy = dp_event.GaussianDpEvent(float(multiplier))
        sampled = dp_event.PoissonSampledDpEvent(sampling_ppm / EVERYBODY, noisy)
        parts.append(dp_event.SelfComposedDpEvent(sampled, steps))
    return dp_event.ComposedDpEvent(parts)


@lru_cache(maxsize=256)
def epsilon_pld(mechanisms: tuple[Mechanism, ...], target_delta: float) -> float:
    """Return the PLD epsilon, adding or removing one customer [1]."""
    sampled = any(m.sampling_ppm != EVERYBODY for m in mechanisms)
    accountant = PLDAccountant(value_discretization_interval=1e-3 if sampled else 1e-4)
    accountant.compose(as_dp_event(mechanisms))
    return float(accountant.get_epsilon(target_delta))


@lru_cache(maxsize=256)
def epsilon_rdp(mechanisms: tuple[Mechanism, ...], target_delta: float) -> float:
    """Return the RDP epsilon at its best order [1]."""
    accountant = RdpAccountant()
    accountant.compose(as_dp_event(mechanisms))
    return float(accountant.get_epsilon(target_delta))


def epsilon_bound(mechanisms: tuple[Mechanism, ...], target_delta: float) -> float:
    """Return a bound for side figures: exact where nobody is sampled, else by RDP [1].

    Balle & Wang's curve is exact at any size of epsilon and needs no discretisation.
    """
    if any(m.sampling_ppm != EVERYBODY for m in mechanisms):
        return epsilon_rdp(mechanisms, target_delta)
    mu = _joint_mu(mechanisms)
    low, high = 0.0, 1.0
    while gaussian_delta(high, mu) > target_delta:
        low, high = high, 2.0 * high
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_delta(middle, mu) > target_delta else (low, middle)
    return high


@lru_cache(maxsize=1024)
def rdp_units(mechanism: Mechanism, order: Fraction) -> int:
    """Return the cost of `mechanism` at `order`, rounded up [1e-9 RDP].

    Unsampled: alpha * sens^2 / (2 * stddev^2), in rational arithmetic (Mironov 2017, Prop. 7).
    Sampled: Google's Poisson-subsampled Gaussian, read back from its epsilon at that order.
    """
    if mechanism.sampling_ppm == EVERYBODY:
        gaussian = order * mechanism.steps / (2 * mechanism.multiplier**2)
        return math.ceil(UNITS_PER_RDP * gaussian)
    alpha = float(order)
    accountant = RdpAccountant([alpha])
    accountant.compose(as_dp_event([mechanism]))
    rest = math.log1p(-1.0 / alpha) - math.log(SIDE_DELTA * alpha) / (alpha - 1.0)
    rdp = max(float(accountant.get_epsilon(SIDE_DELTA)) - rest, 0.0)
    if not math.isfinite(rdp):
        raise ConfigError(f"order {order} is too small for sampled releases")
    return math.ceil(UNITS_PER_RDP * rdp * (1.0 + 1e-9)) + 1


def epsilon_at(units: int, order: Fraction, target_delta: float) -> float:
    """Return the epsilon of `units` [1e-9 RDP] at `order` [1]. Source: Canonne et al. 2020."""
    alpha = float(order)
    rest = math.log1p(-1.0 / alpha) - math.log(target_delta * alpha) / (alpha - 1.0)
    return max(units / UNITS_PER_RDP + rest, 0.0)


def gaussian_delta(epsilon: float, mu: float) -> float:
    """Delta of a mu-GDP mechanism at `epsilon` [probability]. Source: Balle & Wang 2018, Th. 8."""
    # erfc keeps its digits in the tail, where NormalDist.cdf = (1 + erf) / 2 has none left.
    tail = math.erfc((epsilon / mu + mu / 2) / math.sqrt(2)) / 2
    head = math.erfc((epsilon / mu - mu / 2) / math.sqrt(2)) / 2
    return head - (math.exp(epsilon + math.log(tail)) if tail else 0.0)


def _joint_mu(mechanisms: Iterable[Mechanism]) -> float:
    return math.sqrt(sum(m.steps / m.multiplier**2 for m in mechanisms))
