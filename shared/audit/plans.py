"""A plan as the verifier reads it: from its raw text, without the code that wrote it."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from functools import cached_property
from typing import Any

from ..privacy import accountant
from ..privacy.events import EVERYBODY, Mechanism
from .accounting import cost_of
from .formats import Key, canonical, digest_of, int_of, read_key, read_number, text_of

SCHEMA = 4
LEAST_ORDER, MOST_ORDER = 1.001, 100_000
"""Renyi orders beyond these are nobody's best, and computing at them fails or has no end [1]."""
MOST_STEPS = 1000
MASKED = "masked-sum"
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
    "key_agreement": str,
    "ring_bits": int,
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
    "secure_aggregation": (MASKED, "simulated", "none"),
    "key_agreement": ("", "x25519", "x25519-mlkem768"),
    "ring_bits": (0, 32, 64),
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
    def is_masked(self) -> bool:
        """Whether only sums of silos can be read."""
        return bool(self.raw["secure_aggregation"] == MASKED)

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
