"""The owner's limits: from what a person types to a `Policy`."""

from fractions import Fraction

from fondaco.shared.errors import ConfigError
from fondaco.shared.privacy.accountant import UNITS_PER_RDP, epsilon_at
from fondaco.shared.privacy.plan import RunPlan
from fondaco.shared.privacy.policy import Policy

DELTA = 1e-5
MASKING_CAP = "epsilon_if_masking_broke"
"""Public fact of a simulated plan: what its owners allow if masking broke."""
ORDERS = tuple(range(2, 257))


def new_policy(
    known: Policy | None,
    epsilon_per_year: float | None,
    epsilon_if_masking_broke: float | None,
    target_delta: float | None,
) -> Policy:
    """Return the limits in force changed by those that are given.

    Raises:
        ConfigError: a first policy lacks one of its two limits, or a limit is out of range.
    """
    year = repr(epsilon_per_year) if epsilon_per_year else known and known.epsilon_per_year
    broke = known and known.epsilon_if_masking_broke
    broke = repr(epsilon_if_masking_broke) if epsilon_if_masking_broke else broke
    if not (year and broke):
        raise ConfigError("set both --epsilon-per-year and --epsilon-if-masking-broke")
    if target_delta is None:
        target_delta = float(known.target_delta) if known else DELTA
    if not 0 < target_delta < 1:
        raise ConfigError(f"{target_delta=} must lie between 0 and 1")
    return Policy(
        epsilon_per_year=year,
        epsilon_if_masking_broke=broke,
        target_delta=repr(target_delta),
        order=str(best_order(float(year), target_delta)),
    )


def simulated_policy(plan: RunPlan) -> Policy | None:
    """Return the limits of a simulation's owners: one such plan a year, and the scenario's cap.

    None where the scenario sets no cap.
    """
    cap = plan.public.get(MASKING_CAP, "")
    if not cap or plan.mode != "simulation":
        return None
    return Policy(
        epsilon_per_year=f"{1.01 * plan.epsilons()['epsilon_rdp']:.4f}",
        epsilon_if_masking_broke=cap,
        target_delta=plan.target_delta,
        order=plan.order,
    )


def best_order(epsilon: float, target_delta: float) -> int:
    """Return the Renyi order at which `epsilon` pays for the most Gaussian noise [1]."""

    def affordable(order: int) -> float:
        rest = epsilon_at(0, Fraction(order), target_delta)
        return (epsilon - rest) * UNITS_PER_RDP / order

    return max(ORDERS, key=affordable)
