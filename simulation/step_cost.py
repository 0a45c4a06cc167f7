"""What privacy costs in time: one step with it over the same step without, in one process."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fondaco.client import dpsgd
from fondaco.client.dataset import SiloDataset
from fondaco.server.aggregation import OPTIMIZERS
from fondaco.shared.catalogue import Catalogue
from fondaco.shared.models import FactorModel, NetworkModel, PublicFacts, Timelines
from fondaco.shared.models.networks.base import Batch, Network, load_parameters
from fondaco.shared.models.terms import PlannedModels, training_ends
from fondaco.shared.privacy.events import EVERYBODY
from fondaco.shared.privacy.gradients import Factors, GradientSum
from fondaco.shared.privacy.noise import NoiseStream
from fondaco.shared.privacy.plan import GRID, RunPlan
from fondaco.shared.records import GlobalModel

STEPS = 5
CUSTOMERS = 512
STDDEV_GRID = 4 * GRID
"""Scale of the noise; it does not change how long the noise takes."""


def measure_steps(
    silos: Sequence[SiloDataset], model: GlobalModel, plan: RunPlan, catalogue: Catalogue
) -> dict[str, float]:
    """Return iterative model -> time of a private step over one without privacy [1].

    On up to CUSTOMERS customers of the largest silo; medians of STEPS, taken in turns.
    """
    planned = PlannedModels.of_plan(plan)
    if not planned.iterative:
        return {}
    largest = max(silos, key=lambda silo: silo.n_users)
    timelines = largest.timelines(training_ends(plan))
    timelines = timelines.take(np.arange(min(CUSTOMERS, timelines.n_users)))
    facts = PublicFacts(catalogue=catalogue, model=model)
    parameters = planned.split(model.parameters)
    ratios = {}
    for name in planned.iterative:
        steps = steps_of(name, planned, facts, parameters[name], timelines)
        private, plain = take_turns([steps.private, steps.plain])
        ratios[name] = private / plain
    return ratios


@dataclass(frozen=True, kw_only=True)
class Steps:
    """The same step twice: sum of gradients, then the server's optimizer."""

    private: Callable[[], None]
    plain: Callable[[], None]


def steps_of(
    name: str,
    planned: PlannedModels,
    facts: PublicFacts,
    parameters: NDArray[np.float32],
    timelines: Timelines,
) -> Steps:
    """Return both steps of a model on these customers."""
    model, terms = planned.model(name)
    gradients: Callable[[], Sequence[Factors]]
    if isinstance(model, NetworkModel):
        network = model.network(terms, facts)
        batch = network.encode(timelines)
        load_parameters(network, parameters)

        def gradients() -> Sequence[Factors]:
            return dpsgd.factors(network, batch)

        def plain() -> None:
            plain_step(network, batch, parameters)
    elif isinstance(model, FactorModel):

        def gradients() -> Sequence[Factors]:
            return model.factors(terms, facts, parameters, timelines)

        def plain() -> None:
            everybody = np.ones(timelines.n_users)
            sums = []
            for layer in gradients():
                sums.append(np.zeros(layer.dim))
                layer.add_to(sums[-1], everybody)
            move(np.concatenate(sums))
    else:
        raise TypeError(f"{name} takes no steps")
    dim = model.dim(terms, planned.sizes)
    return Steps(private=lambda: private_step(dim, timelines.n_users, gradients), plain=plain)


def private_step(dim: int, n_users: int, gradients: Callable[[], Sequence[Factors]]) -> None:
    """Take one step along the clipped and noised sum of `gradients`."""
    noise = NoiseStream.from_system()
    sample = noise.sample(n_users, EVERYBODY)
    total = GradientSum(dim, 1e-3, GRID, sample)
    total.add(sample.user_nums, gradients())
    move((total.total().values + noise.gaussian(dim, STDDEV_GRID)).astype(np.float64))


def move(direction: NDArray[np.float64]) -> None:
    """Let Adam take one step from nought."""
    OPTIMIZERS["fedadam"](0.01).step(np.zeros(len(direction)), direction)


def plain_step(network: Network, batch: Batch, parameters: NDArray[np.float32]) -> None:
    """Take one step along the gradient of the mean loss, as training without privacy does."""
    load_parameters(network, parameters)
    network.train()
    network.zero_grad()
    torch.autograd.backward(network.losses(batch).mean())
    flat = torch.cat([p.grad.reshape(-1) for p in network.parameters() if p.grad is not None])
    move(flat.double().numpy())


def take_turns(actions: Sequence[Callable[[], None]], times: int = STEPS) -> list[float]:
    """Return the median time of each action, one after another, `times` times [s]."""
    seconds: list[list[float]] = [[] for _ in actions]
    for _ in range(times + 1):
        for action, found in zip(actions, seconds, strict=True):
            start = time.process_time()
            action()
            found.append(time.process_time() - start)
    return [statistics.median(found[1:]) for found in seconds]
