"""A shop of two tastes, odd and even items, and everybody's model of them."""

import numpy as np

from fondaco.client.dataset import NO_ROWS, Fold, Rows, SiloDataset
from fondaco.shared.catalogue import Catalogue
from fondaco.shared.features import item_features
from fondaco.shared.vocabulary import Vocabulary

N_ITEMS, N_HEAD = 24, 12


def shop_catalogue():
    return Catalogue(
        items=Vocabulary(tuple(f"i{num:02d}" for num in range(N_ITEMS))),
        texts=tuple(f"{'odd' if num % 2 else 'even'} thing{num % 5}" for num in range(N_ITEMS)),
        categories=tuple(f"c{num % 3}" for num in range(N_ITEMS)),
        brands=("",) * N_ITEMS,
        prices=np.linspace(1, 9, N_ITEMS),
    )


def with_one_more(catalogue):
    """Return the catalogue with an item put in at its start, so that all others move."""
    return Catalogue(
        items=Vocabulary(("a new item", *catalogue.items.ids)),
        texts=("new", *catalogue.texts),
        categories=("", *catalogue.categories),
        brands=("", *catalogue.brands),
        prices=np.array([1.0, *catalogue.prices]),
    )


def shop_rows(n_users=12):
    """Customers who took four items, then two, then two; the last took one, in the test part."""
    rng = np.random.default_rng(0)
    train, valid, test = [], [], []
    for user in range(n_users):
        mine = rng.permutation(np.arange(user % 2, N_ITEMS, 2))[:8]
        train += [(user, item, 100.0 + at) for at, item in enumerate(mine[:4])]
        valid += [(user, item, 110.0) for item in mine[4:6]]
        test += [(user, item, 120.0) for item in mine[6:]]
    test.append((n_users, N_ITEMS - 1, 121.0))
    return SiloDataset(
        silo_id="north",
        user_ids=np.array([f"u{num}" for num in range(n_users + 1)]),
        n_items=N_ITEMS,
        train=_rows(train),
        valid=_fold(train, valid),
        test=_fold(train + valid, test),
        interim=_rows(valid),
    )


def _rows(triples):
    table = np.array(triples, dtype=np.float64)
    return Rows(
        user_nums=table[:, 0].astype(np.int64),
        item_nums=table[:, 1].astype(np.int64),
        times=table[:, 2],
    ).sorted()


def _fold(history, targets):
    ahead, known = _rows(targets), _rows(history) if history else NO_ROWS
    users = np.unique(ahead.user_nums)
    mine = known.take(np.isin(known.user_nums, users))
    return Fold(user_nums=users, history=mine, targets=ahead)


def model_values():
    """Fields of a model in which items of low numbers are popular and tastes are told apart."""
    rng = np.random.default_rng(1)
    taste = np.where(np.arange(N_HEAD) % 2, 1.0, -1.0)
    popularity = np.linspace(20, 2, N_ITEMS)
    values = {
        "noisy_popularity": popularity + rng.normal(0, 1, N_ITEMS),
        "popularity": popularity,
        "head_popularity": popularity[:N_HEAD],
        "gram_factors": np.column_stack([np.ones(N_HEAD), taste]) * 2.0,
        "gram_diagonal": np.full(N_HEAD, 3.0),
        "gram_top": np.full(N_HEAD, 2.0),
        "kernel_weights": np.full(len(item_features(shop_catalogue()).blocks), 0.1),
        "item_in": rng.normal(size=(N_HEAD, 3)),
        "item_out": rng.normal(size=(N_ITEMS, 3)),
        "spectrum": np.linspace(9, -9, N_HEAD),
        "noise_edge": np.array(4.0),
    }
    floats = {name: value.astype(np.float32) for name, value in values.items()}
    return {**floats, "head": np.arange(N_HEAD)}
