"""One-run canaries that are looked for in recommendations alone.

Canaries are customers with random baskets; the auditor sees nothing but how everybody's fused
models rank one half of a basket when they are told the other. Post-processing of all releases
of the plan: the claim is the plan's own.
"""

from collections.abc import Mapping

import numpy as np

from fondaco.shared.models import PublicFacts
from fondaco.shared.models.published import GlobalParts
from fondaco.shared.models.terms import PlannedModels
from fondaco.shared.privacy.plan import RunPlan

from .bounds import BOUNDS
from .canaries import Audited, Observed, Tell, coins
from .membership import LOUD_COPIES, even_weights, signal_of_global
from .targets import random_baskets
from .world import Basket, Federation, World

SHARES: Mapping[str, float] = {"gain": 0.7, "signal": 0.3}


def audit_fused(
    world: World, plan: RunPlan, sizes: tuple[int, int], n_runs: int, seed: int, *, tell: Tell
) -> Audited:
    """Return lower bounds and estimates from the fused output, with noise and without.

    Args:
        world: customers.
        plan: what is released, and the noise.
        sizes: base customers and canaries.
        n_runs: with noise and without.
        seed: of the first run.
        tell: told after each run.
    """
    n_base, n_canaries = sizes
    rng = np.random.default_rng(seed)
    base = world.drawn(n_base, rng)
    quiet = _learn(world, plan, base, seed, LOUD_COPIES)
    canaries = random_baskets(n_canaries, quiet.model.head, rng)
    without = signal_of_global(_parts(plan, quiet), canaries)
    delta = float(plan.target_delta)

    def measured(copies: int) -> dict[str, list[float]]:
        values: dict[str, list[float]] = {name: [] for name in (*BOUNDS, "cosine")}
        for num in range(n_runs):
            included = coins(n_canaries, seed + num)
            chosen = [basket for basket, coin in zip(canaries, included, strict=True) if coin]
            facts = _learn(world, plan, [*base, *chosen], seed + num, copies)
            signal = signal_of_global(_parts(plan, facts), canaries)
            scores = {"gain": signal - without, "signal": signal}
            seen = Observed(included=included, scores=scores, cosines=signal - without)
            for name, value in seen.bounds(SHARES, delta).items():
                values[name].append(value)
            values["cosine"].append(seen.estimate(delta))
            tell()
        return values

    return Audited(right=measured(1), broken={"no noise": measured(LOUD_COPIES)})


def _learn(
    world: World, plan: RunPlan, baskets: list[Basket], seed: int, copies: int
) -> PublicFacts:
    federation = Federation(world=world, plan=plan, seed=seed, copies=copies)
    return federation.learn(baskets, weights=even_weights(plan))


def _parts(plan: RunPlan, facts: PublicFacts) -> GlobalParts:
    return GlobalParts(PlannedModels.of_plan(plan), facts)
