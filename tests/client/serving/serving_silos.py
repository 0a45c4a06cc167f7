"""Silos of two tastes, odd and even items, and what is recommended to their customers."""

import numpy as np
import pytest
from builders import N_HEAD, N_ITEMS, fold_of, rows_of, taste_silo

from fondaco.client.serving import fit_recommender
from fondaco.shared.config import FusionConfig
from fondaco.shared.models import PublicFacts, Sizes
from fondaco.shared.models.base import Terms
from fondaco.shared.models.published import GlobalParts
from fondaco.shared.models.terms import PlannedModels

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


def make_silo(n_users=12, seed=0):
    """Customers who buy odd or even items; the last has no history and buys item 23 first."""
    return taste_silo(lambda rng: np.sort(rng.uniform(0, 100, 4)), n_users, seed)


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
