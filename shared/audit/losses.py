"""What plans cost a customer together, by who is trusted and by how many silos know him."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from .accounting import Part, rdp_epsilon, tight_epsilon
from .plans import Plan, Planned

SERVER, HONEST, CLEAR = "server", "all_honest", "clear_shares"
WHO = {
    SERVER: "the server and the planned number of colluding silos look on",
    HONEST: "nobody colludes: only the sum of all silos is seen",
    CLEAR: "secure aggregation broke (or was simulated): each silo's share is seen alone",
}
MOST_SILOS = 5


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Epsilon of a customer [1].

    Attributes:
        who: a key of `WHO`.
        k: silos that know the customer.
        tight: by the tightest accountant, None where it is beyond use.
        rdp: as a filter at the best order counts, None where no RDP is known.
        method: how `tight` was found.
    """

    who: str
    k: int
    tight: float | None
    rdp: float | None
    method: str


def composed(plans: Sequence[Plan]) -> Iterator[tuple[Plan, Planned]]:
    """Yield every release of plans that hold for the same customers, none twice.

    What a plan says was charged before is left out where the plan that charged it is here too.
    """
    known = {plan.digest for plan in plans}
    for plan in dict.fromkeys(plan.digest for plan in plans):
        terms = next(p for p in plans if p.digest == plan)
        before = () if terms.raw["earlier_digest"] in known else terms.earlier
        for planned in (*before, *terms.releases.values()):
            yield terms, planned


def least_delta(plans: Sequence[Plan]) -> float:
    """Return the smallest delta that any of the plans promises [probability]."""
    return min(plan.delta for plan in plans)


def parts_of(plans: Sequence[Plan], who: str, k: int) -> list[Part]:
    """Return all releases as they meet a customer of `k` silos, seen by `who`."""
    return [_part(plan, planned, who, k) for plan, planned in composed(plans)]


def _part(plan: Plan, planned: Planned, who: str, k: int) -> Part:
    if plan.trust == "silo" or who == CLEAR:
        return Part(planned.share if who == CLEAR else planned.joint, k)
    if who == SERVER:
        return Part(planned.joint, k, shared=True)
    share = planned.share
    more = Fraction(math.sqrt(plan.cohort("n_min")))
    return Part(share._replace(multiplier=share.multiplier * more), k, shared=True)


def losses(
    plans: Sequence[Plan], delta: float, *, who: Iterable[str] = WHO, most_silos: int = MOST_SILOS
) -> list[Loss]:
    """Return epsilon for every trust and for a customer of 1 to `most_silos` silos."""
    return [loss(plans, delta, each, k) for each in who for k in range(1, most_silos + 1)]


def loss(plans: Sequence[Plan], delta: float, who: str, k: int) -> Loss:
    """Return epsilon of a customer of `k` silos, seen by `who`."""
    parts = parts_of(plans, who, k)
    method = "PLD" if any(part.is_sampled for part in parts) else "exact Gaussian"
    return Loss(
        who=who,
        k=k,
        tight=tight_epsilon(parts, delta),
        rdp=rdp_epsilon(parts, delta),
        method=method,
    )
