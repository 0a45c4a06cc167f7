"""Recommendations: the best items of each customer, and what each part gave to their scores."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from fondaco.shared.catalogue import Catalogue
from fondaco.shared.errors import DataError
from fondaco.shared.metrics import rank_topk
from fondaco.shared.models.published import never_ranked

from ..dataset import NO_ROWS, Fold, Rows, SiloDataset, as_timelines
from .recommender import PARTS, Recommender

ABOUT_PARTS = {
    "global": "what all owners learned together, under differential privacy",
    "own": "your own rows, which never left",
    "content": "public facts about items, compared with this customer's own items",
}
"""Part of a score -> where it comes from."""
BATCH_CELLS = 2_000_000
"""Customers times items that are scored at once."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Lists:
    """The best items of some customers.

    Attributes:
        user_ids: (n_users,).
        item_nums: (n_users, n) best first, -1 where nothing is left to recommend.
        scores: (n_users, n).
        parts: part -> (n_users, n); they add up to `scores`.
    """

    user_ids: NDArray[np.str_]
    item_nums: NDArray[np.int64]
    scores: NDArray[np.float32]
    parts: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True, eq=False)
class SiloState:
    """A silo that can recommend: its rows, everybody's model, its mix.

    Attributes:
        keep_repeats: whether items that a customer has may be recommended again.
    """

    dataset: SiloDataset
    catalogue: Catalogue
    recommender: Recommender
    keep_repeats: bool

    @property
    def silo_id(self) -> str:
        """The data owner's public name."""
        return self.dataset.silo_id

    def recommend(self, user_id: str, n: int) -> list[dict[str, Any]]:
        """Return up to `n` items with score and what each part gave, best first.

        Raises:
            DataError: the silo has no such customer.
        """
        found = np.flatnonzero(self.dataset.user_ids == user_id)
        if not len(found):
            raise DataError(f"silo {self.silo_id!r} has no customer {user_id!r}")
        lists = self.lists(int(found[0]), int(found[0]) + 1, n)
        return [
            {
                "item_id": self.catalogue.items.ids[item],
                "text": self.catalogue.texts[item],
                "score": round(float(lists.scores[0, rank]), 4),
                **{part: round(float(lists.parts[part][0, rank]), 4) for part in PARTS},
            }
            for rank, item in enumerate(lists.item_nums[0].tolist())
            if item >= 0
        ]

    def everybody(self, n: int) -> Iterator[Lists]:
        """Yield the `n` best items of every customer, some customers at a time."""
        step = max(1, BATCH_CELLS // max(1, self.dataset.n_items))
        for start in range(0, self.dataset.n_users, step):
            yield self.lists(start, min(start + step, self.dataset.n_users), n)

    def lists(self, start: int, stop: int, n: int) -> Lists:
        """Return the `n` best items of the customers numbered from `start` to before `stop`."""
        fold = self._customers(start, stop)
        explained = self.recommender.score(fold, self._everything)
        timelines = as_timelines(self.dataset, fold.user_nums, fold.history, math.inf)
        mask = csr_matrix(never_ranked(timelines, repeats=self.keep_repeats))
        items = rank_topk(explained.scores, mask, n)

        def at_items(plane: NDArray[np.float32]) -> NDArray[np.float32]:
            return np.take_along_axis(plane, np.maximum(items, 0), axis=1)

        return Lists(
            user_ids=self.dataset.user_ids[start:stop],
            item_nums=items,
            scores=at_items(explained.scores),
            parts={part: at_items(explained.parts[part]) for part in PARTS},
        )

    def _customers(self, start: int, stop: int) -> Fold:
        """Return customers with all that is known of each: nothing is ahead when serving."""
        rows = self._everything
        first, last = np.searchsorted(rows.user_nums, [start, stop])
        return Fold(
            user_nums=np.arange(start, stop, dtype=np.int64),
            history=Rows(
                user_nums=rows.user_nums[first:last],
                item_nums=rows.item_nums[first:last],
                times=rows.times[first:last],
            ),
            targets=NO_ROWS,
        )

    @cached_property
    def _everything(self) -> Rows:
        """Every row that the silo has, each once, sorted by customer and time."""
        data, known = self.dataset, self.dataset.known
        # A fold's history repeats what is known, unless its customers were held out whole.
        inside = np.zeros(data.n_users, dtype=np.bool_)
        inside[known.user_nums] = True
        folds = data.valid, data.test
        held_out = [fold.history.take(~inside[fold.history.user_nums]) for fold in folds]
        parts = [known, *held_out, *(fold.targets for fold in folds)]
        rows = Rows(
            user_nums=np.concatenate([part.user_nums for part in parts]),
            item_nums=np.concatenate([part.item_nums for part in parts]),
            times=np.concatenate([part.times for part in parts]),
        ).sorted()
        fresh = np.ones(len(rows), dtype=np.bool_)
        columns = rows.user_nums, rows.item_nums, rows.times
        fresh[1:] = np.any([column[1:] != column[:-1] for column in columns], axis=0)
        return rows.take(fresh)
