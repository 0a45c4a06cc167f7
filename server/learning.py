"""Learns one iterative model from its rounds: what to send, what to make of what comes back."""

import numpy as np
from numpy.typing import NDArray

from fondaco.shared.errors import ConfigError
from fondaco.shared.models import PublicFacts
from fondaco.shared.models.base import Array32, Released
from fondaco.shared.models.terms import PlannedModels, trains_locally
from fondaco.shared.privacy.plan import RunPlan

from .aggregation import OPTIMIZERS
from .checkpoint import RoundResult
from .global_model import joint_stddev


class Learner:
    """The state of one model between rounds: post-processing of releases alone.

    A killed run makes it anew and shows it the rounds that are there: the same parameters.

    Args:
        name: the model.
        plan: its terms.
        facts: what is public or released when its first round starts.
        start: (n_parameters,) of an earlier run, None for the model's own beginning.
    """

    def __init__(
        self, name: str, plan: RunPlan, facts: PublicFacts, start: Array32 | None = None
    ) -> None:
        self._name = name
        self._plan = plan
        self._facts = facts
        self._model, self._terms = PlannedModels.of_plan(plan).model(name)
        beginning = self._model.initial(self._terms, facts) if start is None else start
        self._parameters: NDArray[np.float64] = beginning.astype(np.float64)
        named = OPTIMIZERS.get(self._terms.optimizer)  # else it is a rule of the model's own
        self._optimizer = named(self._terms.learning_rate) if named else None
        self._divisor = float(plan.public["declared_users"]) * self._terms.sampling_rate
        self._released: list[Released] = []
        self._rounds = 0
        self._late_sum = np.zeros_like(self._parameters)
        self._late = 0
        self._solved = False

    @property
    def parameters(self) -> Array32:
        """(n_parameters,) to be sent in the next round."""
        return self._parameters.astype(np.float32)

    def absorb(self, result: RoundResult) -> None:
        """Move by the joint release of one round."""
        noisy = result.total / self._plan.grid
        self._released.append(Released(total=noisy, noise_stddev=joint_stddev(self._plan, result)))
        moved, local = None, trains_locally(self._plan, self._name)
        if not local:
            moved = self._model.advance(self._terms, self._facts, self.parameters, self._released)
        if moved is None:
            self._released.clear()  # nobody asks for them, and there may be hundreds
        if moved is not None:
            self._parameters = moved.astype(np.float64)
            self._solved = True
        elif self._optimizer is None:
            raise ConfigError(f"{self._name} has no rule {self._terms.optimizer!r} to move by")
        else:
            direction = noisy if local else -noisy / self._divisor
            self._parameters = self._optimizer.step(self._parameters, direction)
        self._rounds += 1
        if self._rounds > round((1.0 - self._terms.averaged) * self._terms.rounds):
            self._late_sum += self._parameters
            self._late += 1

    def final(self) -> Array32:
        """Return (n_parameters,): those of the late rounds, averaged unless they were solved."""
        if not self._late or self._solved:
            return self.parameters
        return (self._late_sum / self._late).astype(np.float32)
