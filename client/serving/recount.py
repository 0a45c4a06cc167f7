"""Rows that count the items of one catalogue, counted by another: an owner serves without a break.

A new plan may bring another catalogue, and rows are read in again for it days before its model is
there. Until then customers are served with the model that there is.
"""

from dataclasses import replace

import numpy as np

from fondaco.shared.catalogue import Catalogue

from ..dataset import Fold, Rows, SiloDataset


def recounted(dataset: SiloDataset, ours: Catalogue, theirs: Catalogue) -> SiloDataset:
    """Return `dataset` with items counted by `theirs`; rows of items that it lacks are left out.

    Args:
        dataset: counts items by `ours`.
        ours: the catalogue for which the rows were read.
        theirs: the catalogue that everybody's model counts by.
    """
    nums = theirs.items.nums(ours.items.ids)

    def of(rows: Rows) -> Rows:
        kept = rows.take(nums[rows.item_nums] >= 0)
        return replace(kept, item_nums=nums[kept.item_nums]).sorted()

    def fold(part: Fold) -> Fold:
        targets, history = of(part.targets), of(part.history)
        users = np.unique(targets.user_nums)
        mine = np.isin(history.user_nums, users)
        return Fold(user_nums=users, history=history.take(mine), targets=targets)

    sold = None
    if dataset.assortment is not None:
        sold = np.zeros(len(theirs), dtype=np.bool_)
        sold[nums[dataset.assortment & (nums >= 0)]] = True
    return replace(
        dataset,
        n_items=len(theirs),
        train=of(dataset.train),
        valid=fold(dataset.valid),
        test=fold(dataset.test),
        interim=of(dataset.interim),
        assortment=sold,
    )
