"""The sequence model's network."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..base import PublicFacts, Timelines
from ..sequence import N_CONTEXT, N_FEATURES, SequenceTerms
from .base import Batch, Network

TEMPERATURE = 0.7
"""Of the untrained network's standardised scores."""
RECENCY_SCALE = 0.1
GATE_SCALE = 0.01
"""Layers of few numbers would take up most of a customer's bounded gradient without these."""
AGE_UNIT_DAYS = 100.0
LATEST = 8
"""Items that the query is made of."""
HELD_OUT = 0.2
"""Part of a customer's rows that is predicted where no clock exists."""
NEVER = -1e4
"""Score of what cannot be chosen; finite, so that every loss is."""


class SequenceNetwork(Network):
    """softmax(recency) over frozen item factors, standardised, plus a trend per item.

    Customers without a head item in their history get popularity in place of the factors.

    Args:
        facts: its item factors and popularity are frozen in the network.
        terms: public knobs.
    """

    item_in: Tensor
    item_out: Tensor
    popularity: Tensor
    start: Tensor

    def __init__(self, facts: PublicFacts, terms: SequenceTerms) -> None:
        super().__init__()
        frozen = _frozen(facts)
        n_items, rank = frozen.item_out.shape
        self._place = frozen.place
        self._terms = terms
        start = torch.zeros(N_FEATURES)
        start[0] = -np.log(2.0) * AGE_UNIT_DAYS / terms.half_life_days
        for name, values in (
            ("item_in", frozen.item_in),
            ("item_out", frozen.item_out),
            ("popularity", frozen.popularity),
            ("start", start),
        ):
            self.register_buffer(name, values, persistent=False)
        self.recency = nn.Linear(N_FEATURES, 1, bias=False)
        self.gate = nn.Linear(N_CONTEXT, 1, bias=False)
        if terms.query_width:
            self.key = nn.Linear(rank, terms.query_width, bias=False)
            self.query = nn.Linear(rank, terms.query_width, bias=False)
        self.trend = nn.Linear(1, n_items, bias=False)
        self.cells_per_user = terms.length * (rank + N_FEATURES) + 8 * n_items

    def encode(self, timelines: Timelines) -> Batch:
        """Return the history before the window and the whole of it, and the window's new items.

        `then_*` and `now_*`: `places` (n_users, length) rows of `item_in`, `features`
        (n_users, length, N_FEATURES) and `context` (n_users, N_CONTEXT). `targets` and `seen`:
        (n_users, any) item numbers, filled up with n_items. `sold`: (n_users, n_items).
        """
        rows = _Rows.of(timelines)
        ahead = _in_window(timelines, self._terms.window_days)
        cut = timelines.now - self._terms.window_days
        past, n_items = rows.take(~ahead), timelines.n_items
        batch = self._moment("then", past.distinct(), cut, timelines.n_users)
        batch |= self._moment("now", rows.distinct(), timelines.now, timelines.n_users)
        seen, later = np.unique(past.keys()), np.unique(rows.take(ahead).keys())
        targets = np.setdiff1d(later, seen, assume_unique=True)
        sold = np.ones(n_items, dtype=bool)
        if timelines.assortment is not None:
            sold = timelines.assortment
            targets = targets[sold[targets % n_items]]
        batch["seen"] = _padded(seen, timelines.n_users, n_items)
        batch["targets"] = _padded(targets, timelines.n_users, n_items)
        batch["sold"] = torch.from_numpy(np.array(sold)).expand(timelines.n_users, n_items)
        return batch
