"""Events -> epsilon. PLD certifies a whole plan; RDP at one fixed order enforces it.

PLD of a plan that is fixed before round 1 is a valid certificate even if training stops early,
but no valid *filter*: whether one more release is allowed is decided by integer RDP costs at
the plan's order (Feldman & Zrnic 2021; Whitehouse et al. 2023).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache

from dp_accounting import dp_event
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from .events import PrivacyEvent

UNITS_PER_RDP = 10**9


def _gaussians(multipliers: Sequence[Fraction]) -> dp_event.DpEvent:
    return dp_event.ComposedDpEvent([dp_event.GaussianDpEvent(float(m)) for m in multipliers])


@lru_cache(maxsize=256)
def epsilon_pld(multipliers: tuple[Fraction, ...], target_delta: float) -> float:
    """Return the PLD epsilon of Gaussian releases with these noise multipliers [1]."""
    accountant = PLDAccountant()
    accountant.compose(_gaussians(multipliers))
    return float(accountant.get_epsilon(target_delta))


@lru_cache(maxsize=256)
def epsilon_rdp(multipliers: tuple[Fraction, ...], target_delta: float) -> float:
    """Return the RDP epsilon, best order, of Gaussian releases [1]."""
    accountant = RdpAccountant()
    accountant.compose(_gaussians(multipliers))
    return float(accountant.get_epsilon(target_delta))


def epsilon_gaussian(multipliers: tuple[Fraction, ...], target_delta: float) -> float:
    """Return the exact epsilon of unsampled Gaussian releases [1].

    Together they are one Gaussian of mu^2 = sum of 1 / multiplier^2 (Dong, Roth & Su 2022), for
    which Balle & Wang's curve is exact, at any size of epsilon.
    """
    mu = math.sqrt(sum(1 / multiplier**2 for multiplier in multipliers))
    low, high = 0.0, 1.0
    while gaussian_delta(high, mu) > target_delta:
        low, high = high, 2.0 * high
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_delta(middle, mu) > target_delta else (low, middle)
    return high


ACCOUNTANTS: Mapping[str, Callable[[tuple[Fraction, ...], float], float]] = {
    "gaussian": epsilon_gaussian,
    "pld": epsilon_pld,
    "rdp": epsilon_rdp,
}


def rdp_units(event: PrivacyEvent, order: Fraction) -> int:
    """Return the RDP cost of `event` at `order`, rounded up [1e-9 RDP].

    Exact: alpha * sens^2 / (2 * stddev^2) in rational arithmetic. Source: Mironov 2017, Prop. 7.
    """
    return math.ceil(UNITS_PER_RDP * order / (2 * event.noise_multiplier**2))


def gaussian_delta(epsilon: float, mu: float) -> float:
    """Delta of a mu-GDP mechanism at `epsilon` [probability]. Source: Balle & Wang 2018, Th. 8."""
    # erfc keeps its digits in the tail, where NormalDist.cdf = (1 + erf) / 2 has none left.
    tail = math.erfc((epsilon / mu + mu / 2) / math.sqrt(2)) / 2
    head = math.erfc((epsilon / mu - mu / 2) / math.sqrt(2)) / 2
    return head - (math.exp(epsilon + math.log(tail)) if tail else 0.0)
