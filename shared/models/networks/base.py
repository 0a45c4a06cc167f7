"""What a federated network is made of, and how it is scored; imports torch."""

from abc import abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import vector_to_parameters

from ..base import Array32, Timelines

Batch = dict[str, Tensor]
"""Tensors whose first dimension is the customer."""
SCORED_AT_ONCE = 256


class Network(nn.Module):
    """A network of `nn.Linear` layers, each used once per forward pass.

    Customers never meet: row u of every output depends on row u of every input alone.
    """

    cells_per_user: int = 10_000
    """Numbers that one customer's activations take; fixes how many are worked on at once."""

    @abstractmethod
    def encode(self, timelines: Timelines) -> Batch:
        """Return what `losses` and `scores` read of these customers."""

    @abstractmethod
    def losses(self, batch: Batch) -> Tensor:
        """Return (n_users,) one loss per customer, of the whole history."""

    @abstractmethod
    def scores(self, batch: Batch) -> Tensor:
        """Return (n_users, n_items) scores."""


def load_parameters(network: nn.Module, parameters: NDArray[np.floating]) -> None:
    """Write (n_parameters,) flat `parameters` into `network`, in its own order."""
    vector = torch.from_numpy(np.array(parameters, dtype=np.float32))
    vector_to_parameters(vector, network.parameters())


def network_scores(network: Network, parameters: Array32, timelines: Timelines) -> Array32:
    """Return (n_users, n_items) scores of `network` with these parameters."""
    load_parameters(network, parameters)
    network.eval()
    scores = np.empty((timelines.n_users, timelines.n_items), dtype=np.float32)
    with torch.no_grad():
        for users, some in timelines.batches(SCORED_AT_ONCE):
            scores[users] = network.scores(network.encode(some)).numpy()
    return scores
