"""A silo that sells part of the catalogue: the shelf, and the order of what it never sold."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fondaco.client.dataset import Rows
from fondaco.client.serving import PARTS, fit_recommender
from fondaco.client.serving.shelf import Shelf
from fondaco.client.serving.tuning import Judge
from fondaco.client.serving.unsold import UNSOLD_GRID, reorder, unsold_weight
from fondaco.client.splits import split_last_k
from fondaco.shared.catalogue import Catalogue
from fondaco.shared.config import FusionConfig
from fondaco.shared.vocabulary import Vocabulary

N_ITEMS = 30
SOLD = np.arange(N_ITEMS) % 3 != 0
CATALOGUE = Catalogue(
    items=Vocabulary(tuple(f"i{num:02d}" for num in range(N_ITEMS))),
    texts=tuple(f"kind{num % 4} word{num % 5}" for num in range(N_ITEMS)),
    categories=tuple(f"c{num % 4}" for num in range(N_ITEMS)),
    brands=("",) * N_ITEMS,
    prices=np.full(N_ITEMS, np.nan),
)


def dataset(assortment=SOLD):
    rng = np.random.default_rng(0)
    items = np.flatnonzero(SOLD)[rng.integers(0, SOLD.sum(), 600)]
    rows = Rows(user_nums=np.repeat(np.arange(40), 15), item_nums=items, times=rng.random(600))
    ids = np.array([f"u{num:02d}" for num in range(40)])
    return split_last_k(
        rows.sorted(), silo_id="s", user_ids=ids, n_items=N_ITEMS, k=3, assortment=assortment
    )


def test_shelf_renumbers_rows_and_spreads_them_back():
    silo = dataset()
    shelf = Shelf.of(silo)
    local = shelf.dataset(silo)
    assert local.n_items == SOLD.sum()
    np.testing.assert_array_equal(shelf.items[local.train.item_nums], silo.train.item_nums)
    plane = np.arange(2.0 * local.n_items, dtype=np.float32).reshape(2, -1)
    wide = shelf.spread(plane)
    np.testing.assert_array_equal(wide[:, SOLD], plane)
    assert np.isnan(wide[:, ~SOLD]).all()


def test_shelf_drops_rows_of_items_that_are_not_sold():
    shelf = Shelf.of(replace(dataset(), assortment=np.arange(N_ITEMS) < 10))
    kept = shelf.rows(dataset().train)
    assert 0 < len(kept) < len(dataset().train)
    assert kept.item_nums.max() < 10


def test_shelf_of_everything_changes_nothing():
    silo = dataset(assortment=None)
    shelf = Shelf.of(silo)
    assert shelf.dataset(silo) is silo
    assert shelf.catalogue(CATALOGUE) is CATALOGUE


def test_shelf_holds_the_public_facts_of_its_items():
    found = Shelf.of(dataset()).catalogue(CATALOGUE)
    assert found.items.ids == tuple(np.array(CATALOGUE.items.ids)[SOLD])
    assert found is Shelf.of(dataset()).catalogue(CATALOGUE)


def test_recommender_scores_what_is_sold_and_nothing_else():
    silo = dataset()
    knobs = FusionConfig()
    fitted = fit_recommender(silo, CATALOGUE, None, knobs, metric="ndcg@5", declared_users=40)
    found = fitted.score(silo.test, silo.known)
    assert found.scores.shape == (len(silo.test.user_nums), N_ITEMS)
    np.testing.assert_array_equal(
        np.isnan(found.scores), np.broadcast_to(~SOLD, found.scores.shape)
    )
    total = sum(found.parts[part] for part in PARTS)
    np.testing.assert_allclose(total[:, SOLD], found.scores[:, SOLD], atol=1e-5)
    assert np.isnan(fitted.content(silo.test, silo.known)[:, ~SOLD]).all()


FLOATS = st.lists(st.floats(-9, 9, width=32), min_size=12, max_size=12)


@given(FLOATS, FLOATS, st.lists(st.booleans(), min_size=6, max_size=6))
def test_reordering_moves_only_what_may_move_and_keeps_the_values(scores, wanted, items):
    scores = np.array(scores, dtype=np.float32).reshape(2, 6)
    wanted = np.array(wanted, dtype=np.float32).reshape(2, 6)
    items = np.array(items)
    found = reorder(scores, wanted, items)
    np.testing.assert_array_equal(found[:, ~items], scores[:, ~items])
    np.testing.assert_array_equal(np.sort(found, axis=1), np.sort(scores, axis=1))
    for row in range(2):
        order = np.argsort(wanted[row, items], kind="stable")
        assert (np.diff(found[row, items][order]) >= 0).all()


def _judged(n_users=60):
    rng = np.random.default_rng(1)
    everybodys = rng.normal(size=(n_users, 20)).astype(np.float32)
    items = np.arange(20) >= 10
    targets = np.zeros((n_users, 20), dtype=bool)
    targets[np.arange(n_users), 10 + np.argmax(everybodys[:, 10:], axis=1)] = True
    own = rng.normal(size=(n_users, 20)).astype(np.float32)
    return own, everybodys, items, Judge(np.zeros_like(targets), targets, 5)


def test_weight_grows_where_everybody_knows_better_and_falls_where_not():
    own, everybodys, items, judge = _judged()
    right = unsold_weight(own, everybodys, items, judge)
    wrong = unsold_weight(own, -everybodys, items, judge)
    assert wrong < 0.05
    assert 1.5 < right <= UNSOLD_GRID[-1]


@pytest.mark.parametrize("items", [np.zeros(20, dtype=bool), np.arange(20) < 5])
def test_without_evidence_every_weight_counts_alike(items):
    own, everybodys, _, judge = _judged()
    expected = np.expm1(np.log1p(4 * UNSOLD_GRID).mean()) / 4
    assert unsold_weight(own, everybodys, items, judge) == pytest.approx(expected)
