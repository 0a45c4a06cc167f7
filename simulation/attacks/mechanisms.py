"""What is attacked: the installed mechanism, and broken ones that an attack must find.

`RIGHT` is what a silo runs: the core's clipped sum of a Poisson sample plus the core's noise.
`BROKEN` holds controls of the audits, each a classic mistake; none of them is ever released.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fondaco.server.checkpoint import RoundResult
from fondaco.shared.calibration import calibrate, gaussian_mu
from fondaco.shared.errors import PrivacyError
from fondaco.shared.privacy.accountant import epsilon_pld
from fondaco.shared.privacy.clipping import ClippedSum
from fondaco.shared.privacy.events import EVERYBODY, Mechanism, PrivacyEvent
from fondaco.shared.privacy.noise import NoiseStream, Sample
from fondaco.shared.privacy.plan import RunPlan

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What is promised of `rounds` releases of one kind, and the noise that keeps it.

    Attributes:
        epsilon: by PLD [1].
        delta: [probability].
        stddev_grid: noise of each release [grid units].
        sampling_ppm: Poisson probability of a customer [parts per million].
        rounds: releases.
        grid: grid units per clip norm, the plan's.
    """

    epsilon: float
    delta: float
    stddev_grid: int
    sampling_ppm: int
    rounds: int
    grid: int

    @classmethod
    def calibrated(
        cls, epsilon: float, delta: float, sampling_ppm: int, rounds: int, *, grid: int
    ) -> "Claim":
        """Return the claim of about `epsilon`, with the noise that a plan would have.

        Args:
            epsilon: [1].
            delta: [probability].
            sampling_ppm: Poisson probability of a customer [parts per million].
            rounds: releases.
            grid: of the plan [grid units per clip norm].

        Raises:
            ConfigError: epsilon or delta is out of range.
        """

        def mechanisms(mu: float) -> tuple[Mechanism, ...]:
            squared = mu**2 / rounds
            if sampling_ppm != EVERYBODY:
                squared = math.log1p(squared / (sampling_ppm / EVERYBODY) ** 2)
            stddev_grid = math.ceil(grid / math.sqrt(squared))
            return (Mechanism(Fraction(stddev_grid, grid), sampling_ppm, rounds),)

        mu = calibrate(epsilon, delta, mechanisms, gaussian_mu(epsilon, delta))
        found = mechanisms(mu)
        return cls(
            epsilon=epsilon_pld(found, delta),
            delta=delta,
            stddev_grid=int(found[0].multiplier * grid),
            sampling_ppm=sampling_ppm,
            rounds=rounds,
            grid=grid,
        )

    @classmethod
    def of_plan(cls, plan: RunPlan) -> "Claim":
        """Return the claim of all releases of a plan, as one unsampled Gaussian of equal mu."""
        delta = float(plan.target_delta)
        epsilon = epsilon_pld(plan.mechanisms, delta)
        return cls(
            epsilon=epsilon,
            delta=delta,
            stddev_grid=round(plan.grid / gaussian_mu(epsilon, delta)),
            sampling_ppm=EVERYBODY,
            rounds=1,
            grid=plan.grid,
        )

    @property
    def noise_multiplier(self) -> float:
        """Noise over sensitivity of one release [1]."""
        return self.stddev_grid / self.grid

    @property
    def sampling_rate(self) -> float:
        """Chance that a customer takes part in a release [probability]."""
        return self.sampling_ppm / EVERYBODY


class Contributors(Protocol):
    """Customers of whom sums can be taken."""

    @property
    def n_users(self) -> int:
        """Customers that may be sampled."""

    def clipped(self, sample: Sample) -> ClippedSum:
        """Return the core's clipped sum of the sampled customers."""

    def raw(self, sample: Sample) -> Array:
        """Return (dim,) the same sum as if nobody had been clipped [clip norms]."""


Attacked = Callable[[Contributors, Claim, NoiseStream], Array]
"""(customers, claim, noise) -> (dim,) what leaves in one release [clip norms]."""


def noisy_sum(
    total: ClippedSum, stddev_grid: int, noise: NoiseStream, *, copies: int = 1
) -> NDArray[np.int64]:
    """Return what `release` would make of `total`, without a debit [grid units].

    Args:
        total: from the core.
        stddev_grid: noise [grid units].
        noise: of one release.
        copies: what the sum is multiplied by before; more than 1 breaks the mechanism.
    """
    return np.asarray(copies * total.values + noise.gaussian(len(total.values), stddev_grid))


def published(
    plan: RunPlan, event: PrivacyEvent, total: ClippedSum, noise: NoiseStream, *, copies: int = 1
) -> RoundResult:
    """Return the joint release of a cohort of which only the honest silos' noise counts."""
    honest = plan.cohort.n_min - plan.cohort.t_collude
    stddev_grid = round(event.silo_stddev_grid * np.sqrt(honest))
    return RoundResult(
        kind=event.kind,
        round_num=event.round_num,
        total=noisy_sum(total, stddev_grid, noise, copies=copies),
        present=tuple(f"silo {num}" for num in range(honest)),
        dropped=(),
    )


def right(customers: Contributors, claim: Claim, noise: NoiseStream) -> Array:
    """Return one release of the installed core."""
    sample = noise.sample(customers.n_users, claim.sampling_ppm)
    return noisy_sum(_clipped(customers, claim, sample), claim.stddev_grid, noise) / claim.grid


def no_noise(customers: Contributors, claim: Claim, noise: NoiseStream) -> Array:
    """Return the clipped sum itself."""
    sample = noise.sample(customers.n_users, claim.sampling_ppm)
    return np.asarray(_clipped(customers, claim, sample).values / claim.grid)


def noise_over_batch(customers: Contributors, claim: Claim, noise: NoiseStream) -> Array:
    """Return a sum whose noise was made for a mean: divided by the expected batch."""
    sample = noise.sample(customers.n_users, claim.sampling_ppm)
    stddev_grid = max(1, round(claim.stddev_grid / _batch(customers, claim)))
    return noisy_sum(_clipped(customers, claim, sample), stddev_grid, noise) / claim.grid


def clip_after_averaging(customers: Contributors, claim: Claim, noise: NoiseStream) -> Array:
    """Return a mean that was clipped as a whole, nobody's part on its own; times the batch."""
    sample = noise.sample(customers.n_users, claim.sampling_ppm)
    batch = _batch(customers, claim)
    mean = customers.raw(sample) / batch
    mean /= max(1.0, float(np.linalg.norm(mean)))
    return np.asarray(mean * batch + noise.gaussian(len(mean), claim.stddev_grid) / claim.grid)


def no_sampling(customers: Contributors, claim: Claim, noise: NoiseStream) -> Array:
    """Return a release of everybody, although the claim counts on a sample."""
    sample = noise.sample(customers.n_users, EVERYBODY)
    return noisy_sum(_clipped(customers, claim, sample), claim.stddev_grid, noise) / claim.grid


RIGHT: Attacked = right
BROKEN: Mapping[str, Attacked] = {
    "no noise": no_noise,
    "noise over batch": noise_over_batch,
    "clip after averaging": clip_after_averaging,
    "no sampling": no_sampling,
}


def controls(claim: Claim) -> dict[str, Attacked]:
    """Return the broken mechanisms that break this claim."""
    sampled = claim.sampling_ppm != EVERYBODY
    return {name: run for name, run in BROKEN.items() if sampled or run is not no_sampling}


def _clipped(customers: Contributors, claim: Claim, sample: Sample) -> ClippedSum:
    """Return the core's sum, on the grid that the claim's noise is counted in.

    Raises:
        PrivacyError: it is on another, so the claim says nothing of it.
    """
    total = customers.clipped(sample)
    if total.sens_grid != claim.grid:
        raise PrivacyError(f"a sum on the grid {total.sens_grid} met a claim on {claim.grid}")
    return total


def _batch(customers: Contributors, claim: Claim) -> float:
    return max(1.0, claim.sampling_rate * customers.n_users)
