"""The sequence model's network."""

import math
from dataclasses import dataclass, replace
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

    def losses(self, batch: Batch) -> Tensor:
        """Return (n_users,) mean cross-entropy of the window's new items; 0 where there are none.

        What the customer had before, and what the silo does not sell, cannot be chosen.
        """
        n_items = self.trend.out_features
        open_to = batch["sold"] & ~_marked(batch["seen"], n_items)
        scores = self._scores(batch, "then").masked_fill(~open_to, NEVER)
        log_chance = torch.log_softmax(scores, dim=1)
        there = batch["targets"] < n_items
        taken = log_chance.gather(1, batch["targets"].clamp(max=n_items - 1)) * there
        return -taken.sum(dim=1) / there.sum(dim=1).clamp(min=1)

    def scores(self, batch: Batch) -> Tensor:
        """Return (n_users, n_items) log-odds of being bought next."""
        return self._scores(batch, "now")

    def _scores(self, batch: Batch, moment: str) -> Tensor:
        places, features = batch[f"{moment}_places"], batch[f"{moment}_features"]
        there = places < len(self.item_in) - 1
        known = there.any(dim=1, keepdim=True).float()
        items = self.item_in[places]
        strength = features @ self.start + RECENCY_SCALE * self.recency(features).squeeze(2)
        if self._terms.query_width:
            strength = strength + self._match(items, there)
        weights = torch.softmax(strength.masked_fill(~there, NEVER), dim=1)
        taste = (weights[:, None] @ items).squeeze(1)
        gate = TEMPERATURE + GATE_SCALE * self.gate(batch[f"{moment}_context"])
        personal = known * gate * _standardised(taste @ self.item_out.T)
        trend = self.trend(torch.ones_like(known))
        scores: Tensor = personal + (1.0 - known) * self.popularity + trend
        return scores

    def _match(self, items: Tensor, there: Tensor) -> Tensor:
        """(n_users, length) how well each item goes with the latest ones."""
        n_latest = there[:, :LATEST].sum(dim=1, keepdim=True).clamp(min=1)
        query = self.query(items[:, :LATEST].sum(dim=1) / n_latest)
        match: Tensor = (self.key(items) @ query[:, :, None]).squeeze(2)
        return match / math.sqrt(self._terms.query_width)

    def _moment(self, name: str, rows: "_Rows", moment: float, n_users: int) -> Batch:
        """What is attended to at a moment: each customer's latest distinct items, newest first."""
        length = self._terms.length
        counts = np.bincount(rows.users, minlength=n_users)
        ranks = np.arange(len(rows.users)) - (np.cumsum(counts) - counts)[rows.users]
        ages = np.zeros(len(rows.users))
        if np.isfinite(moment):
            ages = np.maximum(moment - rows.times, 0.0)
        newest = np.zeros(n_users)
        newest[rows.users[ranks == 0]] = ages[ranks == 0]
        kept = ranks < length
        at = rows.users[kept], ranks[kept]
        places = np.full((n_users, length), len(self.item_in) - 1)
        places[at] = self._place[rows.items[kept]]
        features = np.zeros((n_users, length, N_FEATURES), dtype=np.float32)
        features[at] = _features(ages, ages - newest[rows.users], ranks, rows.repeats)[kept]
        return {
            f"{name}_places": torch.from_numpy(places),
            f"{name}_features": torch.from_numpy(features),
            f"{name}_context": torch.from_numpy(_context(counts, newest)),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class _Rows:
    """Rows of a batch: users, items, times and how often a pair came, all (n_rows,)."""

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    times: NDArray[np.float64]
    repeats: NDArray[np.int64]
    n_items: int

    @classmethod
    def of(cls, timelines: Timelines) -> "_Rows":
        return cls(
            users=np.repeat(np.arange(timelines.n_users), timelines.lengths),
            items=timelines.item_nums,
            times=timelines.times,
            repeats=np.ones(len(timelines.item_nums), dtype=np.int64),
            n_items=timelines.n_items,
        )

    def take(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> "_Rows":
        return replace(
            self,
            users=self.users[chosen],
            items=self.items[chosen],
            times=self.times[chosen],
            repeats=self.repeats[chosen],
        )

    def keys(self) -> NDArray[np.int64]:
        """One number per customer and item."""
        return np.asarray(self.users * self.n_items + self.items)

    def distinct(self) -> "_Rows":
        """Each pair's last row, newest first within a customer, ties by item."""
        order = np.lexsort((self.times, self.items, self.users))
        keys = self.keys()[order]
        last = np.append(keys[1:] != keys[:-1], True)[: len(keys)]
        ends = np.flatnonzero(last)
        rows = replace(self.take(order[ends]), repeats=np.diff(ends, prepend=-1))
        return rows.take(np.lexsort((rows.items, -rows.times, rows.users)))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Frozen:
    """Tensors of the facts; `place` (n_items,) is an item's row of `item_in`, whose last is 0."""

    item_in: Tensor
    item_out: Tensor
    popularity: Tensor
    place: NDArray[np.int64]


@lru_cache(maxsize=4)
def _frozen(facts: PublicFacts) -> _Frozen:
    model = facts.model
    place = np.full(len(facts.catalogue), len(model.head), dtype=np.int64)
    place[model.head] = np.arange(len(model.head))
    nothing = np.zeros((1, model.item_in.shape[1]), dtype=np.float32)
    chance = np.log(model.popularity + 0.1 * model.popularity.mean() + 1e-9)
    return _Frozen(
        item_in=torch.from_numpy(np.concatenate([model.item_in, nothing])),
        item_out=torch.from_numpy(np.array(model.item_out)),
        popularity=_standardised(torch.from_numpy(chance.astype(np.float32))[None])[0],
        place=place,
    )


def _in_window(timelines: Timelines, window_days: float) -> NDArray[np.bool_]:
    """(n_rows,) whether a row is predicted from those before it, rather than one of them."""
    if np.isfinite(timelines.now):
        return np.asarray(timelines.times >= timelines.now - window_days)
    held_out = np.ceil(HELD_OUT * timelines.lengths).astype(np.int64)
    first = timelines.indptr[1:] - np.where(timelines.lengths > 1, held_out, 0)
    return np.arange(len(timelines.item_nums)) >= np.repeat(first, timelines.lengths)


def _features(
    ages: NDArray[np.float64],
    behind: NDArray[np.float64],
    ranks: NDArray[np.int64],
    repeats: NDArray[np.int64],
) -> NDArray[np.float64]:
    """(n_rows, N_FEATURES) of ages and days behind the newest item, order and count."""
    columns = (
        ages / AGE_UNIT_DAYS,
        np.exp(-ages / 15.0),
        np.exp(-ages / 60.0),
        behind / AGE_UNIT_DAYS,
        behind < 1.0,
        np.log1p(ages) / 4.0,
        np.log1p(ranks) / 4.0,
        np.log(repeats),
    )
    return np.column_stack(columns)


def _context(counts: NDArray[np.int64], newest: NDArray[np.float64]) -> NDArray[np.float32]:
    """(n_users, N_CONTEXT) of the number of distinct items and the newest one's age."""
    none = counts == 0
    columns = (
        np.ones(len(counts)),
        np.log1p(counts) / 4.0 - 0.75,
        none,
        np.log1p(newest) / 4.0 - 0.75 * ~none,
    )
    return np.column_stack(columns).astype(np.float32)


def _padded(keys: NDArray[np.int64], n_users: int, n_items: int) -> Tensor:
    """(n_users, longest) items of the sorted `keys`, filled up with n_items."""
    users, items = keys // n_items, keys % n_items
    counts = np.bincount(users, minlength=n_users)
    padded = np.full((n_users, max(1, counts.max(initial=0))), n_items)
    padded[users, np.arange(len(users)) - (np.cumsum(counts) - counts)[users]] = items
    return torch.from_numpy(padded)


def _marked(padded: Tensor, n_items: int) -> Tensor:
    """(n_users, n_items) whether an item is among a customer's."""
    marks = torch.zeros(len(padded), n_items + 1, dtype=torch.bool)
    return marks.scatter_(1, padded, True)[:, :n_items]


def _standardised(scores: Tensor) -> Tensor:
    """`scores` (n_users, n_items) with mean 0 and spread 1 per customer; zeros stay zeros."""
    centred = scores - scores.mean(dim=1, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(dim=1, keepdim=True) + 1e-12)
