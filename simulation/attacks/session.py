"""What one order asks for, and what its attacks share."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fondaco.shared.privacy.events import EVERYBODY
from fondaco.shared.privacy.plan import RunPlan

from ..scenario import Scenario
from .canaries import Audited, audit
from .fused_canaries import audit_fused
from .gradient_targets import GradientTarget, gradients_of
from .mechanisms import BROKEN, Claim
from .results import Clock
from .targets import GramTarget, Target
from .world import Federation, World

GRAM, MF, AUTOENCODER, FUSED = "gram", "mf", "autoencoder", "fused"
TARGETS = (GRAM, MF, AUTOENCODER, FUSED)
FUSED_MODELS = (GRAM, MF)
N_BASE = 100
N_FUSED_BASE = 400
SAMPLED_PPM = 200_000


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Of a canary audit.

    Attributes:
        sampling_ppm: of the mechanism [parts per million].
        rounds: releases.
        n_canaries: canaries.
        crafted: worst-case canaries; else customers with random baskets.
    """

    sampling_ppm: int
    rounds: int
    n_canaries: int
    crafted: bool


_ONCE = Setting(sampling_ppm=EVERYBODY, rounds=1, n_canaries=2000, crafted=True)
_SAMPLED = Setting(sampling_ppm=SAMPLED_PPM, rounds=30, n_canaries=1000, crafted=True)
SETTINGS: dict[str, tuple[Setting, ...]] = {
    GRAM: (_ONCE,),
    MF: (_SAMPLED, _ONCE, replace(_SAMPLED, crafted=False)),
    AUTOENCODER: (_SAMPLED, _ONCE),
    FUSED: (Setting(sampling_ppm=EVERYBODY, rounds=1, n_canaries=600, crafted=False),),
}
"""Target -> how its canaries are audited; the first alone in quick orders."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is wanted.

    Attributes:
        scenario: whose customers are attacked.
        attacks: names of ATTACKS.
        targets: names of TARGETS.
        epsilons: claims that are tried [1].
        runs: of each mechanism.
        quick: fewer settings, shadows and victims.
        seed: of everything.
    """

    scenario: Scenario
    attacks: tuple[str, ...]
    targets: tuple[str, ...]
    epsilons: tuple[float, ...]
    runs: int
    quick: bool
    seed: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Auditing:
    """A finished canary audit.

    Attributes:
        claim: what was promised.
        found: what was seen.
        facts: how it was made.
    """

    claim: Claim
    found: Audited
    facts: dict[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Session:
    """The customers of one order, and what was found out about them already.

    Attributes:
        tell: told what was just done.
    """

    order: Order
    world: World
    tell: Callable[[str], None]
    claims: list[dict[str, Any]] = field(default_factory=list)
    _audits: dict[tuple[object, ...], Auditing] = field(default_factory=dict)

    def note(self, target: str, claim: Claim) -> None:
        """Put a claim into the document, once."""
        facts = {
            "target": target,
            "epsilon": round(claim.epsilon, 6),
            "delta": claim.delta,
            "noise_multiplier": round(claim.noise_multiplier, 6),
            "sampling_ppm": claim.sampling_ppm,
            "rounds": claim.rounds,
            "unit": "customer-at-silo",
            "adjacency": "add-or-remove-one",
        }
        if facts not in self.claims:
            self.claims.append(facts)

    @property
    def delta(self) -> float:
        """Delta of every claim [probability]."""
        return float(self.world.scenario.privacy.target_delta)

    def plan(self, epsilon: float, *models: str) -> RunPlan:
        """Return the plan of these models at a budget."""
        return self.world.at(epsilon).plan(*models)

    def audits(self, target: str, epsilon: float) -> list[Auditing]:
        """Return the canary audits of a target, run once per order."""
        chosen = SETTINGS[target][:1] if self.order.quick else SETTINGS[target]
        for setting in chosen:
            key = target, epsilon, setting
            if key not in self._audits:
                self._audits[key] = self._audit(target, epsilon, setting)
        return [self._audits[target, epsilon, setting] for setting in chosen]

    def _audit(self, target: str, epsilon: float, setting: Setting) -> Auditing:
        clock, order = Clock(), self.order
        if target == FUSED:
            claim, found = self._audit_fused(epsilon, setting)
        else:
            attacked = self._target(target, epsilon, setting)
            claim = Claim.calibrated(
                epsilon, self.delta, setting.sampling_ppm, setting.rounds, grid=attacked.grid
            )
            found = audit(attacked, claim, order.runs, order.seed, lambda: self.tell(target))
        self.note(target, claim)
        facts = {
            "canaries": setting.n_canaries,
            "canary_kind": "worst case" if setting.crafted else "random baskets",
            "customers": N_FUSED_BASE if target == FUSED else N_BASE,
            "sampling_rate": claim.sampling_rate,
            "rounds": claim.rounds,
            "noise_multiplier": claim.noise_multiplier,
            "runs": order.runs,
            "seed": order.seed,
            "seconds": clock.seconds,
        }
        return Auditing(claim=claim, found=found, facts=facts)

    def _target(self, name: str, epsilon: float, setting: Setting) -> Target:
        seed, rng = self.order.seed, np.random.default_rng(self.order.seed)
        if name != GRAM:
            gradients = gradients_of(self.world, name, seed, epsilon=epsilon, rounds=setting.rounds)
            return GradientTarget(
                self.world, N_BASE, setting.n_canaries, gradients, rng, crafted=setting.crafted
            )
        head = self.gram_head(self.world.plan(GRAM))
        grid = self.plan(epsilon, GRAM).grid
        return GramTarget(self.world, N_BASE, setting.n_canaries, head, rng, grid=grid)

    def gram_head(self, plan: RunPlan) -> NDArray[np.int64]:
        """Return the (n_head,) items that everybody's noisy popularity chooses."""
        federation = Federation(world=self.world, plan=plan, seed=self.order.seed)
        return federation.base(self.world.baskets).model.head

    def _audit_fused(self, epsilon: float, setting: Setting) -> tuple[Claim, Audited]:
        plan = self.plan(epsilon, *FUSED_MODELS)
        claim = Claim.of_plan(plan)
        found = audit_fused(
            self.world,
            plan,
            (N_FUSED_BASE, setting.n_canaries),
            self.order.runs,
            self.order.seed,
            tell=lambda: self.tell(FUSED),
        )
        return claim, found


def n_audit_runs(order: Order, target: str) -> int:
    """Return how often `tell` will be called for the canary audits of a target."""
    settings = SETTINGS[target][:1] if order.quick else SETTINGS[target]
    if target == FUSED:
        return 2 * order.runs
    each = [1 + len(BROKEN) - (s.sampling_ppm == EVERYBODY) for s in settings]
    return order.runs * sum(each)
