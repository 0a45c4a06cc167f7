"""A plan as the verifier reads it: from its raw text, without the code that wrote it."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from functools import cached_property
from typing import Any

from ..privacy import accountant
from ..privacy.events import EVERYBODY, Mechanism
from .accounting import Part, cost_of, epsilon_of_units, tight_epsilon
from .formats import (
    Key,
    canonical,
    digest_of,
    int_of,
    origin_of,
    read_key,
    read_number,
    text_of,
)

SCHEMA = 3
LEAST_ORDER, MOST_ORDER = 1.001, 100_000
"""Renyi orders beyond these are nobody's best, and computing at them fails or has no end [1]."""
SMALL_COHORT = 5
LEAST_STDDEV_GRID, MOST_STDDEV_GRID = 100, 2**40
MOST_GRID = 2**24
MOST_STEPS = 1000
MOST_BY_ATTEMPTS = 1.001
LARGEST_EPSILON = 1000.0
"""Beyond this a plan protects nobody, and computing how little could fill the memory [1]."""
EPSILONS = ("epsilon", "epsilon_rdp", "all_honest", "clear_shares")
_TERMS: Mapping[str, type] = {
    "schema": int,
    "unit": str,
    "adjacency": str,
    "max_silos_per_customer": int,
    "trust": str,
    "secure_aggregation": str,
    "mode": str,
    "cohort": dict,
    "grid": int,
    "target_delta": str,
    "target_epsilon": str,
    "order": str,
    "budget_units": int,
    "releases": list,
    "catalogue_digest": str,
    "n_items": int,
    "head": int,
    "code_digest": str,
    "models": dict,
    "public": dict,
    "earlier": list,
    "earlier_digest": str,
    "expires": str,
    "witnesses": int,
    "roster": dict,
    "coordinator": str,
}
_KNOWN: Mapping[str, tuple[object, ...]] = {
    "unit": ("customer-at-silo",),
    "max_silos_per_customer": (1,),
    "adjacency": ("add-or-remove-one",),
    "trust": ("aggregate", "silo"),
    "secure_aggregation": ("simulated", "none"),
    "mode": ("simulation", "deploy"),
}
_EVENT = (
    "dim",
    "kind",
    "round_num",
    "sampling_ppm",
    "sens_grid",
    "silo_stddev_grid",
    "stddev_grid",
    "steps",
)


@dataclass(frozen=True)
class Planned:
    """One planned release; `event` is its object as the plan and each DEBIT write it."""

    kind: str
    round_num: int
    event: Mapping[str, Any]

    @cached_property
    def joint(self) -> Mechanism:
        """What the guarantee rests on."""
        return self._mechanism("stddev_grid")

    @property
    def alike(self) -> Mechanism | None:
        """Releases that may stand in for each other: None is every unsampled Gaussian."""
        return None if self.event["sampling_ppm"] == EVERYBODY else self.joint

    @property
    def share(self) -> Mechanism:
        """One silo's share of it, seen in the clear."""
        return self._mechanism("silo_stddev_grid")

    @cached_property
    def _costs(self) -> dict[str, int]:
        return {}

    def cost(self, order: str) -> int:
        """Return what it takes from a budget at an order written as "p/q" [1e-9 RDP]."""
        if order not in self._costs:
            self._costs[order] = cost_of(self.joint, Fraction(order))
        return self._costs[order]

    def _mechanism(self, noise: str) -> Mechanism:
        event = self.event
        multiplier = Fraction(event[noise], event["sens_grid"])
        return Mechanism(multiplier, event["sampling_ppm"], event["steps"])


@dataclass(frozen=True)
class Plan:
    """The terms of a plan; `raw` is the whole object that every silo signed."""

    raw: Mapping[str, Any]
    digest: str
    releases: Mapping[tuple[str, int], Planned]
    earlier: tuple[Planned, ...]
    order: Fraction
    delta: float
    expires: date
    roster: Mapping[str, Key]
    coordinator: Key | None

    @property
    def budget(self) -> int:
        """What all releases cost together [1e-9 RDP]."""
        return int(self.raw["budget_units"])

    @property
    def witnesses(self) -> int:
        """How many others must have co-signed a ledger's head before its next release."""
        return int(self.raw["witnesses"])

    @property
    def trust(self) -> str:
        """`aggregate` (noise shared by the cohort) or `silo` (each adds all of it)."""
        return str(self.raw["trust"])

    @property
    def is_simulation(self) -> bool:
        """Whether the plan claims nothing."""
        return bool(self.raw["mode"] == "simulation")

    def cohort(self, name: str) -> int:
        """Return `n_silos`, `n_min` or `t_collude`."""
        return int(self.raw["cohort"][name])

    @cached_property
    def charged(self) -> tuple[Planned, ...]:
        """Everything the certificate covers: earlier releases and this plan's own."""
        return (*self.earlier, *self.releases.values())

    @cached_property
    def cost_alike(self) -> Counter[Mechanism | None]:
        """What all releases that may stand in for each other cost together [1e-9 RDP]."""
        costs: Counter[Mechanism | None] = Counter()
        for release in self.releases.values():
            costs[release.alike] += self.cost(release)
        return costs

    @cached_property
    def epsilons(self) -> dict[str, float]:
        """What the PLAN record must say, computed again [1]."""
        joint = tuple(planned.joint for planned in self.charged)
        if accountant.epsilon_bound(joint, self.delta) > LARGEST_EPSILON:
            return dict.fromkeys(EPSILONS, math.inf)
        share = tuple(planned.share for planned in self.charged)
        more = math.sqrt(self.cohort("n_min")) if self.trust == "aggregate" else 1.0
        honest = tuple(m._replace(multiplier=m.multiplier * Fraction(more)) for m in share)
        epsilon, bound = accountant.epsilon_pld(joint, self.delta), accountant.epsilon_bound
        return {
            "epsilon": epsilon,
            "epsilon_rdp": accountant.epsilon_rdp(joint, self.delta),
            "all_honest": min(epsilon, bound(honest, self.delta)),
            "clear_shares": epsilon if share == joint else bound(share, self.delta),
        }

    def cost(self, planned: Planned) -> int:
        """Return what a release takes from the budget [1e-9 RDP]."""
        return planned.cost(self.raw["order"])


def read_plan(raw: Mapping[str, Any]) -> Plan:
    """Return the plan in `raw`.

    Raises:
        ValueError: a term is missing, unknown or of another kind.
    """
    _check_terms(raw)
    roster = {silo: read_key(text) for silo, text in raw["roster"].items()}
    releases: dict[tuple[str, int], Planned] = {}
    for planned in map(_planned, raw["releases"]):
        if releases.setdefault((planned.kind, planned.round_num), planned) is not planned:
            raise ValueError(f"{planned.kind} of round {planned.round_num} is planned twice")
    order, delta = read_number(raw["order"]), float(read_number(raw["target_delta"]))
    read_number(raw["target_epsilon"])
    if not (
        LEAST_ORDER <= order <= MOST_ORDER
        and 0 < delta < 1
        and releases
        and raw["budget_units"] > 0
    ):
        raise ValueError(f"its order, delta, budget or {len(releases)} releases are out of range")
    return Plan(
        raw=raw,
        digest=digest_of(canonical(raw)),
        releases=releases,
        earlier=tuple(map(_planned, raw["earlier"])),
        order=order,
        delta=delta,
        expires=date.fromisoformat(raw["expires"]),
        roster=roster,
        coordinator=read_key(raw["coordinator"]) if raw["coordinator"] else None,
    )


def _check_terms(raw: Mapping[str, Any]) -> None:
    odd = sorted(set(raw) ^ set(_TERMS))
    if odd:
        raise ValueError(f"the terms {', '.join(odd)} are missing or unknown")
    for name, kind in _TERMS.items():
        if type(raw[name]) is not kind:
            raise ValueError(f"{name} is {raw[name]!r:.40}, which is no {kind.__name__}")
    if raw["schema"] != SCHEMA:
        raise ValueError(f"schema {raw['schema']} is not {SCHEMA}")
    for name, known in _KNOWN.items():
        if raw[name] not in known:
            raise ValueError(f"{name} is {raw[name]!r:.40}; expected one of {known}")
    numbers = [int_of(raw["cohort"], name) for name in ("n_silos", "n_min", "t_collude")]
    n_silos, n_min, t_collude = numbers
    if not 0 <= t_collude < n_min <= n_silos:
        raise ValueError(f"a cohort of {n_silos} silos, {n_min} present, {t_collude} colluding")


def _planned(event: object) -> Planned:
    if not isinstance(event, dict) or sorted(event) != sorted(_EVENT):
        raise ValueError(f"{event!r:.60} is no release")
    least = min(int_of(event, name) for name in _EVENT if name != "kind")
    sound = text_of(event, "kind").isprintable() and text_of(event, "kind") and least > 0
    if not (sound and event["sampling_ppm"] <= EVERYBODY and event["steps"] <= MOST_STEPS):
        raise ValueError(f"the release {text_of(event, 'kind')!r} is out of range")
    return Planned(event["kind"], event["round_num"], event)


def plan_problems(plan: Plan) -> Iterator[str]:
    """Yield what keeps a plan that can be read from promising what it says."""
    yield from _noise_problems(plan)
    yield from _cost_problems(plan)
    yield from _witness_problems(plan)
    yield from _other_problems(plan)
    if plan.trust == "aggregate" and plan.raw["secure_aggregation"] == "none":
        yield "silos share the noise, but nothing hides each one's share"
    elif plan.trust == "aggregate" and not plan.is_simulation:
        yield "silos share the noise, but secure aggregation is only simulated"


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
