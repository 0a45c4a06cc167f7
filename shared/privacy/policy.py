"""Policy: the owner's own limits over all plans, whoever wrote those."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

from ..errors import BudgetError, ConfigError, RefusalError
from . import accountant
from .events import PrivacyEvent, decimal, sound_order
from .plan import RunPlan

YEAR = timedelta(days=365)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What an owner allows within any 365 days, as decimal text.

    Attributes:
        epsilon_per_year: of everything debited, as the RDP filter counts [1].
        epsilon_if_masking_broke: of any one plan, were each share seen in the clear [1].
        target_delta: of both [probability].
        order: Renyi order of the yearly filter, as a fraction "p/q".

    Raises:
        ConfigError: a limit is out of range.
    """

    epsilon_per_year: str
    epsilon_if_masking_broke: str
    target_delta: str
    order: str

    def __post_init__(self) -> None:
        limits = decimal(self.epsilon_per_year), decimal(self.epsilon_if_masking_broke)
        sound = 0 < decimal(self.target_delta) < 1 and sound_order(self.order) and min(limits) > 0
        if not (sound and self.budget_units > 0):
            raise ConfigError(f"a policy of {asdict(self)} leaves no budget at its order")

    @property
    def budget_units(self) -> int:
        """What may be spent within 365 days at the policy's order, rounded down [1e-9 RDP]."""
        rest = accountant.epsilon_at(0, Fraction(self.order), float(self.target_delta))
        return math.floor((float(self.epsilon_per_year) - rest) * accountant.UNITS_PER_RDP)

    def cost(self, event: PrivacyEvent) -> int:
        """Return what `event` takes from the yearly budget [1e-9 RDP]."""
        return accountant.rdp_units(event.joint, Fraction(self.order))

    def check_plan(self, plan: RunPlan) -> None:
        """Hold a plan against the limits, as if nothing else were spent this year.

        Raises:
            RefusalError: naming the limit and what the plan would cost.
        """
        if float(plan.target_delta) > float(self.target_delta):
            raise RefusalError(
                f"the plan's delta {plan.target_delta} is above the policy's {self.target_delta}",
                "delta",
            )
        clear = plan.epsilons()["clear_shares"]
        if clear > float(self.epsilon_if_masking_broke):
            raise RefusalError(
                f"were masking broken, this plan would cost epsilon {clear:.2f}; the policy allows "
                f"{self.epsilon_if_masking_broke}",
                "masking-cap",
            )
        self.check_year(sum(map(self.cost, plan.releases)), [], datetime.max)

    def check_year(self, cost: int, debits: Iterable[Mapping[str, Any]], now: datetime) -> None:
        """Refuse `cost` [1e-9 RDP] if the year's DEBIT records leave less than that.

        Raises:
            BudgetError: saying what it would come to.
        """
        recent = (d for d in debits if now - datetime.fromisoformat(d["ts"]) < YEAR)
        spent = sum(self.cost(PrivacyEvent(**d["event"])) for d in recent)
        if spent + cost > self.budget_units:
            order, delta = Fraction(self.order), float(self.target_delta)
            would = accountant.epsilon_at(spent + cost, order, delta)
            raise BudgetError(
                f"this would bring the year to epsilon {would:.2f} (as RDP counts); the owner "
                f"allows {self.epsilon_per_year} per year",
                "policy-budget",
            )
