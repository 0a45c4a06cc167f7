"""What keeps a plan from promising what it says: each condition computed once more."""

import math
from collections.abc import Iterator, Mapping

from ..privacy import accountant
from .accounting import Part, epsilon_of_units, tight_epsilon
from .formats import canonical, origin_of
from .masks import mask_problems
from .plans import LARGEST_EPSILON, Plan

SMALL_COHORT = 5
LEAST_STDDEV_GRID, MOST_STDDEV_GRID = 100, 2**40
MOST_GRID = 2**24
MOST_BY_ATTEMPTS = 1.001


def plan_problems(plan: Plan) -> Iterator[str]:
    """Yield what keeps a plan that can be read from promising what it says."""
    yield from _noise_problems(plan)
    yield from _cost_problems(plan)
    yield from _witness_problems(plan)
    yield from mask_problems(plan)
    yield from _other_problems(plan)


def _other_problems(plan: Plan) -> Iterator[str]:
    raw = plan.raw
    if not 0 < raw["grid"] <= MOST_GRID:
        yield f"its grid of {raw['grid']} is beyond {MOST_GRID}"
    if not 0 < raw["head"] <= raw["n_items"]:
        yield f"its head has {raw['head']} of {raw['n_items']} items"
    if bool(raw["earlier"]) != bool(raw["earlier_digest"]):
        yield "its earlier releases and the digest of their plan do not go together"
    facts = [*raw["models"].values(), raw["public"]]
    if not all(isinstance(f, dict) and all(type(t) is str for t in f.values()) for f in facts):
        yield "terms of its models or its public facts are no text"


def earlier_problems(plan: Plan, known: Mapping[str, Plan]) -> Iterator[str]:
    """Yield where a plan forgets what the same customers were charged under a plan of `known`."""
    before = known.get(plan.raw["earlier_digest"])
    if before is None:
        return
    said, true = ([dict(planned.event) for planned in p] for p in (plan.earlier, before.charged))
    if sorted(said, key=canonical) != sorted(true, key=canonical):
        yield f"its earlier releases are not those of {before.digest[:19]}"


def _noise_problems(plan: Plan) -> Iterator[str]:
    honest = plan.cohort("n_min") - plan.cohort("t_collude")
    if plan.trust == "silo" or plan.cohort("n_silos") <= SMALL_COHORT:
        honest = 1
    for (kind, round_num), planned in plan.releases.items():
        event, name = planned.event, f"{kind} of round {round_num}"
        if event["sens_grid"] != plan.raw["grid"]:
            yield f"{name} has the sensitivity {event['sens_grid']}, not the grid's"
        if min(event["stddev_grid"], event["silo_stddev_grid"]) < LEAST_STDDEV_GRID:
            yield f"{name} has less noise than {LEAST_STDDEV_GRID} grid units"
        if max(event["stddev_grid"], event["silo_stddev_grid"]) > MOST_STDDEV_GRID:
            yield f"{name} has more noise than {MOST_STDDEV_GRID} grid units"
        if event["silo_stddev_grid"] ** 2 * honest < event["stddev_grid"] ** 2:
            yield f"silos add less noise to {name} than its guarantee rests on"
        if event["steps"] > 1 and plan.trust != "silo":
            yield f"{name} has local steps, whose noise cannot be shared"


def _cost_problems(plan: Plan) -> Iterator[str]:
    if math.isinf(plan.epsilons["epsilon"]):
        yield f"it costs more than epsilon {LARGEST_EPSILON:g}: nobody is protected"
        return
    total = sum(plan.cost(planned) for planned in plan.releases.values())
    if plan.budget != total:
        yield f"its budget is {plan.budget}, its releases cost {total}"
    said, found = float(plan.raw["target_epsilon"]), plan.epsilons["epsilon"]
    if not 0 < said <= LARGEST_EPSILON:
        yield f"the epsilon {said:g} that it promises is out of range"
    if not found <= said:
        yield f"its releases cost epsilon {found:.4f}, more than the {said:g} it promises"
    rest = tuple(planned.joint for planned in plan.releases.values())
    worst = epsilon_of_units(plan.budget, plan.order, plan.delta)
    if worst > MOST_BY_ATTEMPTS * accountant.epsilon_rdp(rest, plan.delta):
        yield f"its order lets repeated attempts reach epsilon {worst:.3f}"
    tight = tight_epsilon([Part(planned.joint) for planned in plan.charged], plan.delta)
    if tight is not None and tight > plan.epsilons["epsilon"] + 1e-6:
        yield f"two accountants disagree: {tight:.6f} and {found:.6f}"


def _witness_problems(plan: Plan) -> Iterator[str]:
    for silo, key in plan.roster.items():
        if key.name != origin_of(silo):
            yield f"the key of {silo!r} bears the name {key.name!r}"
    keys = [*plan.roster.values(), *([plan.coordinator] if plan.coordinator else [])]
    if len({key.raw for key in keys}) < len(keys):
        yield "two of its parties have the same key"
    others = plan.cohort("n_min") - 1
    least = 0 if plan.is_simulation else min(plan.cohort("t_collude") + 1, others)
    if not least <= plan.witnesses <= others:
        yield f"{plan.witnesses} witnesses; expected {least} to {others}"
    if plan.is_simulation and not (plan.roster or plan.witnesses):
        return
    if len(plan.roster) != plan.cohort("n_silos"):
        yield f"{len(plan.roster)} keys for {plan.cohort('n_silos')} silos"
    if plan.coordinator is None:
        yield "it names no key of the coordinator"
