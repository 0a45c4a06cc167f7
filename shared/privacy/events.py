"""What a mechanism tells the ledger: one immutable description per release."""

import re
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any, NamedTuple

from ..errors import ConfigError

MECHANISM = "gauss-rounded-int"
EVERYBODY = 1_000_000
"""`sampling_ppm` of a release that every customer takes part in."""


class Mechanism(NamedTuple):
    """What an accountant needs to know of a release.

    Attributes:
        multiplier: noise over sensitivity [1].
        sampling_ppm: Poisson probability that a customer takes part [parts per million].
        steps: how often it runs, each time with fresh noise and a fresh sample.
    """

    multiplier: Fraction
    sampling_ppm: int = EVERYBODY
    steps: int = 1


def decimal(text: str) -> Fraction:
    """Return the number in decimal text, or in a fraction "p/q", of a size that can be handled.

    Raises:
        ConfigError: it is no such text.
    """
    if not re.fullmatch(r"\d{1,9}(/[1-9]\d{0,8}|(\.\d{1,20})?(e-?\d{1,2})?)", text, re.ASCII):
        raise ConfigError(f"{text[:40]!r} is no decimal number of a handy size")
    return Fraction(text)


def sound_order(text: str) -> bool:
    """Return whether a Renyi order is one that every accountant can handle."""
    return Fraction(1001, 1000) <= decimal(text) <= 100_000  # noqa: PLR2004  (the upper end)


def require_exact_types(record: Any) -> None:  # noqa: ANN401  (any of the core's dataclasses)
    """Refuse a value that merely equals what a field should be: `true` is no 1, 4 no "4".

    Raises:
        ConfigError: naming the field of the dataclass instance `record`.
    """
    for each in fields(record):
        value = getattr(record, each.name)
        if each.type in (int, str) and type(value) is not each.type:
            raise ConfigError(f"{each.name}={value!r} must be of type {each.type.__name__}")


@dataclass(frozen=True, kw_only=True)
class PrivacyEvent:
    """One release of one noisy integer sum; every field is public and comes from the plan.

    Attributes:
        kind: name of the statistic.
        round_num: federated round in which it is released, from 1.
        dim: numbers released.
        sens_grid: l2 norm that one customer can add to the sum [grid units].
        stddev_grid: noise of the release that the guarantee rests on [grid units].
        silo_stddev_grid: noise that each silo adds itself [grid units].
        sampling_ppm: Poisson probability that a customer takes part [parts per million].
        steps: noisy sums behind the release; more than one where a silo trains locally.

    Raises:
        ConfigError: a field is not exactly of its type.
    """

    kind: str
    round_num: int
    dim: int
    sens_grid: int
    stddev_grid: int
    silo_stddev_grid: int
    sampling_ppm: int = EVERYBODY
    steps: int = 1

    def __post_init__(self) -> None:
        require_exact_types(self)

    @property
    def noise_multiplier(self) -> Fraction:
        """Noise over sensitivity of the joint release [1]."""
        return Fraction(self.stddev_grid, self.sens_grid)

    @property
    def silo_noise_multiplier(self) -> Fraction:
        """Noise over sensitivity of one silo's share seen in the clear [1]."""
        return Fraction(self.silo_stddev_grid, self.sens_grid)

    @property
    def alike(self) -> Mechanism | None:
        """Releases that may stand in for each other: None is every unsampled Gaussian."""
        return None if self.sampling_ppm == EVERYBODY else self.joint

    @property
    def joint(self) -> Mechanism:
        """The joint release, as accounted for."""
        return Mechanism(self.noise_multiplier, self.sampling_ppm, self.steps)

    @property
    def share(self) -> Mechanism:
        """One silo's share seen in the clear, as accounted for."""
        return Mechanism(self.silo_noise_multiplier, self.sampling_ppm, self.steps)
