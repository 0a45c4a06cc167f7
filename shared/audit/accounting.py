"""What a customer is charged: RDP and PLD side by side, by who is trusted and by how many silos.

A customer of k silos is in k releases that each silo noises alone (k-fold composition: sqrt(k)
for Gaussians), but k times in one sum that silos noise together (sensitivity k*C; where each
silo samples on its own, a mixture of Gaussians with Binomial(k, q) contributions).
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from dp_accounting import dp_event
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from ..errors import LedgerError
from ..privacy import accountant
from ..privacy.events import EVERYBODY, Mechanism

UNITS = 10**9
LARGEST_PLD = 100.0
"""Above this epsilon a PLD says nothing that is worth its time [1]."""
_AGREE, _BETWEEN_ORDERS = 1e-5, 1.0
_STEPS_PER_STDDEV, _TAIL_STDDEVS = 40, 14.0
_MOST_STEPS = 10_000_000


class Part(NamedTuple):
    """One mechanism as it meets a customer of `k` silos.

    Attributes:
        mechanism: what an accountant needs to know of it.
        k: silos the customer is in.
        shared: whether the k contributions meet in one noised sum.
    """

    mechanism: Mechanism
    k: int = 1
    shared: bool = False

    @property
    def is_sampled(self) -> bool:
        """Whether each customer takes part with a probability below one."""
        return self.mechanism.sampling_ppm != EVERYBODY

    @property
    def mu_squared(self) -> float:
        """Of an unsampled one: Gaussian differential privacy's mu, squared [1]."""
        times = self.k**2 if self.shared else self.k
        return times * self.mechanism.steps / float(self.mechanism.multiplier) ** 2


@lru_cache(maxsize=4096)
def cost_of(mechanism: Mechanism, order: Fraction) -> int:
    """Return what a mechanism takes from a budget at `order` [1e-9 RDP], rounded up.

    Unsampled: alpha * steps / (2 * multiplier^2), exactly (Mironov 2017, Proposition 7). Sampled:
    the figure that a plan's author computes, held against an integral of our own. Between two
    whole orders Google's accountant gives an upper bound, so it may be higher there.

    Raises:
        LedgerError: the two disagree; then no ledger can be judged.
    """
    if mechanism.sampling_ppm == EVERYBODY:
        return math.ceil(UNITS * order * mechanism.steps / (2 * mechanism.multiplier**2))
    units = accountant.rdp_units(mechanism, order)
    own = UNITS * sampled_rdp(mechanism, float(order))
    most = 1 + (_AGREE if order.denominator == 1 else _BETWEEN_ORDERS)
    if not own * (1 - _AGREE) - 1 <= units <= own * most + 5:
        raise LedgerError(f"accountants disagree on {mechanism}: {units} and {own:.1f} units")
    return units


def sampled_rdp(mechanism: Mechanism, order: float) -> float:
    """Return the Renyi divergence of a Poisson-sampled Gaussian [1], by the trapezoid rule.

    log E[((1 - q) + q * exp((2z - 1) / (2 s^2)))^alpha] / (alpha - 1) over z ~ N(0, s^2)
    (Mironov, Talwar & Zhang 2019, section 3.1); the integrand is analytic and decays at both
    ends, so the error falls exponentially with the step.

    Raises:
        LedgerError: there is so little noise that the integral would fill the memory.
    """
    q, s = mechanism.sampling_ppm / EVERYBODY, float(mechanism.multiplier)
    if q == 1.0:
        return order * mechanism.steps / (2 * s**2)
    low, high = -_TAIL_STDDEVS * s, order + _TAIL_STDDEVS * s
    step = min(s, s * s) / _STEPS_PER_STDDEV
    if (high - low) / step > _MOST_STEPS:
        raise LedgerError(f"noise of {s:g} sensitivities at order {order:g} is beyond an integral")
    z = np.linspace(low, high, 2 + int((high - low) / step))
    ratio = np.logaddexp(math.log1p(-q), math.log(q) + (2 * z - 1) / (2 * s**2))
    logs = order * ratio - z**2 / (2 * s**2) - math.log(s * math.sqrt(2 * math.pi))
    peak = float(logs.max())
    total = float(np.exp(logs - peak).sum()) * float(z[1] - z[0])
    return mechanism.steps * (peak + math.log(total)) / (order - 1)


def epsilon_of_units(units: int, order: Fraction, delta: float) -> float:
    """Return the epsilon of `units` [1e-9 RDP] at `order` [1]. Source: Canonne et al. 2020."""
    alpha = float(order)
    rest = math.log1p(-1.0 / alpha) - math.log(delta * alpha) / (alpha - 1.0)
    return max(units / UNITS + rest, 0.0)


def exact_gaussian(mu: float, delta: float) -> float:
    """Return epsilon of a mu-GDP mechanism [1]. Source: Balle & Wang 2018, Theorem 8."""
    low, high = 0.0, 1.0
    while _gaussian_delta(high, mu) > delta:
        low, high = high, 2.0 * high
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _gaussian_delta(middle, mu) > delta else (low, middle)
    return high


def _gaussian_delta(epsilon: float, mu: float) -> float:
    tail = math.erfc((epsilon / mu + mu / 2) / math.sqrt(2)) / 2
    head = math.erfc((epsilon / mu - mu / 2) / math.sqrt(2)) / 2
    return head - (math.exp(epsilon + math.log(tail)) if tail else 0.0)


def tight_epsilon(parts: Iterable[Part], delta: float) -> float | None:
    """Return the tightest epsilon we know: exact where nobody is sampled, else by PLD [1].

    None where it is so large that a PLD would not help.
    """
    key = tuple(sorted(parts))
    if not any(part.is_sampled for part in key):
        return exact_gaussian(math.sqrt(sum(p.mu_squared for p in key)), delta) if key else 0.0
    return _pld(key, delta)


@lru_cache(maxsize=256)
def _pld(parts: tuple[Part, ...], delta: float) -> float | None:
    rough = rdp_epsilon([part._replace(k=1) for part in parts], delta)
    if rough is not None and rough > LARGEST_PLD:
        return None
    accounts = PLDAccountant(value_discretization_interval=1e-3)
    accounts.compose(_event(parts))
    return float(accounts.get_epsilon(delta))


def rdp_epsilon(parts: Iterable[Part], delta: float) -> float | None:
    """Return epsilon by RDP at its best order [1]; None where no RDP of a part is known."""
    return _rdp(tuple(sorted(parts)), delta)


@lru_cache(maxsize=256)
def _rdp(parts: tuple[Part, ...], delta: float) -> float | None:
    if any(part.is_sampled and part.shared and part.k > 1 for part in parts):
        return None
    accounts = RdpAccountant()
    accounts.compose(_event(parts))
    return float(accounts.get_epsilon(delta))


def _event(parts: Sequence[Part]) -> dp_event.DpEvent:
    """Return the parts for `dp_accounting`: Gaussians joined into one, equal ones counted."""
    times: Counter[Part] = Counter()
    for part in parts:
        times[part._replace(mechanism=part.mechanism._replace(steps=1))] += part.mechanism.steps
    mu_squared = sum(part.mu_squared for part in parts if not part.is_sampled)
    events: list[dp_event.DpEvent] = []
    if mu_squared:
        events.append(dp_event.GaussianDpEvent(1.0 / math.sqrt(mu_squared)))
    for part, count in times.items():
        if part.is_sampled:
            repeats = count if part.shared else count * part.k
            events.append(dp_event.SelfComposedDpEvent(_sampled_event(part), repeats))
    return dp_event.ComposedDpEvent(events)


def _sampled_event(part: Part) -> dp_event.DpEvent:
    q, stddev = part.mechanism.sampling_ppm / EVERYBODY, float(part.mechanism.multiplier)
    if not part.shared or part.k == 1:
        return dp_event.PoissonSampledDpEvent(q, dp_event.GaussianDpEvent(stddev))
    chances = [math.comb(part.k, i) * q**i * (1 - q) ** (part.k - i) for i in range(part.k + 1)]
    return dp_event.MixtureOfGaussiansDpEvent(stddev, list(range(part.k + 1)), chances)
