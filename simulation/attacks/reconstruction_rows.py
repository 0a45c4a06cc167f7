"""Reconstruction of one order: what each attacker makes of each view, and who has that view."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fondaco.server.learning import Learner
from fondaco.shared.privacy.events import PrivacyEvent
from fondaco.shared.privacy.plan import MASKED as MASKED_SUM
from fondaco.shared.privacy.plan import RunPlan

from .gradient_targets import gradients_of
from .mechanisms import Array
from .reconstruction import (
    ATTACKERS,
    BARE,
    FULL,
    MASKED,
    SHARE,
    SUM,
    Found,
    GradientStatistic,
    GramStatistic,
    Statistic,
    View,
    reconstruct,
    views_of,
)
from .results import ABOVE, BELOW, MEASURED, RATE, Clock, Result
from .session import GRAM, Order, Session
from .world import Basket, Federation

N_SILO = 100
"""Customers of the silo whose share is attacked."""
WIDE, SURE = 1.96, 5.0
"""Standard errors: of 95 % intervals; from a half that are no accident (1 in 10,000)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Attackable:
    """One silo's release: what it is made of, who sees what, and what is public about it."""

    statistic: Statistic
    plan: RunPlan
    event: PrivacyEvent
    popularity: Array
    views: Mapping[str, View]


def reconstruction(session: Session, target: str, epsilon: float) -> list[Result]:
    """Return how well a customer's items are told from one silo's vector, and from the sum."""
    released = _released(session, target, epsilon)
    rng, cohort = np.random.default_rng(session.order.seed), released.plan.cohort
    drawn = session.world.drawn(max(N_SILO, len(session.world.baskets)), rng)
    silo, rest = drawn[:N_SILO], drawn[N_SILO:]
    honest = len(rest) * (cohort.n_silos - cohort.t_collude - 1) // max(cohort.n_silos - 1, 1)
    results: list[Result] = []
    for knows in ATTACKERS:
        results += _of_attacker(session, released, (silo, rest[:honest]), knows)
    return results


def _of_attacker(
    session: Session,
    released: Attackable,
    customers: tuple[Sequence[Basket], Sequence[Basket]],
    knows: str,
) -> list[Result]:
    """Results of one kind of attacker, a view each."""
    clock, event, plan = Clock(), released.event, released.plan
    found = reconstruct(
        released.statistic,
        event,
        customers,
        n_victims(session.order),
        session.order.seed,
        views=released.views,
        knows=knows,
        popularity=released.popularity,
        tell=lambda: session.tell(f"reconstruct {event.kind}"),
    )
    facts = {
        "attacker": knows,
        "plan": plan.digest,
        "secure_aggregation": plan.secure_aggregation,
        "key_agreement": plan.key_agreement,
        "ring_bits": plan.ring_bits,
        "grid": plan.grid,
        "silos": plan.cohort.n_silos,
        "colluding_silos": plan.cohort.t_collude,
        "silo_customers": N_SILO,
        "silo_noise_multiplier": float(event.silo_noise_multiplier),
        "noise_multiplier": float(event.noise_multiplier),
        "seed": session.order.seed,
        "seconds": clock.seconds,
    }
    epsilons, seen_by = plan.epsilons(), who_sees(plan)
    return [
        _of_view(
            view,
            found,
            attack=f"reconstruction, {knows}",
            target=f"{event.kind} {view}",
            claim_epsilon=epsilons["clear_shares" if view == SHARE else "epsilon"],
            delta=session.delta,
            settings={**facts, "view": view, "seen_by": seen_by[view]},
        )
        for view in seen_by
    ]


def _of_view(
    view: str,
    found: Mapping[str, Found],
    *,
    settings: Mapping[str, Any],
    **named: Any,  # noqa: ANN401  (the other fields of Result)
) -> Result:
    """Return what one view tells; under masks it must be nothing."""
    told, power = _told(found[view]), {BARE: _power(found[BARE])}
    verdict, alarms, settings = MEASURED, {}, {**settings, **told}
    if view == MASKED:
        allowed = SURE * (told["auc high"] - told["auc"]) / WIDE
        beyond = abs(told["auc"] - 0.5) > allowed
        verdict, alarms = ABOVE if beyond else BELOW, {"alarms": int(beyond), "runs": 1}
        settings["allowed around a half"] = allowed
        power["masks broken"] = _power(found[SHARE])
    return Result(
        estimate=RATE,
        value=told["auc"],
        verdict=verdict,
        power=power,
        false_alarms=alarms,
        settings=settings,
        **named,
    )


def who_sees(plan: RunPlan) -> dict[str, str]:
    """Return view -> who sees such a vector under this plan, in words."""
    cohort, hidden = plan.cohort, plan.secure_aggregation
    counted = "nobody: one silo's numbers under all the noise that the certificate counts on"
    if hidden != MASKED_SUM:
        why = {
            "simulated": "secure aggregation is only simulated, sums are taken in the clear",
            "none": "each silo adds all of the noise itself, and nothing else hides its share",
        }
        return {SHARE: f"the coordinator: {why[hidden]}", FULL: counted}
    he = f"the coordinator with {cohort.t_collude} of {cohort.n_silos} silos on his side"
    return {
        SHARE: "nobody while the masks hold; the coordinator if they broke",
        MASKED: f"{he}: what one silo sends him, less the masks that his silos know",
        SUM: f"{he}: the unmasked sum, less his silos' shares",
        FULL: counted,
    }


def n_victims(order: Order) -> int:
    """Return how many customers an order attacks one by one."""
    return 20 if order.quick else 50


def _released(session: Session, target: str, epsilon: float) -> Attackable:
    if target == GRAM:
        plan = session.plan(epsilon, GRAM)
        federation = Federation(world=session.world, plan=plan, seed=session.order.seed)
        model = federation.base(session.world.baskets).model
        statistic: Statistic = GramStatistic(model.head, plan.n_items, plan.grid)
    else:
        gradients = gradients_of(session.world, target, session.order.seed, epsilon=epsilon)
        plan, model = gradients.plan, gradients.facts.model
        learner = Learner(target, plan, gradients.facts)
        statistic = GradientStatistic(gradients, learner.parameters)
    popularity = model.popularity[model.head].astype(np.float64)
    event = next(event for event in plan.releases if event.kind == target)
    views = views_of(plan, session.world.scenario.seed)
    return Attackable(
        statistic=statistic, plan=plan, event=event, popularity=popularity, views=views
    )


def _power(found: Found) -> dict[str, float]:
    return {"value": float(found.auc.mean()), **_told(found)}


def _told(found: Found) -> dict[str, float]:
    error = WIDE * float(found.auc.std(ddof=1)) / math.sqrt(len(found.auc))
    mean = float(found.auc.mean())
    return {
        "auc": mean,
        "auc low": mean - error,
        "auc high": mean + error,
        "precision": float(found.precision.mean()),
        "popularity auc": float(found.popularity_auc.mean()),
        "auc with popularity": float(found.joined_auc.mean()),
        "victims": len(found.auc),
    }
