"""Silos of two tastes, odd and even items, and what is recommended to their customers."""

import numpy as np
import pytest

from fondaco.client.dataset import Fold, Rows, SiloDataset
from fondaco.client.serving import fit_recommender
from fondaco.shared.config import FusionConfig
from fondaco.shared.models import PublicFacts, Sizes
from fondaco.shared.models.base import Terms
from fondaco.shared.models.published import GlobalParts
from fondaco.shared.models.terms import PlannedModels

N_ITEMS, N_HEAD = 24, 12
METRIC = "ndcg@5"
ALONE = FusionConfig()
CLOCK = FusionConfig(half_life_days=30.0)
DP_ONLY = FusionConfig(personal="dp-only")
KNOBS = {
    "own": ALONE,
    "clock": CLOCK,
    "dp-only": DP_ONLY,
    "no content": FusionConfig(content=False),
    "rank": FusionConfig(fuser="rank"),
    "stacked": FusionConfig(fuser="stacked", half_life_days=30.0),
}
each_way = pytest.mark.parametrize("knobs", KNOBS.values(), ids=KNOBS.keys())


def rows_of(triples):
    table = np.array(triples, dtype=np.float64).reshape(-1, 3)
    return Rows(
        user_nums=table[:, 0].astype(np.int64),
        item_nums=table[:, 1].astype(np.int64),
        times=table[:, 2],
    ).sorted()


def fold_of(history, targets):
    targets = rows_of(targets)
    users = np.unique(targets.user_nums)
    known = rows_of(history)
    return Fold(
        user_nums=users, history=known.take(np.isin(known.user_nums, users)), targets=targets
    )


def make_silo(n_users=12, seed=0):
    """Customers who buy odd or even items; the last has no history and buys item 23 first."""
    rng = np.random.default_rng(seed)
    train, valid, test = [], [], []
    for user in range(n_users):
        mine = rng.permutation(np.arange(user % 2, N_ITEMS, 2))[:8]
        times = np.sort(rng.uniform(0, 100, 4))
        train += [(user, item, time) for item, time in zip(mine[:4], times, strict=True)]
        valid += [(user, item, 110.0) for item in mine[4:6]]
        test += [(user, item, 120.0) for item in mine[6:]]
    test.append((n_users, N_ITEMS - 1, 121.0))
    return SiloDataset(
        silo_id="north",
        user_ids=np.array([f"u{num}" for num in range(n_users + 1)]),
        n_items=N_ITEMS,
        train=rows_of(train),
        valid=fold_of(train, valid),
        test=fold_of(train + valid, test),
    )


NO_ROWS = rows_of([])
NO_FOLD = fold_of([], [])


def parts_of(catalogue, model, **terms):
    """Everybody's model as it is scored: a Gram and whatever else has `terms`."""
    planned = PlannedModels(
        terms={"gram": Terms(), **terms}, sizes=Sizes(n_items=N_ITEMS, head=N_HEAD)
    )
    return GlobalParts(planned, PublicFacts(catalogue=catalogue, model=model))


def fit(dataset, catalogue, model, knobs=ALONE, metric=METRIC):
    parts = None if model is None else parts_of(catalogue, model)
    return fit_recommender(dataset, catalogue, parts, knobs, metric=metric, declared_users=1000)


def explain(recommender, dataset):
    return recommender.score(dataset.test, dataset.known)


def scores_of(recommender, dataset):
    return explain(recommender, dataset).scores
