"""Do the accountants tell the truth? Held against formulas written down here once more."""

import math
from collections.abc import Callable
from fractions import Fraction

from ...privacy.events import EVERYBODY, Mechanism
from .probe import Outcome, Probe

UNITS = 10**9
_CLOSE = 1e-3
_GOLDEN = (
    # multiplier, ppm, steps, delta, epsilon by Opacus' PRV accountant (error 0.01)
    (Fraction(11, 10), 10_000, 1000, 1e-6, 1.763),
    (Fraction(2), 50_000, 500, 1e-6, 2.883),
    (Fraction(4, 5), 20_000, 2000, 1e-6, 10.296),
)
_UNSAMPLED = ((Fraction(1), 1, 1e-5), (Fraction(4), 100, 1e-6), (Fraction(11, 2), 3, 1e-6))


def check_gaussian(probe: Probe) -> Outcome:
    """Epsilon of unsampled Gaussians against Balle & Wang's exact curve."""
    faults, worst = [], 0.0
    for multiplier, steps, delta in _UNSAMPLED[: 2 if probe.quick else 3]:
        several = (Mechanism(multiplier, EVERYBODY, steps),)
        exact = gaussian_epsilon(math.sqrt(steps) / float(multiplier), delta)
        told = (probe.core.epsilon_bound(several, delta), probe.core.epsilon_pld(several, delta))
        worst = max(worst, *(abs(value - exact) for value in told))
        if min(told) < exact - 1e-6 or worst > _CLOSE:
            faults.append(f"sigma {multiplier}, {steps} steps: {told}, exactly {exact:.6f}")
        if probe.core.epsilon_rdp(several, delta) < exact:
            faults.append(f"sigma {multiplier}, {steps} steps: RDP tells less than the truth")
    return Outcome(statistic=worst, faults=tuple(faults), detail=f"within {worst:.1e} of the curve")


def check_sampled(probe: Probe) -> Outcome:
    """Epsilon of Poisson samples against figures of another accountant."""
    faults, worst = [], 0.0
    for multiplier, ppm, steps, delta, golden in _GOLDEN:
        several = (Mechanism(multiplier, ppm, steps // 2),) * 2
        pld, rdp = probe.core.epsilon_pld(several, delta), probe.core.epsilon_rdp(several, delta)
        worst = max(worst, abs(pld - golden))
        if abs(pld - golden) > 0.02 or pld > rdp:  # noqa: PLR2004
            faults.append(f"{several[0]}: PLD {pld:.3f}, RDP {rdp:.3f}, PRV {golden}")
    return Outcome(statistic=worst, faults=tuple(faults), detail=f"within {worst:.3f} of PRV")


def check_units(probe: Probe) -> Outcome:
    """Integer costs: never below the exact cost, at most a millionth and two units above."""
    faults, n_cases = [], 0
    for order in (Fraction(2), Fraction(8), Fraction("8.2"), Fraction(32)):
        for ppm in (EVERYBODY, 500_000, 50_000, 1000):
            for multiplier in (Fraction(3, 2), Fraction(2**21 + 1, 2**20), Fraction(9)):
                for steps in (1, 7, 530):
                    if ppm != EVERYBODY and order.denominator != 1:
                        continue
                    one = Mechanism(multiplier, ppm, steps)
                    exact, told = exact_units(one, order), probe.core.rdp_units(one, order)
                    n_cases += 1
                    if not exact * (1 - 1e-12) <= told <= exact * (1 + 1e-6) + 2:
                        faults.append(f"{one} at order {order}: {told}, exactly {float(exact):.1f}")
    example = probe.core.rdp_units(Mechanism(Fraction(2), 50_000), Fraction("8.2"))
    if example != 3_210_683 + 1:  # rounded up once more, for floats below it
        faults.append(f"the example of the design costs {example} units")
    return Outcome(
        statistic=float(len(faults)), faults=tuple(faults[:5]), detail=f"{n_cases} costs"
    )


def check_conversion(probe: Probe) -> Outcome:
    """Spent units turned back into epsilon: never below the exact curve of a Gaussian."""
    faults = []
    for multiplier, delta in ((1.0, 1e-5), (3.0, 1e-6), (10.0, 1e-9)):
        exact = gaussian_epsilon(1.0 / multiplier, delta)
        orders = [Fraction(num, 4) for num in range(5, 1200)]
        told = min(
            probe.core.epsilon_at(
                math.ceil(UNITS * order / (2 * Fraction(multiplier) ** 2)), order, delta
            )
            for order in orders
        )
        if not exact <= told <= 1.15 * exact + 0.05:
            faults.append(f"sigma {multiplier} at delta {delta}: {told:.4f}, exactly {exact:.4f}")
    return Outcome(statistic=float(len(faults)), faults=tuple(faults), detail="three Gaussians")


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Epsilon of a mu-GDP mechanism [1]. Source: Balle & Wang 2018, Theorem 8, by bisection."""

    def excess(epsilon: float) -> float:
        head = math.erfc((epsilon / mu - mu / 2) / math.sqrt(2)) / 2
        tail = math.erfc((epsilon / mu + mu / 2) / math.sqrt(2)) / 2
        return head - (math.exp(epsilon + math.log(tail)) if tail else 0.0) - delta

    return _root(excess, 0.0, mu**2 / 2 + 40.0 * mu + 40.0)


def mechanism_units(mechanism: Mechanism, order: Fraction) -> int:
    """Least whole cost of `mechanism` [1e-9 RDP].

    At a fractional order of a sampled mechanism the cost of the whole order below: a lower
    bound, since RDP grows with the order.
    """
    if mechanism.sampling_ppm == EVERYBODY:
        return math.ceil(exact_units(mechanism, order))
    return math.floor(exact_units(mechanism, Fraction(math.floor(order))))


def exact_units(mechanism: Mechanism, order: Fraction) -> Fraction:
    """Cost of `mechanism` [1e-9 RDP]; of a sampled one at whole orders only.

    Source: Mironov 2017, Proposition 7; Mironov, Talwar & Zhang 2019, Section 3.3.
    """
    multiplier, ppm, steps = mechanism
    if ppm == EVERYBODY:
        return UNITS * order * steps / (2 * multiplier**2)
    alpha, rate, variance = int(order), ppm / EVERYBODY, float(multiplier) ** 2
    terms = [
        math.lgamma(alpha + 1)
        - math.lgamma(k + 1)
        - math.lgamma(alpha - k + 1)
        + (alpha - k) * math.log1p(-rate)
        + k * math.log(rate)
        + (k * k - k) / (2 * variance)
        for k in range(alpha + 1)
    ]
    top = max(terms)
    # Near 1 the sum's digits are in its excess over the binomial sum, which is 1.
    excess = (
        math.fsum(
            math.exp(term) * -math.expm1(-(k * k - k) / (2 * variance))
            for k, term in enumerate(terms)
        )
        if top < 1.0
        else math.fsum(math.exp(term) for term in terms) - 1.0
    )
    return Fraction(UNITS * steps * math.log1p(excess) / (alpha - 1))


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function crosses 0."""
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) > 0 else (low, middle)
    return high
