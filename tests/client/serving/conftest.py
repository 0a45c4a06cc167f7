"""A catalogue of odd and even items, and everybody's model of it."""

import sys
from pathlib import Path

import numpy as np
import pytest

from fondaco.shared.catalogue import Catalogue
from fondaco.shared.features import item_features
from fondaco.shared.records import GlobalModel
from fondaco.shared.vocabulary import Vocabulary

sys.path.insert(0, str(Path(__file__).parent))

from serving_silos import N_HEAD, N_ITEMS


@pytest.fixture(scope="module")
def catalogue():
    return Catalogue(
        items=Vocabulary(tuple(f"i{num:02d}" for num in range(N_ITEMS))),
        texts=tuple(f"{'odd' if num % 2 else 'even'} thing{num % 5}" for num in range(N_ITEMS)),
        categories=tuple(f"c{num % 3}" for num in range(N_ITEMS)),
        brands=("",) * N_ITEMS,
        prices=np.linspace(1, 9, N_ITEMS),
    )


@pytest.fixture(scope="module")
def model(catalogue):
    """Everybody's model of two tastes, odd and even items, over a head of twelve."""
    rng = np.random.default_rng(0)
    head = np.arange(N_HEAD)
    taste = np.where(head % 2, 1.0, -1.0)
    popularity = np.linspace(20, 2, N_ITEMS)
    floats = {
        "noisy_popularity": popularity + rng.normal(0, 1, N_ITEMS),
        "popularity": popularity,
        "head_popularity": popularity[:N_HEAD],
        "gram_factors": np.column_stack([np.ones(N_HEAD), taste]) * 2.0,
        "gram_diagonal": np.full(N_HEAD, 3.0),
        "gram_top": np.full(N_HEAD, 2.0),
        "kernel_weights": np.full(len(item_features(catalogue).blocks), 0.1),
        "item_in": rng.normal(size=(N_HEAD, 3)),
        "item_out": rng.normal(size=(N_ITEMS, 3)),
        "spectrum": np.linspace(9, -9, N_HEAD),
        "noise_edge": np.array(4.0),
        "parameters": np.zeros(0),
        "fusion": np.tile([1.0, 0.0], (4, 1)),
    }
    return GlobalModel(
        plan_digest="sha256:plan",
        catalogue_digest=catalogue.digest,
        after_round=2,
        head=head,
        **{name: values.astype(np.float32) for name, values in floats.items()},
    )
