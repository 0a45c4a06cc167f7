"""The autoencoder's network."""

import numpy as np
import torch
from torch import Tensor, nn

from ..base import PublicFacts, Timelines
from ..kernel_factors import extended, head_rows, log_popularity
from .base import Batch, Network


class AutoencoderNetwork(Network):
    """Head history -> tanh -> head scores, on top of DP popularity.

    Args:
        facts: its popularity is the frozen output bias; its catalogue tells about other items.
        width: units of the hidden layer, no more than items.
        items: head items that go in and out, at most.
    """

    popularity: Tensor
    head_popularity: Tensor

    def __init__(self, facts: PublicFacts, width: int, items: int) -> None:
        super().__init__()
        self._facts = facts
        self._head = np.array(facts.model.head[:items])
        size = len(self._head)
        self.encoder = nn.Linear(size, min(width, size), bias=False)
        self.decoder = nn.Linear(min(width, size), size, bias=False)
        bias = log_popularity(facts)
        self.register_buffer("popularity", torch.tensor(bias), persistent=False)
        self.register_buffer("head_popularity", torch.tensor(bias[self._head]), persistent=False)
        self.cells_per_user = 4 * size

    def encode(self, timelines: Timelines) -> Batch:
        """Return `history` (n_users, n_head), each row of norm 1 or empty."""
        return {"history": torch.from_numpy(head_rows(timelines, self._head))}

    def losses(self, batch: Batch) -> Tensor:
        """Return (n_users,) mean cross-entropy of the customer's own items."""
        history = batch["history"]
        log_chance = torch.log_softmax(self._head_scores(history), dim=1)
        return -(history.square() * log_chance).sum(dim=1)

    def scores(self, batch: Batch) -> Tensor:
        """Return (n_users, n_items) log-odds; other items are told by features and popularity."""
        rows = extended(self._facts, self.decoder.weight.detach().numpy())
        scores: Tensor = self._hidden(batch["history"]) @ torch.from_numpy(rows).T
        return scores + self.popularity

    def _hidden(self, history: Tensor) -> Tensor:
        return torch.tanh(self.encoder(history))

    def _head_scores(self, history: Tensor) -> Tensor:
        decoded: Tensor = self.decoder(self._hidden(history))
        return decoded + self.head_popularity
