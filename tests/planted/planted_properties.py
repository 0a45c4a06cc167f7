"""Promises that cannot be read off releases.

Each takes the module that makes the promise and raises AssertionError if it is broken.
"""

from types import SimpleNamespace

import numpy as np
import torch
from planted_agents import AGENT_PROPERTIES
from torch import nn

from fondaco.shared.errors import ConfigError
from fondaco.shared.models.networks.base import Network


class _Net(Network):
    """A bag of 3 numbers through any layers."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def encode(self, timelines):
        return {"history": torch.from_numpy(timelines.incidence().toarray())}

    def losses(self, batch):
        return (self.scores(batch) ** 2).sum(dim=1)

    def scores(self, batch):
        return self.layers(batch["history"])


class _Tied(_Net):
    """Two layers with one table."""

    def __init__(self):
        super().__init__(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
        self.layers[1].weight = self.layers[0].weight


FORBIDDEN = {
    "BatchNorm": lambda: _Net(nn.Linear(3, 3), nn.BatchNorm1d(3, affine=False)),
    "EmbeddingBag": lambda: _Net(nn.EmbeddingBag(4, 3)),
    "Embedding": lambda: _Net(nn.Embedding(4, 3)),
    "tied tables": _Tied,
}


def tails_reach_nine_sigma(module):
    """The smallest uniform must be far enough from 0: 53 bits stop at 8.57 sigma."""

    class Zeros(module.NoiseStream):
        def _words(self, n):
            return np.zeros(n, dtype=np.uint64)

    stddev = 2**20
    drawn = Zeros(bytes(32), "test").gaussian(2, stddev)
    assert np.max(np.abs(drawn)) > 9 * stddev, f"{np.max(np.abs(drawn)) / stddev:.2f} sigma"


def networks_are_checked(module):
    """Layers that couple customers, or whose norms are wrong, are refused before data is seen."""
    module.check_network(_Net(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 3)))
    for name, build in FORBIDDEN.items():
        try:
            module.check_network(build())
        except ConfigError:
            continue
        raise AssertionError(f"{name} was let in")


def gradients_are_whole(module):
    """The factors that are clipped add up to autograd's gradient of every parameter."""
    torch.manual_seed(0)
    network = _Net(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 3))
    batch = {"history": torch.tensor([[1.0, 0, 0], [0, 1, 1], [1, 1, 1]])}
    summed = [
        np.einsum("uto,uti->oi", part.deltas, part.inputs).ravel()
        for part in module.factors(network, batch)
    ]
    whole = torch.autograd.grad(network.losses(batch).sum(), list(network.parameters()))
    expected = np.concatenate([part.detach().numpy().ravel() for part in whole])
    found = np.concatenate(summed)
    assert found.shape == expected.shape, "parameters are missing"
    assert np.allclose(found, expected, atol=1e-5)


def divisors_are_public(module):
    """Local steps divide by the declared number of customers, not by those who are there."""
    terms = SimpleNamespace(local_rate=0.1, sampling_rate=0.5)
    planned = SimpleNamespace(model=lambda kind: (kind, terms))
    module.PlannedModels = SimpleNamespace(of_plan=lambda plan: planned)
    module._network = lambda *facts: _Net(nn.Linear(3, 3))
    plan = SimpleNamespace(
        public={"declared_users": "100"}, cohort=SimpleNamespace(n_silos=2), releases=()
    )
    divisors = set()
    for n_users in (1, 7, 5000):
        dataset = SimpleNamespace(n_users=n_users)
        task = SimpleNamespace(plan=plan, dataset=dataset, ready=None)
        divisors.add(module.local_mover(task, "any").__self__._divisor)
    assert divisors == {25.0}, divisors


PROPERTIES = {
    check.__name__: check
    for check in (
        tails_reach_nine_sigma,
        networks_are_checked,
        gradients_are_whole,
        divisors_are_public,
    )
} | AGENT_PROPERTIES
