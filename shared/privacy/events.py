"""What a mechanism tells the ledger: one immutable description per release."""

from dataclasses import dataclass
from fractions import Fraction

from dp_accounting import dp_event

MECHANISM = "gauss-rounded-int"


@dataclass(frozen=True, kw_only=True)
class PrivacyEvent:
    """One release of one noisy integer sum; every field is public and comes from the plan.

    Attributes:
        kind: name of the statistic.
        round_num: federated round in which it is released, from 1.
        share_ppm: its part of the plan's mu squared [parts per million].
        dim: numbers released.
        sens_grid: l2 norm that one customer can add to the sum [grid units].
        stddev_grid: noise of the release that the guarantee rests on [grid units].
        silo_stddev_grid: noise that each silo adds itself [grid units].
    """

    kind: str
    round_num: int
    share_ppm: int
    dim: int
    sens_grid: int
    stddev_grid: int
    silo_stddev_grid: int

    @property
    def noise_multiplier(self) -> Fraction:
        """Noise over sensitivity of the joint release [1]."""
        return Fraction(self.stddev_grid, self.sens_grid)

    @property
    def silo_noise_multiplier(self) -> Fraction:
        """Noise over sensitivity of one silo's share seen in the clear [1]."""
        return Fraction(self.silo_stddev_grid, self.sens_grid)

    def as_dp_event(self) -> dp_event.DpEvent:
        """Return the joint release for `dp_accounting`."""
        return dp_event.GaussianDpEvent(float(self.noise_multiplier))
