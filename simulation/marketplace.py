"""One data set in one shape: a public catalogue and everybody's interactions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fondaco.shared.catalogue import Catalogue
from fondaco.shared.errors import DataError

from .scenario import DatasetConfig

NO_SILO = ""
"""The silo of every row of a data set that has no natural silos."""


@dataclass(frozen=True, kw_only=True)
class LoadRequest:
    """What a loader may use."""

    config: DatasetConfig
    seed: int
    files: Mapping[str, Path] = field(default_factory=dict)
    """File name within the data set -> where it lies."""
    n_merchants: int = 10
    """`synthetic` only: silos."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How big a marketplace is: what `fondaco-simulate datasets` lists."""

    n_customers: int
    n_items: int
    n_interactions: int
    n_silos: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Marketplace:
    """All rows of a data set before they are cut into silos; exists in simulations only.

    Attributes:
        name: a key of `DATASETS`.
        catalogue: the public and complete item list. Several tags of an item are one
            category text joined by "|".
        interactions: (n_rows,) user_id, item_id, silo_id [categories of str] and time
            [float64 days since 1970-01-01 UTC if `has_clock`, else an order]. The
            categories of item_id are the catalogue's ids in its order; those of silo_id
            list every natural silo, also one without rows.
        has_clock: whether `time` is clock time, so that a global cut makes sense.
        notes: assumptions and conveniences which a report must state.
        sold_by: natural silo -> (n_sold,) ascending item numbers of all that it sells, a public
            fact; None where every silo sells everything.
    """

    name: str
    catalogue: Catalogue
    interactions: pd.DataFrame
    has_clock: bool
    notes: tuple[str, ...]
    sold_by: Mapping[str, NDArray[np.int64]] | None = None

    @property
    def has_silos(self) -> bool:
        """Whether the data set itself says which data owner a row belongs to."""
        return self.interactions["silo_id"].cat.categories.tolist() != [NO_SILO]

    @property
    def sizes(self) -> Sizes:
        """Customers, catalogue items, rows, and natural silos with rows (0 if it has none)."""
        rows = self.interactions
        return Sizes(
            n_customers=int(rows["user_id"].nunique()),
            n_items=len(self.catalogue),
            n_interactions=len(rows),
            n_silos=int(rows["silo_id"].nunique()) if self.has_silos else 0,
        )


def build_marketplace(
    *,
    name: str,
    catalogue: Catalogue,
    users: Sequence[object] | pd.Series,
    items: Sequence[object] | pd.Series,
    times: NDArray[np.float64],
    silos: Sequence[object] | pd.Series | None = None,
    has_clock: bool = False,
    notes: Sequence[str] = (),
    sold_by: Mapping[str, NDArray[np.int64]] | None = None,
) -> Marketplace:
    """Return a marketplace of plain columns; every id becomes text.

    Args:
        name: a key of `DATASETS`.
        catalogue: the public item list.
        users: (n_rows,) customers.
        items: (n_rows,) items of the catalogue.
        times: (n_rows,) as `Marketplace.interactions`.
        silos: (n_rows,) natural silos, None if there are none.
        has_clock: as `Marketplace`.
        notes: as `Marketplace`.
        sold_by: as `Marketplace`.

    Raises:
        DataError: an item is not in the catalogue, or there is no row.
    """
    item_id = _codes(items)
    nums = catalogue.items.nums([str(c) for c in item_id.categories])
    if (nums < 0).any():
        unknown = str(item_id.categories[int(np.argmin(nums))])
        raise DataError(f"{name}: item {unknown!r} is none of the catalogue's {len(nums)} ids")
    if not len(item_id):
        raise DataError(f"{name} has no interactions left; check min_rating and min_rows")
    all_items = pd.Index(catalogue.items.ids, dtype=object)
    rows = pd.DataFrame(
        {
            "user_id": _codes(users),
            "item_id": pd.Categorical.from_codes(nums[item_id.codes], categories=all_items),
            "time": np.asarray(times, dtype=np.float64),
            "silo_id": _codes([NO_SILO] * len(item_id) if silos is None else silos),
        }
    )
    return Marketplace(
        name=name,
        catalogue=catalogue,
        interactions=rows,
        has_clock=has_clock,
        notes=tuple(notes),
        sold_by=sold_by,
    )


def drop_small_customers(market: Marketplace, min_rows: int) -> Marketplace:
    """Return `market` without the customers who have fewer than `min_rows` distinct items.

    Raises:
        DataError: nobody is left.
    """
    if min_rows <= 1:
        return market
    rows = market.interactions
    users = rows["user_id"].cat.codes.to_numpy(dtype=np.int64)
    pairs = np.unique((users << 32) | rows["item_id"].cat.codes.to_numpy(dtype=np.int64))
    enough = np.bincount(pairs >> 32, minlength=len(rows["user_id"].cat.categories)) >= min_rows
    kept = rows[enough[users]].reset_index(drop=True)
    if not len(kept):
        raise DataError(f"{market.name}: no customer has {min_rows} distinct items")
    kept["user_id"] = kept["user_id"].cat.remove_unused_categories()
    return replace(market, interactions=kept)


def _codes(values: Sequence[object] | pd.Series) -> pd.Categorical:
    """Return (n,) `values` as text categories; each distinct value is converted once."""
    codes, found = pd.factorize(pd.Series(values))
    names = pd.Index([str(value) for value in found], dtype=object)
    return pd.Categorical.from_codes(codes, categories=names)
