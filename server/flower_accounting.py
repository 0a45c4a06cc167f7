"""A plan's account behind the interface of Flower's privacy accountants, for its reports.

The figures are the plan's, never smaller:

- from the first release on, epsilon is that of the *whole* plan. It was fixed before round 1 and
  holds however early a run stops; a smaller figure for a part is no valid promise if the results
  had a say in the stopping;
- releases are charged as a ledger charges them: one that the plan does not have is refused, and
  so is one that the budget does not cover. A failed attempt may be charged again; from then on
  PLD certifies nothing, and epsilon is what the ledgers' filter guarantees.

Flower counts clients, a plan counts customers at a silo: `sample_size` out of `population_size`
are customers per million.
"""

import math
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, NamedTuple

from dp_accounting.pld import PLDAccountant
from flwr.serverapp import (
    GaussianPrivacyEvent,
    NeighboringRelation,
    PrivacyAccountant,
    PrivacyConfig,
    PrivacySpent,
    SamplingMethod,
)

from fondaco.shared.errors import BudgetError, ConfigError, RefusalError
from fondaco.shared.privacy import accountant
from fondaco.shared.privacy.events import EVERYBODY, Mechanism
from fondaco.shared.privacy.plan import RunPlan

SCHEMA = 1
_BACKEND = "fondaco-plan"


class Composition(NamedTuple):
    """What Flower is told of one release: an event and how often it happens."""

    event: GaussianPrivacyEvent
    times: int


def flower_accountant(plan: RunPlan) -> PrivacyAccountant:
    """Return an accountant of `plan` for Flower; nothing is composed yet."""
    return PlanAccountant(plan)


class PlanAccountant:
    """Flower's `PrivacyAccountant` over one plan.

    Formal guarantee: once anything is composed, `get_epsilon` at the plan's delta is at least
    the plan's certificate; what is composed never costs more than the plan's budget.
    """

    def __init__(self, plan: RunPlan) -> None:
        self._plan = plan
        self._order = Fraction(plan.order)
        sampled = any(m.sampling_ppm != EVERYBODY for m in plan.mechanisms)
        method = SamplingMethod.POISSON if sampled else SamplingMethod.NO_AMPLIFICATION
        self._config = PrivacyConfig(
            target_delta=float(plan.target_delta),
            population_size=EVERYBODY,
            neighboring_relation=NeighboringRelation(plan.adjacency),
            sampling_method=method,
            max_epsilon=float(plan.target_epsilon),
        )
        self._planned: Counter[Mechanism] = Counter()
        self._whole_cost: Counter[Mechanism] = Counter()
        for release in plan.releases:
            once = release.joint._replace(steps=1)
            self._planned[once] += release.steps
            self._whole_cost[once] += plan.cost(release)
        self._by_event = {self._key(float(m.multiplier), m.sampling_ppm): m for m in self._planned}
        self._compositions: list[Composition] = []

    @property
    def config(self) -> PrivacyConfig:
        """The plan's delta, epsilon and neighbours, in Flower's words."""
        return self._config

    @property
    def num_releases(self) -> int:
        """Noisy sums composed; a release of several local steps counts each."""
        return sum(times for _, times in self._compositions)

    def composition_of(self, kind: str, round_num: int) -> Composition:
        """Return what to compose for a planned release.

        Raises:
            RefusalError: the plan has no such release.
        """
        release = self._plan.event_for(kind, round_num)
        event = GaussianPrivacyEvent(
            noise_multiplier=float(release.noise_multiplier),
            sample_size=release.sampling_ppm,
            population_size=EVERYBODY,
        )
        return Composition(event, release.steps)

    def compose(self, event: GaussianPrivacyEvent, count: int = 1) -> None:
        """Charge `count` releases of `event`.

        Raises:
            RefusalError: the plan has no such release.
            BudgetError: the plan's budget does not cover it.
        """
        cost = self._cost(self._after(event, count))
        if cost > self._plan.budget_units:
            raise BudgetError(
                f"{count} more of this release would cost {cost} of {self._plan.budget_units} units"
            )
        self._compositions.append(Composition(event, count))

    def get_epsilon(self, delta: float) -> float:
        """Return the plan's epsilon at `delta` [1]; before any release, that of earlier plans.

        Raises:
            ConfigError: delta is no probability.
        """
        return self._epsilon(self._counts(), delta)

    def get_delta(self, epsilon: float) -> float:
        """Return the plan's delta at `epsilon` [probability], before any release as above.

        Raises:
            ConfigError: epsilon is negative or not finite.
        """
        if isinstance(epsilon, bool) or not 0.0 <= epsilon < math.inf:
            raise ConfigError(f"{epsilon=} must be a finite number >= 0")
        counts = self._counts()
        certificate = _delta_pld(self._charged(counts), epsilon)
        return certificate if self._as_planned(counts) else max(certificate, self._delta(epsilon))

    def get_privacy_spent(self, delta: float | None = None) -> PrivacySpent:
        """Return what customers were promised for all that was composed."""
        delta = self._config.target_delta if delta is None else delta
        certified = self._as_planned(self._counts())
        return PrivacySpent(
            epsilon=self.get_epsilon(delta),
            delta=delta,
            num_releases=self.num_releases,
            accounting_method="pld" if certified else "rdp",
            optimal_order=None if certified else float(self._order),
        )

    def would_exceed(
        self, event: GaussianPrivacyEvent, max_epsilon: float | None = None, count: int = 1
    ) -> bool:
        """Return whether `event` would break the plan's budget or this limit on epsilon.

        Args:
            event: a release of the plan.
            max_epsilon: on the whole plan, the plan's own target where there is none [1].
            count: how many of it.

        Raises:
            RefusalError: the plan has no such release.
            ConfigError: the limit is no positive number.
        """
        limit = float(self._plan.target_epsilon) if max_epsilon is None else max_epsilon
        if isinstance(limit, bool) or not 0.0 < limit < math.inf:
            raise ConfigError(f"{max_epsilon=} must be a finite number > 0")
        after = self._after(event, count)
        if self._cost(after) > self._plan.budget_units:
            return True
        return self._epsilon(after, self._config.target_delta) > limit

    def state_dict(self) -> dict[str, object]:
        """Return what was composed, ready for JSON."""
        return {
            "schema_version": SCHEMA,
            "backend": _BACKEND,
            "plan": self._plan.digest,
            "compositions": [
                {
                    "noise_multiplier": event.noise_multiplier,
                    "sample_size": event.sample_size,
                    "count": times,
                }
                for event, times in self._compositions
            ],
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Replay what `state_dict` returned, in place of what was composed here.

        Raises:
            ConfigError: it is damaged, or of another plan; this accountant is left as it was.
            RefusalError: it holds what the plan does not allow; likewise.
        """
        expected = {"schema_version": SCHEMA, "backend": _BACKEND, "plan": self._plan.digest}
        for name, value in expected.items():
            if state.get(name) != value:
                raise ConfigError(f"state has {name}={state.get(name)!r}; expected {value!r}")
        replayed = PlanAccountant(self._plan)
        for event, times in _parse(state.get("compositions")):
            replayed.compose(event, times)
        self._compositions = replayed._compositions

    def _after(self, event: GaussianPrivacyEvent, count: int) -> Counter[Mechanism]:
        """What would be charged with `count` more of `event`."""
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ConfigError(f"{count=} must be a whole number >= 1")
        return self._counts() + Counter({self._planned_as(event): count})

    def _planned_as(self, event: GaussianPrivacyEvent) -> Mechanism:
        """The planned release that `event` is."""
        found = self._by_event.get(self._key(event.noise_multiplier, event.sample_size))
        if event.population_size != EVERYBODY or found is None:
            raise RefusalError(
                f"the plan has no release with noise multiplier {event.noise_multiplier} and "
                f"{event.sample_size} of {event.population_size} taking part",
                "not-in-plan",
            )
        return found

    def _key(self, multiplier: float, sampling_ppm: int) -> tuple[float, int]:
        """Without amplification Flower's sample size is for reports only."""
        amplified = self._config.sampling_method is SamplingMethod.POISSON
        return multiplier, sampling_ppm if amplified else EVERYBODY

    def _counts(self) -> Counter[Mechanism]:
        counts: Counter[Mechanism] = Counter()
        for event, times in self._compositions:
            counts[self._planned_as(event)] += times
        return counts

    def _as_planned(self, counts: Mapping[Mechanism, int]) -> bool:
        return all(count <= self._planned[once] for once, count in counts.items())

    def _charged(self, counts: Mapping[Mechanism, int]) -> tuple[Mechanism, ...]:
        """All of the plan once anything was released; before that, earlier plans only."""
        if counts:
            return self._plan.mechanisms
        return tuple(release.joint for release in self._plan.earlier)

    def _cost(self, counts: Mapping[Mechanism, int]) -> int:
        """Cost at the plan's order, in which all that is planned fits exactly [1e-9 RDP]."""
        total = 0
        for once, count in counts.items():
            whole, rest = divmod(count, self._planned[once])
            total += whole * self._whole_cost[once]
            if rest:
                total += accountant.rdp_units(once._replace(steps=rest), self._order)
        return total

    def _filter_units(self) -> int:
        """What the filters of this plan and of the earlier ones let through [1e-9 RDP]."""
        earlier = (accountant.rdp_units(e.joint, self._order) for e in self._plan.earlier)
        return self._plan.budget_units + sum(earlier)

    def _delta(self, epsilon: float) -> float:
        """Delta that the filters guarantee; `accountant.epsilon_at`, solved for delta."""
        alpha, rdp = float(self._order), self._filter_units() / accountant.UNITS_PER_RDP
        exponent = (alpha - 1.0) * (rdp + math.log1p(-1.0 / alpha) - epsilon)
        return math.exp(min(exponent, math.log(alpha))) / alpha

    def _epsilon(self, counts: Mapping[Mechanism, int], delta: float) -> float:
        if isinstance(delta, bool) or not 0.0 < delta < 1.0:
            raise ConfigError(f"{delta=} must lie between 0 and 1")
        mechanisms = self._charged(counts)
        certificate = accountant.epsilon_pld(mechanisms, delta) if mechanisms else 0.0
        if self._as_planned(counts):
            return certificate
        by_filter = accountant.epsilon_at(self._filter_units(), self._order, delta)
        return max(certificate, by_filter)


def _delta_pld(mechanisms: tuple[Mechanism, ...], epsilon: float) -> float:
    if not mechanisms:
        return 0.0
    sampled = any(m.sampling_ppm != EVERYBODY for m in mechanisms)
    pld = PLDAccountant(value_discretization_interval=1e-3 if sampled else 1e-4)
    pld.compose(accountant.as_dp_event(mechanisms))
    return float(pld.get_delta(epsilon))


def _parse(raw: object) -> list[Composition]:
    try:
        if not isinstance(raw, list):
            raise TypeError("compositions must be a list")
        return [_composition(**entry) for entry in raw]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"this is no accountant's state: {error}") from None


def _composition(noise_multiplier: Any, sample_size: Any, count: Any) -> Composition:  # noqa: ANN401
    event = GaussianPrivacyEvent(
        noise_multiplier=noise_multiplier, sample_size=sample_size, population_size=EVERYBODY
    )
    return Composition(event, count)
