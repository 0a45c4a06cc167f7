"""The autoencoder's network."""

import numpy as np
import torch
from torch import Tensor, nn

from ..base import PublicFacts, Timelines
from .base import Batch, Network


class AutoencoderNetwork(Network):
    """Head history -> tanh -> head scores, on top of DP popularity.

    Args:
        facts: its popularity is the frozen output bias; items outside of the head get theirs.
        width: units of the hidden layer.
        items: head items that go in and out.
    """

    popularity: Tensor

    def __init__(self, facts: PublicFacts, width: int, items: int) -> None:
        super().__init__()
        self._head = np.asarray(facts.model.head[:items])
        self.encoder = nn.Linear(len(self._head), width)
        self.decoder = nn.Linear(width, len(self._head), bias=False)
        floor = float(facts.model.popularity.max()) * 1e-3 + 1e-9
        bias = np.log(np.maximum(facts.model.popularity, floor)).astype(np.float32)
        self.register_buffer("popularity", torch.from_numpy(bias), persistent=False)
        self.cells_per_user = 4 * len(self._head)

    def encode(self, timelines: Timelines) -> Batch:
        """Return `history` (n_users, n_head) 0/1."""
        known = timelines.incidence()[:, self._head].toarray()
        return {"history": torch.from_numpy(known)}

    def losses(self, batch: Batch) -> Tensor:
        """Return (n_users,) mean cross-entropy of the customer's own items."""
        history = batch["history"]
        log_chance = torch.log_softmax(self._head_scores(history), dim=1)
        return -(history * log_chance).sum(dim=1) / history.sum(dim=1).clamp(min=1.0)

    def scores(self, batch: Batch) -> Tensor:
        """Return (n_users, n_items) log-odds; popularity alone outside of the head."""
        scores = self.popularity.repeat(len(batch["history"]), 1)
        scores[:, self._head] = self._head_scores(batch["history"])
        return scores

    def _head_scores(self, history: Tensor) -> Tensor:
        length = history.norm(dim=1, keepdim=True).clamp(min=1.0)
        hidden = torch.tanh(self.encoder(history / length))
        decoded: Tensor = self.decoder(hidden)
        return decoded + self.popularity[self._head]
