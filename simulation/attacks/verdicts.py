"""ATTACKS: what each attack says of a target at a claim."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fondaco.shared.privacy.plan import RunPlan

from .bounds import BOUNDS
from .mechanisms import Claim
from .membership import AT_HOME, FPRS, FUSED, GLOBAL, LOUD_COPIES, N_LOCAL, Sizes, infer
from .reconstruction import ATTACKERS
from .reconstruction_rows import n_victims, reconstruction
from .results import (
    ABOVE,
    BELOW,
    ESTIMATE,
    LOWER_BOUND,
    MEASURED,
    OUTSIDE,
    RATE,
    Clock,
    Result,
    of_runs,
)
from .session import (
    AUTOENCODER,
    FUSED_MODELS,
    GRAM,
    MF,
    TARGETS,
    Order,
    Session,
    n_audit_runs,
)
from .session import FUSED as FUSED_TARGET

LEAST_BASE = 200
"""Customers who always take part in the model that membership attacks look at."""


def one_run(session: Session, target: str, epsilon: float) -> list[Result]:
    """Return lower bounds on epsilon: by counts and by the trade-off curve."""
    return [
        of_runs(
            audited.found.right[name],
            {control: found[name] for control, found in audited.found.broken.items()},
            audited.claim,
            attack=name,
            target=target,
            estimate=LOWER_BOUND,
            settings={**audited.facts, "values": list(audited.found.right[name])},
        )
        for audited in session.audits(target, epsilon)
        for name in BOUNDS
    ]


def cosine(session: Session, target: str, epsilon: float) -> list[Result]:
    """Return estimates of epsilon from the canaries' cosines; they bound nothing."""
    results = []
    for audited in session.audits(target, epsilon):
        values = audited.found.right["cosine"]
        result = of_runs(
            values,
            {control: found["cosine"] for control, found in audited.found.broken.items()},
            audited.claim,
            attack="cosine",
            target=target,
            estimate=ESTIMATE,
            settings={**audited.facts, "values": list(values)},
        )
        settings = {**result.settings, "runs above the claim": result.false_alarms["alarms"]}
        results.append(
            replace(
                result,
                value=float(np.median(values)),
                verdict=MEASURED,
                false_alarms={},
                settings=settings,
            )
        )
    return results


def membership(session: Session, target: str, epsilon: float) -> list[Result]:
    """Return how often customers are rightly told to have taken part, at few false alarms."""
    order, clock = session.order, Clock()
    plan = session.plan(epsilon, *FUSED_MODELS)
    claim = Claim.of_plan(plan)
    session.note(target, claim)
    covered = (GLOBAL, FUSED)
    private = _membership(session, plan, covered if order.quick else (*covered, AT_HOME), 1)
    bare = _membership(session, plan, covered, LOUD_COPIES)
    facts = {
        **vars(membership_sizes(order, len(session.world.baskets))),
        "models": "+".join(FUSED_MODELS),
        "fusion": "even public weights",
        "plan": plan.digest,
        "seed": order.seed,
        "seconds": clock.seconds,
    }
    return [
        _of_rates(system, rates, bare.get(system, {}), claim, facts)
        for system, rates in private.items()
    ]


def _membership(
    session: Session, plan: RunPlan, systems: Sequence[str], copies: int
) -> dict[str, dict[str, dict[str, float]]]:
    """System -> rates, over shadow models of their own."""
    order = session.order
    found = infer(
        session.world,
        plan,
        membership_sizes(order, len(session.world.baskets)),
        order.seed,
        lambda: session.tell("membership"),
        systems=systems,
        copies=copies,
    )
    return {
        system: signals.rates(np.random.default_rng(order.seed))
        for system, signals in found.items()
    }


def membership_sizes(order: Order, n_users: int = 1000) -> Sizes:
    """Return how many of `n_users` customers and how many shadows an order gets.

    Where they are few, fewer always take part, which makes those who may stand out more.
    """
    if order.quick:
        sizes = Sizes(n_base=300, n_targets=150, n_shadows=8)
    else:
        sizes = Sizes(n_base=400, n_targets=200, n_shadows=24)
    room = n_users - sizes.n_targets - N_LOCAL
    return replace(sizes, n_base=min(sizes.n_base, max(room, LEAST_BASE)))


def _of_rates(
    system: str,
    rates: Mapping[str, Mapping[str, float]],
    bare: Mapping[str, Mapping[str, float]],
    claim: Claim,
    facts: Mapping[str, Any],
) -> Result:
    headline = f"tpr at fpr {FPRS[-1]:g}"
    allowed = min(1.0, math.exp(claim.epsilon) * FPRS[-1] + claim.delta)
    above = rates[headline]["low"] > allowed
    covered = system != AT_HOME
    return Result(
        attack="membership",
        target=system,
        claim_epsilon=claim.epsilon,
        delta=claim.delta,
        estimate=RATE,
        value=rates[headline]["value"],
        verdict=(ABOVE if above else BELOW) if covered else OUTSIDE,
        power={"without privacy": {"value": bare["auc"]["value"], **bare}} if bare else {},
        false_alarms={"alarms": int(above), "runs": 1} if covered else {},
        settings={**facts, **rates, "allowed by the claim": allowed},
    )


@dataclass(frozen=True, kw_only=True)
class Attack:
    """An entry of ATTACKS.

    Attributes:
        run: (session, target, epsilon) -> results.
        targets: what it knows how to attack.
        steps: (order, target) -> how often it reports progress at one claim.
        stage: under which name it does.
    """

    run: Callable[[Session, str, float], list[Result]]
    targets: tuple[str, ...]
    steps: Callable[[Order, str], int]
    stage: str


def _membership_steps(order: Order, target: str) -> int:
    del target
    return 2 * membership_sizes(order).n_shadows


def _reconstruction_steps(order: Order, target: str) -> int:
    del target
    return len(ATTACKERS) * n_victims(order)


ATTACKS: Mapping[str, Attack] = {
    "one-run": Attack(run=one_run, targets=TARGETS, steps=n_audit_runs, stage="{target}"),
    "cosine": Attack(run=cosine, targets=TARGETS, steps=n_audit_runs, stage="{target}"),
    "membership": Attack(
        run=membership, targets=(FUSED_TARGET,), steps=_membership_steps, stage="membership"
    ),
    "reconstruction": Attack(
        run=reconstruction,
        targets=(GRAM, MF, AUTOENCODER),
        steps=_reconstruction_steps,
        stage="reconstruct {target}",
    ),
}
