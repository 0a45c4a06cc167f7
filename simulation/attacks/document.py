"""An order -> the document of its attacks."""

from collections.abc import Callable
from typing import Any

from threadpoolctl import threadpool_limits

from fondaco.shared.config import unknown_name
from fondaco.shared.errors import ConfigError
from fondaco.shared.provenance import code_digest

from ..library import load_scenario
from .results import KIND, SCHEMA, Clock, Result
from .session import TARGETS, Order, Session
from .verdicts import ATTACKS
from .world import load_world

Progress = Callable[[str, int, int], None]

DEFAULT_SCENARIO = "synthetic"
SMALL = (
    "dataset.n_users=1500",
    "dataset.n_items=300",
    "dataset.declared_users=1500",
    "silos.count=10",
)
"""Of the default scenario: a few hundred customers are enough to be attacked."""
HEAD = 128


def make_order(
    scenario: str,
    settings: list[str],
    *,
    attacks: list[str],
    targets: list[str],
    epsilons: list[float],
    runs: int,
    quick: bool,
    seed: int,
) -> Order:
    """Return what the command line asks for, with all defaults filled in.

    Raises:
        ConfigError: a name is unknown, or a number is out of range.
    """
    for names, known, what in ((attacks, tuple(ATTACKS), "attack"), (targets, TARGETS, "target")):
        for name in names:
            if name not in known:
                raise ConfigError(unknown_name(name, known, what))
    if runs < 1:
        raise ConfigError(f"{runs=} must be at least 1")
    small = SMALL if scenario == DEFAULT_SCENARIO else ()
    overrides = [*small, f"privacy.head={HEAD}", f"seed={seed}", *settings]
    chosen = load_scenario(scenario, overrides)
    return Order(
        scenario=chosen,
        attacks=tuple(attacks) or tuple(ATTACKS),
        targets=tuple(targets) or TARGETS,
        epsilons=tuple(epsilons) or (chosen.privacy.epsilon,),
        runs=1 if quick else runs,
        quick=quick,
        seed=seed,
    )


def attack(order: Order, progress: Progress) -> dict[str, Any]:
    """Return the document of an order's attacks; its shape is in the folder's docstring.

    Raises:
        ConfigError: no chosen attack knows a chosen target, or there are too few customers.
        DataError: the data set is missing or holds a bad row.
    """
    steps = [
        (name, target, epsilon)
        for name in order.attacks
        for target in order.targets
        if target in ATTACKS[name].targets
        for epsilon in order.epsilons
    ]
    if not steps:
        known = {name: ATTACKS[name].targets for name in order.attacks}
        raise ConfigError(f"none of {order.targets} can be attacked so; possible: {known}")
    clock = Clock()
    results: list[Result] = []
    with threadpool_limits(1):
        session = _Told(order, progress).session
        for name, target, epsilon in steps:
            results += ATTACKS[name].run(session, target, epsilon)
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "scenario": order.scenario.name,
        "data": order.scenario.dataset.name,
        "seed": order.seed,
        "code_digest": code_digest(),
        "seconds": clock.seconds,
        "claims": session.claims,
        "results": [result.as_facts() for result in results],
    }


class _Told:
    """A session that reports how far it is, stage by stage."""

    def __init__(self, order: Order, progress: Progress) -> None:
        self._progress = progress
        self._done: dict[str, int] = {}
        self._of = {stage: n * len(order.epsilons) for stage, n in _stages(order).items()}
        progress("load", 0, 1)
        world = load_world(order.scenario)
        progress("load", 1, 1)
        self.session = Session(order=order, world=world, tell=self._tell)

    def _tell(self, stage: str) -> None:
        self._done[stage] = self._done.get(stage, 0) + 1
        self._progress(stage, self._done[stage], self._of.get(stage, self._done[stage]))


def _stages(order: Order) -> dict[str, int]:
    """Stage -> how often it reports at one claim."""
    stages: dict[str, int] = {}
    for name in order.attacks:
        for target in order.targets:
            if target in ATTACKS[name].targets:
                stages[ATTACKS[name].stage.format(target=target)] = ATTACKS[name].steps(
                    order, target
                )
    return stages
