"""Matrix factorisation: items' factors are global, a customer's is solved where the customer is.

Two ways to learn the items' factors, on equal terms:

- `als` asks for one projected sum of the customers' histories per release and solves for the
  factors from all of them; it needs very few releases.
- `sgd` descends the softmax likelihood with the customers' factors held at their ridge solution.

A customer's factor never leaves the silo; only clipped and noised sums over customers do.

Source: Hu et al. 2008 (implicit ALS); Chien et al. 2021 (private ALS by sufficient statistics).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from fondaco.shared.errors import ConfigError
from fondaco.shared.privacy.gradients import Factors

from . import mf_als, mf_sgd
from .base import (
    Array32,
    FactorModel,
    PublicFacts,
    Released,
    RoundTerms,
    Sizes,
    Timelines,
    check_range,
)
from .kernel_factors import head_facts, head_rows

ROUNDS: Mapping[str, int] = {"als": 2, "sgd": 100}
"""Solver -> federated rounds where none are named."""
LEAST_WIDTH, MOST_WIDTH = 8, 64


@dataclass(frozen=True, kw_only=True)
class MfTerms(RoundTerms):
    """Knobs of matrix factorisation."""

    least_rounds: ClassVar[int] = 0

    rounds: int = 0
    """Federated rounds; 0 takes 2 for `als` and 100 for `sgd`."""
    learning_rate: float = 0.015
    averaged: float = 0.25
    solver: str = "als"
    """How items' factors are learned: als or sgd."""
    width: int = 0
    """Numbers per item that are learned at once; 0 follows the rule of `shared/models/mf.py`."""
    declared_users: int = 0
    """Publicly declared number of customers; 0 takes that of `[dataset]`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, ("width", "declared_users"), least=0)
        if self.solver not in ROUNDS:
            raise ConfigError(f"solver={self.solver!r} must be one of {tuple(ROUNDS)}")


def width_rule(mu: float, declared_users: int) -> int:
    """Return .5 sqrt(mu users) within LEAST_WIDTH and MOST_WIDTH: more signal, more directions.

    Args:
        mu: the model's own budget, as Gaussian DP [1].
        declared_users: publicly declared rough number of customers over all silos.
    """
    wanted = round(0.5 * float(np.sqrt(mu * declared_users)))
    return min(max(wanted, LEAST_WIDTH), MOST_WIDTH)


class Mf(FactorModel[MfTerms]):
    """Items' factors over the head, extended to the whole catalogue where scores are made."""

    name = "mf"
    terms = MfTerms

    def resolve(self, terms: MfTerms, mu: float, declared_users: int) -> MfTerms:
        """Return the terms with rounds, width and customers filled in."""
        return replace(
            terms,
            rounds=terms.rounds or ROUNDS[terms.solver],
            width=terms.width or width_rule(mu, declared_users),
            declared_users=terms.declared_users or declared_users,
        )

    def dim(self, terms: MfTerms, sizes: Sizes) -> int:
        """Return items times width."""
        return sizes.head * _width(terms, sizes.head)

    def n_parameters(self, terms: MfTerms, sizes: Sizes) -> int:
        """Return the numbers of the items' factors, and of what `als` asks with."""
        if terms.solver == "sgd":
            return self.dim(terms, sizes)
        return mf_als.n_numbers(sizes.head, _width(terms, sizes.head))

    def initial(self, terms: MfTerms, facts: PublicFacts) -> Array32:
        """Return factors of the items' public features, random ones where there are none."""
        known = head_facts(facts, len(facts.model.head))
        width = _width(terms, len(known.head))
        if terms.solver == "sgd":
            return mf_sgd.initial(known, width)
        return mf_als.initial(known, width).as_vector()

    def factors(
        self, terms: MfTerms, facts: PublicFacts, parameters: Array32, timelines: Timelines
    ) -> Sequence[Factors]:
        """Return every customer's outer product of a (n_head,) and a (width,) vector."""
        known = head_facts(facts, len(facts.model.head))
        rows = head_rows(timelines, known.head)
        if terms.solver == "sgd":
            return [mf_sgd.gradients(facts, parameters.reshape(len(known.head), -1), rows)]
        state = mf_als.State.of_vector(parameters, len(known.head), _width(terms, len(known.head)))
        return [mf_als.projections(known, state.asked, rows)]

    def advance(
        self, terms: MfTerms, facts: PublicFacts, parameters: Array32, released: Sequence[Released]
    ) -> Array32 | None:
        """Return what `als` asks next, in the end the solution; `sgd` has an optimizer."""
        if terms.solver == "sgd":
            return None
        known = head_facts(facts, len(facts.model.head))
        state = mf_als.State.of_vector(parameters, len(known.head), _width(terms, len(known.head)))
        learned = mf_als.Learning(
            known=known,
            customers=float(terms.declared_users),
            sampling_rate=terms.sampling_rate,
            before=state,
        )
        if len(released) < terms.rounds:
            return replace(state, asked=learned.next_asked(state.asked, released)).as_vector()
        return learned.solved(state.asked, released).as_vector()

    def scores(
        self, terms: MfTerms, facts: PublicFacts, parameters: Array32, timelines: Timelines
    ) -> Array32:
        """Return (n_users, n_items) scores; by popularity where a history says nothing."""
        known = head_facts(facts, len(facts.model.head))
        rows = head_rows(timelines, known.head)
        if terms.solver == "sgd":
            return mf_sgd.scores(facts, parameters.reshape(len(known.head), -1), rows)
        width = _width(terms, len(known.head))
        return mf_als.scores(facts, parameters, width, terms.declared_users, rows)


def _width(terms: MfTerms, head: int) -> int:
    """One direction of the head is popularity, which is known."""
    return max(1, min(terms.width, head - 1))
