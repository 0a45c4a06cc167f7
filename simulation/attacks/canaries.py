"""One-run audits: many canaries, each in or out by a coin, guessed from what leaves.

`one-run` gives lower bounds on epsilon (see `bounds`); `cosine` an estimate that assumes normal
statistics and bounds nothing. Both run the installed mechanism and, to show their power, the
broken ones of `mechanisms`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fondaco.shared.privacy.noise import NoiseStream

from .bounds import BOUNDS, epsilon_of_normals, one_run_bound
from .mechanisms import RIGHT, Array, Attacked, Claim, controls
from .targets import Target

_COINS, _FAIR = 1, 0.5
Tell = Callable[[], None]
"""Called after every run."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Observed:
    """What the auditor has after one run.

    Attributes:
        included: (n_canaries,) the coins.
        scores: score function -> (n_canaries,).
        cosines: (n_canaries,) of each canary with the sum of all releases.
    """

    included: NDArray[np.bool_]
    scores: Mapping[str, Array]
    cosines: Array

    def bounds(self, shares: Mapping[str, float], delta: float) -> dict[str, float]:
        """Return each lower bound on epsilon [1]."""
        return {
            name: one_run_bound(self.scores, self.included, shares, bound=bound, delta=delta)
            for name, bound in BOUNDS.items()
        }

    def estimate(self, delta: float) -> float:
        """Return the epsilon of two normal laws fitted to the cosines [1].

        Source: Andrew et al. 2024, with both laws estimated.
        """
        return epsilon_of_normals(self.cosines[self.included], self.cosines[~self.included], delta)


def observe(target: Target, attacked: Attacked, claim: Claim, seed: int) -> Observed:
    """Return what is seen of one run of a mechanism.

    Args:
        target: canaries and customers.
        attacked: the mechanism.
        claim: what it is said to promise.
        seed: of coins, samples and noise.
    """
    included = coins(target.n_canaries, seed)
    run = target.start(included)
    evidence, norms = np.empty((claim.rounds, target.n_canaries)), np.empty(claim.rounds)
    summed: Array | float = 0.0
    for num in range(claim.rounds):
        noisy = attacked(run, claim, NoiseStream.seeded(seed, "one-run", str(num)))
        evidence[num] = run.evidence(noisy)
        norms[num] = np.linalg.norm(noisy)
        summed = summed + noisy
        if num + 1 < claim.rounds:
            run.move(noisy)
    return Observed(
        included=included,
        scores=target.scores(evidence, norms, claim),
        cosines=evidence.sum(axis=0) / max(float(np.linalg.norm(summed)), 1e-12),
    )


def coins(n_canaries: int, seed: int) -> NDArray[np.bool_]:
    """Return (n_canaries,) fair coins, of a stream that nothing else is drawn from."""
    return np.random.default_rng([seed, _COINS]).random(n_canaries) < _FAIR


@dataclass(frozen=True, kw_only=True)
class Audited:
    """Lower bounds and estimates of several runs.

    Attributes:
        right: measure -> one value per run of the installed mechanism.
        broken: control -> the same of a broken one.
    """

    right: Mapping[str, list[float]]
    broken: Mapping[str, Mapping[str, list[float]]]


def audit(target: Target, claim: Claim, n_runs: int, seed: int, tell: Tell) -> Audited:
    """Return what `n_runs` runs of the installed and of every broken mechanism show.

    Args:
        target: canaries and customers.
        claim: what is promised.
        n_runs: of each mechanism.
        seed: of the first run.
        tell: told after each run.
    """

    def measured(attacked: Attacked) -> dict[str, list[float]]:
        values: dict[str, list[float]] = {name: [] for name in (*BOUNDS, "cosine")}
        for num in range(n_runs):
            seen = observe(target, attacked, claim, seed + num)
            for name, value in seen.bounds(target.shares, claim.delta).items():
                values[name].append(value)
            values["cosine"].append(seen.estimate(claim.delta))
            tell()
        return values

    return Audited(
        right=measured(RIGHT),
        broken={name: measured(attacked) for name, attacked in controls(claim).items()},
    )
