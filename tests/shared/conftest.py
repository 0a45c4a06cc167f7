"""Public facts of a small catalogue, as models find them before they are learned."""

import numpy as np
import pytest

from fondaco.shared.catalogue import Catalogue
from fondaco.shared.models import PublicFacts, Timelines
from fondaco.shared.records import GlobalModel
from fondaco.shared.vocabulary import Vocabulary


@pytest.fixture(scope="session")
def make_facts():
    """(popularity, head size, texts) -> facts whose head is the most popular items."""

    def make(popularity, n_head, texts=None):
        n_items = len(popularity)
        catalogue = Catalogue(
            items=Vocabulary(tuple(f"i{num:04d}" for num in range(n_items))),
            texts=tuple(texts or [""] * n_items),
            categories=("",) * n_items,
            brands=("",) * n_items,
            prices=np.full(n_items, np.nan),
        )
        head = np.argsort(-popularity, kind="stable")[:n_head]
        floats = {
            "noisy_popularity": popularity,
            "popularity": popularity,
            "head_popularity": np.maximum(popularity[head], 0.01),
            "gram_factors": np.zeros((n_head, 0)),
            "gram_diagonal": np.ones(n_head),
            "gram_top": np.ones(n_head),
            "kernel_weights": np.zeros(0),
            "item_in": np.zeros((n_head, 1)),
            "item_out": np.zeros((n_items, 1)),
            "spectrum": np.zeros(n_head),
            "noise_edge": np.array(0.1),
            "parameters": np.zeros(0),
            "fusion": np.ones((4, 2)),
        }
        model = GlobalModel(
            plan_digest="sha256:plan",
            catalogue_digest=catalogue.digest,
            after_round=2,
            head=head,
            **{name: values.astype(np.float32) for name, values in floats.items()},
        )
        return PublicFacts(catalogue=catalogue, model=model)

    return make


@pytest.fixture(scope="session")
def make_timelines():
    """(0/1 matrix of customers by items) -> their timelines."""

    def make(taken):
        users, items = np.nonzero(taken)
        lengths = np.bincount(users, minlength=len(taken))
        return Timelines(
            indptr=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            item_nums=items.astype(np.int64),
            times=np.arange(len(items), dtype=float),
            now=np.inf,
            n_items=taken.shape[1],
        )

    return make
