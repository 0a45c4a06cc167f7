"""A silo that sells part of the catalogue works on that part alone: faster, and no other scale.

Everything inside a recommender then counts items by their place on the shelf; what goes in and
comes out counts by the public catalogue.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fondaco.shared.catalogue import Catalogue
from fondaco.shared.models import Timelines
from fondaco.shared.models.published import GlobalParts
from fondaco.shared.records import GlobalModel
from fondaco.shared.vocabulary import Vocabulary

from ..dataset import Fold, Rows, SiloDataset
from .solve import global_factor

Array32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Shelf:
    """The items that a silo sells.

    Attributes:
        items: (n_sold,) their numbers in the catalogue, ascending.
        n_items: length of the catalogue.
    """

    items: NDArray[np.int64]
    n_items: int

    @classmethod
    def of(cls, dataset: SiloDataset) -> "Shelf":
        """Return what the silo sells."""
        everything = np.arange(dataset.n_items)
        sold = everything if dataset.assortment is None else everything[dataset.assortment]
        return cls(items=sold, n_items=dataset.n_items)

    @property
    def is_everything(self) -> bool:
        """Whether the silo sells the whole catalogue, so that nothing need be renumbered."""
        return len(self.items) == self.n_items

    def dataset(self, dataset: SiloDataset) -> SiloDataset:
        """Return `dataset` counted by the shelf."""
        if self.is_everything:
            return dataset
        return replace(
            dataset,
            n_items=len(self.items),
            train=self.rows(dataset.train),
            valid=self.fold(dataset.valid),
            test=self.fold(dataset.test),
            interim=self.rows(dataset.interim),
            assortment=None,
        )

    def rows(self, rows: Rows) -> Rows:
        """Return the rows of items on the shelf, counted by it."""
        if self.is_everything:
            return rows
        kept = rows.take(np.isin(rows.item_nums, self.items))
        return replace(kept, item_nums=np.searchsorted(self.items, kept.item_nums))

    def fold(self, fold: Fold) -> Fold:
        """Return the same customers, with the rows of items on the shelf."""
        history, targets = self.rows(fold.history), self.rows(fold.targets)
        return Fold(user_nums=fold.user_nums, history=history, targets=targets)

    def catalogue(self, catalogue: Catalogue) -> Catalogue:
        """Return the public facts of the items on the shelf."""
        if self.is_everything:
            return catalogue
        return _part_of(catalogue, self.items.tobytes())

    def parts(self, parts: GlobalParts | None) -> GlobalParts | None:
        """Return everybody's model, counted by the shelf."""
        return parts if parts is None or self.is_everything else PartsOnShelf(parts, self)

    def spread(self, plane: Array32) -> Array32:
        """Return (n_users, n_items) of (n_users, n_sold); NaN for what is not sold."""
        if self.is_everything:
            return plane
        wide = np.full((len(plane), self.n_items), np.nan, dtype=np.float32)
        wide[:, self.items] = plane
        return wide


class PartsOnShelf(GlobalParts):
    """Everybody's model for a silo whose rows count items by the shelf."""

    def __init__(self, whole: GlobalParts, shelf: Shelf) -> None:
        self._whole = whole
        self._shelf = shelf
        self._model = _model_on(shelf, whole.model)
        self._sold = np.zeros(shelf.n_items, dtype=np.bool_)
        self._sold[shelf.items] = True

    @property
    def model(self) -> GlobalModel:
        """The global model's arrays for the items on the shelf."""
        return self._model

    @property
    def names(self) -> tuple[str, ...]:
        """The parts, the reference first."""
        return self._whole.names

    def score(self, name: str, timelines: Timelines) -> Array32:
        """Return (n_users, n_sold) scores of one part; NaN where it cannot tell."""
        wide = replace(
            timelines,
            item_nums=self._shelf.items[timelines.item_nums],
            n_items=self._shelf.n_items,
            assortment=self._sold,
        )
        return self._whole.score(name, wide)[:, self._shelf.items]

    def factor(self, catalogue: Catalogue) -> tuple[Array32, Array32]:
        """Return `global_factor` of the whole catalogue, at the items on the shelf."""
        shared, diagonal = global_factor(self._whole.model, catalogue)
        return shared[self._shelf.items], diagonal[self._shelf.items]


def gram_factor(parts: GlobalParts, catalogue: Catalogue) -> tuple[Array32, Array32]:
    """Return everybody's Gram over the items that `parts` counts, as `global_factor` does.

    Args:
        parts: everybody's model.
        catalogue: all public items, whatever the silo sells.
    """
    if isinstance(parts, PartsOnShelf):
        return parts.factor(catalogue)
    return global_factor(parts.model, catalogue)


def _model_on(shelf: Shelf, model: GlobalModel) -> GlobalModel:
    sold = np.isin(model.head, shelf.items)
    factors = model.gram_factors[sold]
    return replace(
        model,
        noisy_popularity=model.noisy_popularity[shelf.items],
        popularity=model.popularity[shelf.items],
        head=np.searchsorted(shelf.items, model.head[sold]),
        head_popularity=model.head_popularity[sold],
        gram_factors=factors if sold.any() else factors[:, :0],
        gram_diagonal=model.gram_diagonal[sold],
        gram_top=model.gram_top[sold],
        item_in=model.item_in[sold],
        item_out=model.item_out[shelf.items],
    )


@lru_cache(maxsize=4)
def _part_of(catalogue: Catalogue, items: bytes) -> Catalogue:
    """The items of these numbers; kept, so that what is cached by catalogue is found again."""
    nums = np.frombuffer(items, dtype=np.int64)

    def of(column: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(column[num] for num in nums)

    return Catalogue(
        items=Vocabulary(of(catalogue.items.ids)),
        texts=of(catalogue.texts),
        categories=of(catalogue.categories),
        brands=of(catalogue.brands),
        prices=catalogue.prices[nums],
        years=catalogue.years[nums],
    )
