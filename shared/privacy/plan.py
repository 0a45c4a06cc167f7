"""RunPlan: everything that can change what a customer is promised, fixed before round 1."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal, get_args

from ..chain.canonical import MAX_INT, canonical_json
from ..chain.keys import COORDINATOR, PublicKey, key_name
from ..errors import ConfigError, RefusalError
from . import accountant
from .events import EVERYBODY, Mechanism, PrivacyEvent, decimal, require_exact_types, sound_order

SCHEMA = 4
GRID = 2**20
MAX_GRID = 2**24
SMALL_COHORT = 5
MIN_STDDEV_GRID = 100
MAX_STDDEV_GRID = 2**40
MAX_STEPS = 1000
MOST_BY_ATTEMPTS = 1.001
MAX_EPSILON = 1000
MAX_RELEASES = 20_000
MASKED = "masked-sum"
KEY_AGREEMENTS = ("x25519", "x25519-mlkem768")
MASKED_COHORT = range(3, 1001)
MAX_SUM = 2**62
MAX_NAME = 256

Trust = Literal["aggregate", "silo"]
Mode = Literal["simulation", "deploy"]

_KNOWN_TERMS: Mapping[str, tuple[object, ...]] = {
    "schema": (SCHEMA,),
    "unit": ("customer-at-silo",),
    "adjacency": ("add-or-remove-one",),
    "max_silos_per_customer": (1,),
    "trust": get_args(Trust),
    "secure_aggregation": (MASKED, "simulated", "none"),
    "key_agreement": ("", *KEY_AGREEMENTS),
    "ring_bits": (0, 32, 64),
    "mode": get_args(Mode),
}


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """Who takes part. `n_min` silos must remain; `t_collude` may side with the server.

    Raises:
        ConfigError: the numbers leave no honest silo.
    """

    n_silos: int
    n_min: int
    t_collude: int

    def __post_init__(self) -> None:
        require_exact_types(self)
        if not 0 < self.n_min <= self.n_silos:
            raise ConfigError(f"n_min={self.n_min} must lie between 1 and {self.n_silos} silos")
        if not 0 <= self.t_collude < self.n_min:
            raise ConfigError(f"t_collude={self.t_collude} must lie between 0 and n_min - 1")

    @classmethod
    def default(cls, n_silos: int, n_min: int = 0, t_collude: int = 0) -> "Cohort":
        """Return the cohort with zeros replaced: all but a tenth present, a tenth colluding."""
        n_min = n_min or n_silos - n_silos // 10
        t_collude = t_collude or min(max(1, n_silos // 10), n_min - 1)
        return cls(n_silos=n_silos, n_min=n_min, t_collude=t_collude)

    @property
    def threshold(self) -> int:
        """Silos that must agree on something: no two such groups without a common honest one.

        Two thirds of all, more if more than a third may collude. Source: Bonawitz et al. 2017.
        """
        return max(2 * self.n_silos // 3, (self.n_silos + self.t_collude) // 2) + 1

    @property
    def may_mask(self) -> bool:
        """Whether masks would hide anything among so many silos."""
        try:
            self.check_masked()
        except ConfigError:
            return False
        return True

    def check_masked(self) -> None:
        """Refuse masks among so few, or so many.

        Raises:
            ConfigError: they would hide nothing, or are not made for that many silos.
        """
        if self.n_silos not in MASKED_COHORT or self.n_min < self.threshold:
            raise ConfigError(
                f"masked sums need 3 to 1000 silos of which {self.threshold} remain, "
                f"not {self.n_min} of {self.n_silos}"
            )
        if self.n_min - self.t_collude == 1:
            raise ConfigError(f"t_collude={self.t_collude} leaves a single honest silo")

    def silo_stddev(self, stddev_grid: int, trust: Trust) -> int:
        """Return what each silo adds so that the honest sum has `stddev_grid` [grid units].

        Up to five silos every share carries the whole noise: with so few, one broken
        assumption would leave a customer nearly bare.
        """
        if trust == "silo" or self.n_silos <= SMALL_COHORT:
            return stddev_grid
        honest = self.n_min - self.t_collude
        share = math.isqrt(stddev_grid**2 // honest)
        return share if share**2 * honest >= stddev_grid**2 else share + 1


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What every silo agrees to release. Holds integers and text only, so its digest is exact.

    Attributes:
        unit: whose whole contribution is protected.
        adjacency: neighbouring relation.
        trust: `aggregate` (noise shared by the cohort) or `silo` (each adds all of it).
        secure_aggregation: `masked-sum`: only sums can be read (`shared/secagg`); `simulated`:
            sums are taken in the clear; `none`.
        key_agreement: how silos agree on their masks, "" without masks.
        ring_bits: masked numbers are added modulo 2 to this, 0 without masks.
        mode: `simulation` permits seeded noise and then claims nothing.
        grid: grid units per unit of a customer's clipped contribution.
        target_delta: decimal text [probability].
        target_epsilon: decimal text [1].
        order: Renyi order of the filter, as a fraction "p/q".
        budget_units: the plan's own cost at that order [1e-9 RDP].
        releases: the only sums that may ever leave a silo under this plan.
        catalogue_digest: hash of the public catalogue.
        n_items: its length; with `head` it fixes every tensor shape.
        head: items of the Gram.
        code_digest: hash of the `client` and `shared` code that may run it.
        models: public terms of every model that is learned (widths, rates, rounds), as text.
        earlier: what the same customers have been charged already, under the plans of
            `earlier_digest`; the certificate covers it, the budget does not.
        public: further public facts (split dates, declared number of customers), as text.
        expires: last day on which anything may be debited (ISO, UTC).
        witnesses: other silos that must have co-signed a ledger's head before its next release.
        roster: silo id -> public key, of all data owners; empty only without witnesses.
        coordinator: the coordinator's public key, "" only without witnesses.

    Raises:
        ConfigError: a term is unknown to this code, a release carries less noise than its
            guarantee rests on, or the plan costs more than it says.
    """

    schema: int = SCHEMA
    unit: str = "customer-at-silo"
    adjacency: str = "add-or-remove-one"
    max_silos_per_customer: int = 1
    trust: Trust
    secure_aggregation: str
    key_agreement: str = ""
    ring_bits: int = 0
    mode: Mode
    cohort: Cohort
    grid: int
    target_delta: str
    target_epsilon: str
    order: str
    budget_units: int
    releases: tuple[PrivacyEvent, ...]
    catalogue_digest: str
    n_items: int
    head: int
    code_digest: str
    models: Mapping[str, Mapping[str, str]]
    public: Mapping[str, str]
    earlier: tuple[PrivacyEvent, ...] = ()
    earlier_digest: str = ""
    expires: str
    witnesses: int = 0
    roster: Mapping[str, str] = field(default_factory=dict)
    coordinator: str = ""

    def __post_init__(self) -> None:
        require_exact_types(self)
        for name, known in _KNOWN_TERMS.items():
            if getattr(self, name) not in known:
                raise ConfigError(f"{name}={getattr(self, name)!r} must be one of {known}")
        self._check_terms()
        self._check_witnesses()
        self._check_masks()
        self._check_cost()

    def _check_terms(self) -> None:
        if len(self.earlier) + len(self.releases) > MAX_RELEASES:
            raise ConfigError(f"a plan of more than {MAX_RELEASES} releases is out of range")
        for event in (*self.earlier, *self.releases):
            _check_ranges(event)
        for event in self.releases:
            self._check_noise(event)
        if len({(event.kind, event.round_num) for event in self.releases}) != len(self.releases):
            raise ConfigError("the plan names a release twice")
        if not (self.n_items > 0 and 0 < self.head <= self.n_items):
            raise ConfigError(f"a head of {self.head} of {self.n_items} items is out of range")
        if bool(self.earlier) != bool(self.earlier_digest):
            raise ConfigError("earlier releases and the digest of their plan go together")
        if not all(_is_text(terms) for terms in (*self.models.values(), self.public)):
            raise ConfigError("terms of models and public facts must be text")
        _read_day(self.expires)

    def _check_witnesses(self) -> None:
        others = self.cohort.n_min - 1
        if not 0 <= self.witnesses <= others:
            raise ConfigError(f"witnesses={self.witnesses} must lie between 0 and {others}")
        if self.mode == "deploy" and self.witnesses < min(self.cohort.t_collude + 1, others):
            raise ConfigError(f"witnesses={self.witnesses} could all be colluding silos")
        if self.mode == "simulation" and not (self.roster or self.witnesses):
            return
        keys = {silo: PublicKey.from_text(text) for silo, text in self.roster.items()}
        if any(key.name != key_name(silo) for silo, key in keys.items()):
            raise ConfigError("a public key of the roster bears another silo's name")
        central = PublicKey.from_text(self.coordinator)
        if central.name != COORDINATOR:
            raise ConfigError(f"the coordinator's key is named {central.name}, not {COORDINATOR}")
        if not all(silo.isprintable() and len(silo) <= MAX_NAME for silo in keys):
            raise ConfigError(f"a silo's id must be printable and at most {MAX_NAME} long")
        known = {key.raw for key in (*keys.values(), central)}
        if not len(keys) == self.cohort.n_silos == len(known) - 1:
            raise ConfigError(f"the roster needs {self.cohort.n_silos} silos with their own keys")

    def _check_masks(self) -> None:
        """Refuse masks that would hide nothing, and a shared noise that nothing hides."""
        if self.secure_aggregation != MASKED:
            if self.mode == "deploy" and self.trust == "aggregate":
                raise ConfigError("trust='aggregate' needs secure_aggregation='masked-sum'")
            if self.key_agreement or self.ring_bits:
                raise ConfigError("key_agreement and ring_bits belong to masked sums only")
            return
        if self.trust != "aggregate" or not (self.key_agreement and self.ring_bits and self.roster):
            raise ConfigError("masked sums need trust='aggregate', key_agreement, ring and roster")
        self.cohort.check_masked()
        for event in self.releases:
            if self.sum_bound(event) < event.sens_grid:
                raise ConfigError(f"{event.kind} does not fit into a ring of {self.ring_bits} bits")

    def _check_noise(self, event: PrivacyEvent) -> None:
        if event.sens_grid != self.grid or not 0 < self.grid <= MAX_GRID:
            raise ConfigError(f"{event.kind} has the sensitivity {event.sens_grid}, not the grid's")
        low, high = sorted([event.stddev_grid, event.silo_stddev_grid])
        if low < MIN_STDDEV_GRID or high > MAX_STDDEV_GRID:
            raise ConfigError(
                f"noise of {event.kind} must lie between {MIN_STDDEV_GRID} and {MAX_STDDEV_GRID}"
            )
        if event.silo_stddev_grid < self.cohort.silo_stddev(event.stddev_grid, self.trust):
            raise ConfigError(f"silos add less noise to {event.kind} than its guarantee rests on")
        if event.steps > 1 and self.trust != "silo":
            raise ConfigError(f"{event.kind} has local steps, whose noise cannot be shared")

    def _check_cost(self) -> None:
        """Hold the claims against the releases: who wrote the plan need not be trusted."""
        delta, target = float(decimal(self.target_delta)), float(decimal(self.target_epsilon))
        if not (0 < delta < 1 and sound_order(self.order) and 0 < target <= MAX_EPSILON):
            raise ConfigError(
                f"delta {self.target_delta}, order {self.order} or epsilon {self.target_epsilon} "
                "is out of range"
            )
        if self.budget_units != sum(self.cost(event) for event in self.releases):
            raise ConfigError(f"a budget of {self.budget_units} is not what the releases cost")
        # Attempts may use the budget up in any way, so it must not be cheap at its order alone.
        worst = accountant.epsilon_at(self.budget_units, Fraction(self.order), delta)
        planned = tuple(event.joint for event in self.releases)
        if worst > MOST_BY_ATTEMPTS * accountant.epsilon_rdp(planned, delta):
            raise ConfigError(f"order {self.order} allows epsilon {worst:.3f} by attempts alone")
        # PLD takes memory by epsilon, and RDP is never so far above it.
        epsilon = accountant.epsilon_rdp(self.mechanisms, delta)
        if epsilon <= 2 * target + 1:
            epsilon = accountant.epsilon_pld(self.mechanisms, delta)
        if not epsilon <= target:
            raise ConfigError(f"the releases cost epsilon {epsilon:.4f}, not {self.target_epsilon}")

    def event_for(self, kind: str, round_num: int) -> PrivacyEvent:
        """Return the planned release of `kind` in `round_num`.

        Raises:
            RefusalError: the plan has no such release.
        """
        for event in self.releases:
            if (event.kind, event.round_num) == (kind, round_num):
                return event
        raise RefusalError(f"the plan has no release {kind!r} in round {round_num}", "not-in-plan")

    def sum_bound(self, event: PrivacyEvent) -> int:
        """Return where a silo cuts off each number of its sum, before noise [grid units].

        Formal guarantee: the noisy sums of all silos cannot wrap around the ring, because noise
        reaches at most 9.5 stddev (`noise`); cutting off moves no two sums apart.
        """
        if not self.ring_bits:
            return MAX_SUM // self.cohort.n_silos
        tail = (19 * event.silo_stddev_grid + 1) // 2
        return (1 << (self.ring_bits - 1)) // self.cohort.n_silos - tail - 2

    def allows(self, today: date) -> bool:
        """Return whether anything may still be debited on this day."""
        return today <= _read_day(self.expires)

    def cost(self, event: PrivacyEvent) -> int:
        """Return what `event` takes from the budget [1e-9 RDP]."""
        return accountant.rdp_units(event.joint, Fraction(self.order))

    @property
    def mechanisms(self) -> tuple[Mechanism, ...]:
        """All planned joint releases and the earlier ones, as accounted for."""
        return tuple(event.joint for event in (*self.earlier, *self.releases))

    def epsilons(self, honest: int | None = None) -> dict[str, float]:
        """Return what the plan costs a customer, by who is trusted [1].

        Keys: `epsilon` (certificate: against the server and `t_collude` silos),
        `epsilon_rdp`, `all_honest` (nobody colludes), `clear_shares` (each silo's share seen
        alone, as when secure aggregation breaks or is only simulated).
        """
        delta = float(self.target_delta)
        epsilon = accountant.epsilon_pld(self.mechanisms, delta)
        shares = tuple(event.share for event in (*self.earlier, *self.releases))
        clear = shares == self.mechanisms
        more = math.sqrt(honest or self.cohort.n_min) if self.trust == "aggregate" else 1.0
        joined = tuple(
            share._replace(multiplier=share.multiplier * Fraction(more)) for share in shares
        )
        return {
            "epsilon": epsilon,
            "epsilon_rdp": accountant.epsilon_rdp(self.mechanisms, delta),
            "all_honest": min(epsilon, accountant.epsilon_bound(joined, delta)),
            "clear_shares": epsilon if clear else accountant.epsilon_bound(shares, delta),
        }

    def to_json(self) -> str:
        """Return the canonical text: sorted keys, no spaces, no floats."""
        return canonical_json(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "RunPlan":
        """Return the plan written by `to_json`.

        Raises:
            ConfigError: the text is no plan of this schema.
        """
        try:
            raw: dict[str, Any] = json.loads(text)
            raw["cohort"] = Cohort(**raw["cohort"])
            raw |= {p: tuple(PrivacyEvent(**e) for e in raw[p]) for p in ("releases", "earlier")}
            plan = cls(**raw)
            _ = plan.digest  # what has none, such as half a character, is no plan
            return plan
        except (
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
            ArithmeticError,
            RecursionError,
        ) as error:
            raise ConfigError(f"this is no plan of schema {SCHEMA}: {error}") from error

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical text, as `sha256:...`."""
        return f"sha256:{hashlib.sha256(self.to_json().encode()).hexdigest()}"


def _check_ranges(event: PrivacyEvent) -> None:
    """Refuse an event that no accountant should be asked about."""
    positive = (event.round_num, event.dim, event.sens_grid, event.stddev_grid)
    sound = event.kind.isprintable() and event.kind and min(positive) > 0
    sound = sound and 0 < event.silo_stddev_grid <= MAX_INT and max(positive) <= MAX_INT
    if not (sound and 0 < event.sampling_ppm <= EVERYBODY and 0 < event.steps <= MAX_STEPS):
        raise ConfigError(f"release {event.kind!r} in round {event.round_num} is out of range")


def _is_text(terms: object) -> bool:
    return isinstance(terms, Mapping) and all(
        isinstance(part, str) for pair in terms.items() for part in pair
    )


def _read_day(text: str) -> date:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        raise ConfigError(f"expires={text!r} must be a day such as 2027-01-31")
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"expires={text!r} is no day: {error}") from None
