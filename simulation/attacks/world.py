"""The customers that attacks run on, and what a federation of them would publish.

Sums over silos are exact integers, so the joint release of a federation is the clipped sum of
all its customers plus the noise of its silos: a shadow model is learned from that, through the
very functions of client, server and core, and needs no messages.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fondaco.client.dataset import NO_ROWS, Fold, Rows, SiloDataset
from fondaco.client.training import Task, clipped_sum
from fondaco.server.checkpoint import RoundResult
from fondaco.server.global_model import build_base, choose_head
from fondaco.server.learning import Learner
from fondaco.shared.catalogue import Catalogue
from fondaco.shared.errors import ConfigError
from fondaco.shared.models import PublicFacts, Timelines
from fondaco.shared.models.base import Array32
from fondaco.shared.models.terms import POPULARITY, PlannedModels
from fondaco.shared.privacy.contribution import Histories, bound_contributions
from fondaco.shared.privacy.events import PrivacyEvent
from fondaco.shared.privacy.noise import NoiseStream
from fondaco.shared.privacy.plan import RunPlan
from fondaco.shared.records import GlobalModel

from ..datasets import load
from ..partition import partition
from ..planning import make_plan
from ..scenario import Scenario
from .mechanisms import published

Basket = NDArray[np.int64]
"""(n_items_of_customer,) distinct items, in the order in which they were first taken."""

LEAST_ITEMS = 6
"""Customers with fewer distinct items are left out: half of a history must say something."""


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """Real or synthetic customers of all silos in one place, as only an audit sees them.

    Attributes:
        baskets: of the customers.
        silo_ids: who they belong to.
    """

    scenario: Scenario
    catalogue: Catalogue
    baskets: Sequence[Basket]
    silo_ids: Sequence[str]

    def plan(self, *models: str, **terms: object) -> RunPlan:
        """Return the scenario's plan for these models.

        Args:
            models: names of MODELS.
            terms: knobs of the last of them.
        """
        changed = replace(self.scenario, models=models)
        if terms:
            last = models[-1]
            changed = replace(changed, **{last: replace(getattr(changed, last), **terms)})
        return make_plan(changed, self.catalogue, self.silo_ids)

    def at(self, epsilon: float) -> "World":
        """Return the same customers under another budget."""
        privacy = replace(self.scenario.privacy, epsilon=epsilon)
        return replace(self, scenario=replace(self.scenario, privacy=privacy))

    def drawn(self, n_users: int, rng: np.random.Generator) -> list[Basket]:
        """Return the baskets of customers drawn without replacement.

        Raises:
            ConfigError: there are not so many.
        """
        if n_users > len(self.baskets):
            raise ConfigError(
                f"{n_users} customers are needed, but the scenario has {len(self.baskets)} with "
                f"at least {LEAST_ITEMS} items"
            )
        return [self.baskets[num] for num in rng.permutation(len(self.baskets))[:n_users]]


def load_world(scenario: Scenario) -> World:
    """Return the customers of a scenario.

    Raises:
        ConfigError: a knob is out of range.
        DataError: the data set is missing or holds a bad row.
    """
    market = load(scenario.dataset, scenario.seed, scenario.silos.count or 10)
    silos = partition(market, scenario.silos, scenario.dataset, scenario.seed)
    found: list[Basket] = []
    for silo in silos:
        ends = np.searchsorted(silo.train.user_nums, np.arange(silo.n_users + 1))
        for start, stop in pairwise(ends):
            items, first = np.unique(silo.train.item_nums[start:stop], return_index=True)
            if len(items) >= LEAST_ITEMS:
                found.append(items[np.argsort(first)])
    return World(
        scenario=scenario,
        catalogue=market.catalogue,
        baskets=found,
        silo_ids=[silo.silo_id for silo in silos],
    )


def histories_of(baskets: Sequence[Basket], n_items: int) -> Histories:
    """Return one history per basket."""
    users = np.repeat(np.arange(len(baskets)), [len(basket) for basket in baskets])
    return bound_contributions(users, _joined(baskets), len(baskets), n_items)


def timelines_of(baskets: Sequence[Basket], n_items: int) -> Timelines:
    """Return the baskets as rows in order, without a clock."""
    lengths = [len(basket) for basket in baskets]
    return Timelines(
        indptr=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        item_nums=_joined(baskets),
        times=np.arange(sum(lengths), dtype=np.float64),
        now=np.inf,
        n_items=n_items,
    )


def rows_of(baskets: Sequence[Basket], first_user: int = 0) -> Rows:
    """Return the baskets as rows of customers `first_user` and on."""
    lengths = [len(basket) for basket in baskets]
    users = np.repeat(np.arange(len(baskets), dtype=np.int64) + first_user, lengths)
    return Rows(
        user_nums=users,
        item_nums=_joined(baskets),
        times=np.arange(len(users), dtype=np.float64),
    )


def task_of(
    plan: RunPlan, baskets: Sequence[Basket], facts: PublicFacts | None, head: NDArray[np.int64]
) -> Task:
    """Return what a silo with exactly these customers computes its statistics from."""
    nobody = Fold(user_nums=np.zeros(0, dtype=np.int64), history=NO_ROWS, targets=NO_ROWS)
    dataset = SiloDataset(
        silo_id="everybody",
        user_ids=np.arange(len(baskets)).astype(np.str_),
        n_items=plan.n_items,
        train=rows_of(baskets),
        valid=nobody,
        test=nobody,
    )
    return Task(
        plan=plan,
        dataset=dataset,
        histories=histories_of(baskets, plan.n_items),
        timelines=timelines_of(baskets, plan.n_items),
        head=head,
        facts=facts,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Federation:
    """Learns everybody's model from customers at once.

    Attributes:
        seed: of its noise, which hence protects nobody.
        copies: every sum is multiplied so often before the noise comes on top; with many the
            noise is nothing, which is how an attack is shown its power.
    """

    world: World
    plan: RunPlan
    seed: int
    copies: int = 1

    def learn(self, baskets: Sequence[Basket], *, weights: Array32 | None = None) -> PublicFacts:
        """Return what is published after all rounds but that of the fusion.

        Args:
            baskets: the customers that take part.
            weights: (n_buckets, n_parts) of the fusion; the first part alone by default.
        """
        facts = self.base(baskets)
        parts = [self._learn(kind, baskets, facts) for kind in self._planned.iterative]
        parameters = np.concatenate([facts.model.parameters[:0], *parts])
        fusion = facts.model.fusion if weights is None else weights
        return self._facts(replace(facts.model, parameters=parameters, fusion=fusion))

    def base(self, baskets: Sequence[Basket]) -> PublicFacts:
        """Return what is published before any iterative model is learned."""
        released: dict[str, RoundResult] = {}
        no_head = np.zeros(0, dtype=np.int64)
        for event in self._events(POPULARITY, "gram"):
            task = task_of(self.plan, baskets, None, no_head)
            if event.kind == "gram":
                head = choose_head(self.plan, released[POPULARITY].total)
                task = replace(task, head=head)
            released[event.kind] = self._release(task, event, np.zeros(0, dtype=np.float32))
        base = build_base(
            self.plan, self.world.catalogue, released[POPULARITY], released.get("gram")
        )
        return self._facts(base)

    @property
    def _planned(self) -> PlannedModels:
        return PlannedModels.of_plan(self.plan)

    def _events(self, *kinds: str) -> list[PrivacyEvent]:
        return [event for event in self.plan.releases if event.kind in kinds]

    def _facts(self, model: GlobalModel) -> PublicFacts:
        return PublicFacts(catalogue=self.world.catalogue, model=model)

    def _learn(self, kind: str, baskets: Sequence[Basket], facts: PublicFacts) -> Array32:
        learner = Learner(kind, self.plan, facts)
        task = task_of(self.plan, baskets, facts, np.zeros(0, dtype=np.int64))
        for event in self._events(kind):
            learner.absorb(self._release(task, event, learner.parameters))
        return learner.final()

    def _release(self, task: Task, event: PrivacyEvent, parameters: Array32) -> RoundResult:
        noise = NoiseStream.seeded(self.seed, event.kind, str(event.round_num))
        sample = noise.sample(task.histories.n_users, event.sampling_ppm)
        total = clipped_sum(task, event.kind, parameters, sample)
        return published(self.plan, event, total, noise, copies=self.copies)


def _joined(baskets: Sequence[Basket]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(0, dtype=np.int64), *baskets]).astype(np.int64)
