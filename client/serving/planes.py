"""Everything a silo can score items with, as named score planes of the same customers."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from fondaco.shared.catalogue import Catalogue
from fondaco.shared.models import Timelines
from fondaco.shared.models.published import GlobalParts, Published, never_ranked

from ..content import content_vectors, profile_scores, recency_weights
from ..dataset import Fold, Rows, SiloDataset, as_timelines
from .shelf import Shelf, gram_factor
from .solve import (
    LowRankEase,
    Solve,
    kernel_factor,
    own_factor,
)

Plane = NDArray[np.float32]

OWN_SETTINGS = ((1.0, 0.0), (3.0, 0.0), (1.0, 0.1), (3.0, 0.1))
"""(ridge, weight of the public feature kernel) of solves on own statistics alone."""
JOINT_SETTINGS = ((4.0, 0.1), (4.0, 0.5), (12.0, 0.1))
"""(beta, ridge) of solves on A = G_global + beta G_own; the ridge is in noise edges."""
GLOBAL_SETTINGS = ((0.0, 0.1), (0.0, 0.5))
"""The same where own statistics are left out."""
JOINT_RIDGE = 0.6
"""Ridge per unit of beta."""
POPULARITY_FLOOR = 0.3
"""Pseudo-sales per item, as a share of the mean."""
UNSOLD_MODEL = "content_tower"
"""The model that was learned to tell items apart which a silo never sold."""
KERNEL_HEAD = 400
"""Items whose mean popularity is the kernel's unit."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """Customers to be scored.

    Attributes:
        history: (n_users, n_items) 0/1, what is known of each.
        weighted: the same with recency weights, None where order has no clock.
        recent: (n_items,) the silo's recent sales, None likewise.
        timelines: the same customers' rows in order.
        unsold: (n_items,) what nobody took at this silo so far.
    """

    history: csr_matrix
    timelines: Timelines
    weighted: csr_matrix | None
    recent: NDArray[np.float64] | None
    unsold: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Named:
    """A score plane: which part of the model it belongs to, and whether it is a candidate base.

    Attributes:
        part: "global", "own" or "content", as shown in explanations.
        is_base: collaborative candidates are averaged into the base; others stand beside it.
    """

    name: str
    part: str
    is_base: bool
    scores: Plane


class Sales:
    """What all of a silo's rows say of items, counted once however many customers are asked for.

    Args:
        known: all rows, counted by the catalogue.
        shelf: what the silo sells; the answers count items by it.
        half_life_days: of recency [days].
    """

    def __init__(self, known: Rows, shelf: Shelf, half_life_days: float) -> None:
        self.known = known
        self._rows = rows = shelf.rows(known)
        self._n_items = len(shelf.items)
        self._half_life_days = half_life_days
        self.unsold = np.bincount(rows.item_nums, minlength=self._n_items) == 0
        self.newest = float(rows.times.max(initial=0.0))
        self._recent: tuple[float, NDArray[np.float64]] | None = None

    def recent(self, now: float) -> NDArray[np.float64]:
        """Return (n_items,) distinct customers who took an item within a half-life of `now`."""
        if self._recent is None or self._recent[0] != now:
            fresh = self._rows.times >= now - self._half_life_days
            keys = np.unique(
                self._rows.user_nums[fresh] * self._n_items + self._rows.item_nums[fresh]
            )
            counts = np.bincount(keys % self._n_items, minlength=self._n_items)
            self._recent = now, counts.astype(np.float64)
        return self._recent[1]


class Scorers:
    """A silo's fitted scorers; they count items by the silo's shelf.

    Args:
        dataset: the silo's rows; training rows are read here.
        catalogue: the public items.
        parts: everybody's model, None for a silo on its own.
        own: whether the silo's exact statistics take part.
        content: whether public item features take part.
        half_life_days: of recency, 0 where times are no clock [days].
        repeats: whether an item of the history may be recommended again.
    """

    def __init__(
        self,
        dataset: SiloDataset,
        catalogue: Catalogue,
        parts: GlobalParts | None,
        *,
        own: bool,
        content: bool,
        half_life_days: float,
        repeats: bool,
    ) -> None:
        self.repeats = repeats
        self.shelf = Shelf.of(dataset)
        self._dataset = dataset = self.shelf.dataset(dataset)
        self._catalogue = self.shelf.catalogue(catalogue)
        self._everything = catalogue
        self._parts = self.shelf.parts(parts)
        self._model = self._parts.model if self._parts else None
        self._own = own
        self._content = content
        self._half_life_days = half_life_days
        self._solves = list(self._fit())
        train = dataset.train.incidence(dataset.n_users, dataset.n_items)
        weights = 1.0 / np.sqrt(np.maximum(np.diff(train.indptr), 1))
        self._popularity = np.asarray(weights @ train).ravel()
        self._sales: Sales | None = None

    def ask(self, fold: Fold, known: Rows) -> Asked:
        """Return the customers of `fold` as they are known at its time.

        Args:
            fold: customers and their histories, counted by the catalogue.
            known: all rows that the silo has by then, of all customers.
        """
        if self._sales is None or self._sales.known is not known:
            self._sales = Sales(known, self.shelf, self._half_life_days)
        sales, fold = self._sales, self.shelf.fold(fold)
        history = fold.history_matrix(self._dataset.n_items)
        if not self._half_life_days:
            timelines = as_timelines(self._dataset, fold.user_nums, fold.history, math.inf)
            return Asked(
                history=history,
                timelines=timelines,
                weighted=None,
                recent=None,
                unsold=sales.unsold,
            )
        now = float(max(sales.newest, fold.history.times.max(initial=0.0)))
        return Asked(
            history=history,
            timelines=as_timelines(self._dataset, fold.user_nums, fold.history, now),
            weighted=recency_weights(_ages(fold, history, now), self._half_life_days),
            recent=sales.recent(now),
            unsold=sales.unsold,
        )

    def planes(self, asked: Asked) -> Iterator[Named]:
        """Yield every scorer's plane for the customers of `asked`."""
        for name, part, solve in self._solves:
            yield Named(name=name, part=part, is_base=True, scores=solve.score(asked.history))
            if asked.weighted is not None:
                recent = solve.score(asked.weighted)
                yield Named(name=f"{name}, recent", part=part, is_base=True, scores=recent)
        n_users = asked.history.shape[0]
        for name, part, scores in self._popularities(asked):
            plane = np.broadcast_to(scores.astype(np.float32), (n_users, len(scores)))
            yield Named(name=name, part=part, is_base=False, scores=plane)
        yield from self._networks(asked)
        yield from self._taken_before(asked)
        if self._content:
            alike = self.likeness(asked)
            yield Named(name="content profile", part="content", is_base=False, scores=alike)

    def likeness(self, asked: Asked) -> Plane:
        """Return (n_users, n_items) how much items look like the history, from public facts."""
        weighted = asked.history if asked.weighted is None else asked.weighted
        return profile_scores(weighted, content_vectors(self._catalogue))

    def of_unsold(self, asked: Asked) -> Plane | None:
        """Return everybody's scores of items that nobody took; None where no model has them."""
        if self._parts is None or UNSOLD_MODEL not in self._parts.names:
            return None
        return self._parts.score(UNSOLD_MODEL, asked.timelines)

    def _networks(self, asked: Asked) -> Iterator[Named]:
        """What everybody's model says beside its Gram, if that was found to help."""
        if self._parts is None:
            return
        mask = never_ranked(asked.timelines, repeats=self.repeats)
        if not self._parts.has_gram:
            fused = self._parts.fused(asked.timelines, mask)
            yield Named(name="global", part="global", is_base=not self._own, scores=fused)
            return
        beside = self._parts.beside_reference(asked.timelines, mask)
        if beside is not None:
            yield Named(name="global networks", part="global", is_base=False, scores=beside)

    def _taken_before(self, asked: Asked) -> Iterator[Named]:
        if self.repeats:
            weighted = asked.history if asked.weighted is None else asked.weighted
            scores = np.asarray(weighted.toarray(), dtype=np.float32)
            yield Named(name="taken before", part="own", is_base=False, scores=scores)

    def _fit(self) -> Iterator[tuple[str, str, Solve]]:
        train = self._dataset.train.incidence(self._dataset.n_users, self._dataset.n_items)
        factor = own_factor(train)
        if self._own:
            yield from self._fit_own(factor)
        if self._parts is not None and self._parts.has_gram:
            yield from self._fit_joint(self._parts, factor)

    def _fit_own(self, factor: Plane) -> Iterator[tuple[str, str, Solve]]:
        items = self._dataset.n_items
        mass = np.square(factor).sum(axis=1)
        smooth = mass + POPULARITY_FLOOR * mass.sum() / items
        head_mean = np.sort(smooth)[-KERNEL_HEAD:].mean() or 1.0
        kernel = kernel_factor(self._catalogue) if self._content else np.zeros((items, 0))
        for ridge, weight in OWN_SETTINGS:
            if weight and not kernel.shape[1]:
                continue
            scale = np.sqrt(weight * ridge * smooth / head_mean)[:, None]
            parts = [factor, scale * kernel] if weight else [factor]
            diagonal = np.full(items, ridge, dtype=np.float32)
            joined = np.concatenate(parts, axis=1).astype(np.float32)
            yield f"own, ridge {ridge:g}, features {weight:g}", "own", LowRankEase(joined, diagonal)

    def _fit_joint(self, parts: GlobalParts, factor: Plane) -> Iterator[tuple[str, str, Solve]]:
        shared, diagonal = gram_factor(parts, self._everything)
        model = parts.model
        yield "global", "global", Published(model)
        for beta, ridge in JOINT_SETTINGS if self._own else GLOBAL_SETTINGS:
            blocks = [shared, np.float32(np.sqrt(beta)) * factor] if beta else [shared]
            joined = np.concatenate(blocks, axis=1)
            total = diagonal + np.float32(ridge * float(model.noise_edge) + JOINT_RIDGE * beta)
            name = f"global + {beta:g} own, ridge {ridge:g}"
            yield name, "global", LowRankEase(joined, total)

    def _popularities(self, asked: Asked) -> Iterator[tuple[str, str, NDArray[np.float64]]]:
        if self._own:
            yield "own popularity", "own", _log_share(self._popularity)
            if asked.recent is not None:
                yield "own recent sales", "own", _log_share(asked.recent)
        if self._model is not None:
            smooth = np.maximum(self._model.popularity.astype(np.float64), 1e-3)
            yield "global popularity", "global", np.log(smooth)


def _log_share(sales: NDArray[np.float64]) -> NDArray[np.float64]:
    floor = POPULARITY_FLOOR * max(float(sales.sum()), 1.0) / len(sales)
    return np.asarray(np.log(sales + floor))


def _ages(fold: Fold, history: csr_matrix, now: float) -> csr_matrix:
    """(n_users, n_items) age + 1 of each customer's newest row of an item [days]."""
    ages = np.full(history.nnz, np.inf)
    users = np.searchsorted(fold.user_nums, fold.history.user_nums)
    keys = users * history.shape[1] + fold.history.item_nums
    stored = np.repeat(np.arange(history.shape[0]), np.diff(history.indptr))
    sorted_history = history.copy()
    sorted_history.sort_indices()
    slots = np.searchsorted(stored * history.shape[1] + sorted_history.indices, keys)
    np.minimum.at(ages, slots, now - fold.history.times)
    sorted_history.data = ages + 1.0
    return sorted_history
