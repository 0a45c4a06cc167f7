"""Everybody's model beside its Gram."""

from dataclasses import replace

import numpy as np
import pytest
from serving_silos import (
    DP_ONLY,
    METRIC,
    N_HEAD,
    N_ITEMS,
    each_way,
    fit,
    make_silo,
    parts_of,
    scores_of,
)

from fondaco.client.dataset import as_timelines
from fondaco.client.serving import fit_recommender
from fondaco.shared.fusion import FUSERS
from fondaco.shared.models import PublicFacts, Sizes, Timelines
from fondaco.shared.models.autoencoder import AutoencoderTerms
from fondaco.shared.models.published import GlobalParts, Published, activity_buckets, never_ranked
from fondaco.shared.models.terms import PlannedModels

WITH_NETWORK = {"autoencoder": AutoencoderTerms(width=3, items=N_HEAD)}


def _with_network(model, fusion, seed=0):
    """A model with an autoencoder of three hidden units and these fusion weights."""
    parameters = np.random.default_rng(seed).normal(size=(2 * N_HEAD + 1) * 3)
    return replace(
        model,
        parameters=parameters.astype(np.float32),
        fusion=np.broadcast_to(np.asarray(fusion, dtype=np.float32), (4, 3)),
    )


def _asked(dataset):
    users = dataset.test.user_nums
    return as_timelines(dataset, users, dataset.test.history, np.inf)


def test_parts_are_the_gram_the_networks_and_popularity(catalogue, model):
    parts = parts_of(catalogue, _with_network(model, [1, 0, 0]), **WITH_NETWORK)
    asked = _asked(make_silo())
    assert parts.names == ("gram", "autoencoder", "popularity")
    scores = {name: parts.score(name, asked) for name in parts.names}
    assert all(plane.shape == (13, N_ITEMS) for plane in scores.values())
    assert np.array_equal(scores["gram"], Published(model).score(asked.incidence()))
    order = np.argsort(-model.popularity)
    assert np.array_equal(np.argsort(-scores["popularity"][0], kind="stable"), order)


def test_fused_is_the_reference_where_nothing_else_has_a_weight(catalogue, model):
    parts = parts_of(catalogue, _with_network(model, [1, 0, 0]), **WITH_NETWORK)
    asked = _asked(make_silo())
    mask = never_ranked(asked, repeats=False)
    reference = FUSERS["weighted"].prepare(parts.score("gram", asked), mask)
    assert np.array_equal(parts.fused(asked, mask), reference)
    assert parts.beside_reference(asked, mask) is None


def test_fused_follows_the_weights_of_a_customers_bucket(catalogue, model):
    """Only customers of at least five items are told by the network; the last has none."""
    fusion = np.array([[1, 0, 0], [1, 0.6, 0], [1, 0, 0], [1, 0, 0]], dtype=np.float32)
    parts = parts_of(catalogue, _with_network(model, fusion), **WITH_NETWORK)
    asked = _asked(make_silo())
    mask = never_ranked(asked, repeats=False)
    buckets = activity_buckets(asked)
    assert buckets.tolist() == [1] * 12 + [0]
    gram, network = (
        FUSERS["weighted"].prepare(parts.score(name, asked), mask) for name in parts.names[:2]
    )
    expected = gram + np.where(buckets[:, None] == 1, np.float32(0.6), 0) * network
    np.testing.assert_allclose(parts.fused(asked, mask), expected, atol=1e-6)
    assert not parts.beside_reference(asked, mask)[-1].any()


@pytest.mark.parametrize(("n_items", "bucket"), [(0, 0), (4, 0), (5, 1), (19, 1), (20, 2), (60, 3)])
def test_buckets_count_distinct_items(n_items, bucket):
    asked = Timelines(
        indptr=np.array([0, 2 * n_items]),
        item_nums=np.tile(np.arange(n_items), 2),
        times=np.zeros(2 * n_items),
        now=0.0,
        n_items=100,
    )
    assert activity_buckets(asked).tolist() == [bucket]


@pytest.mark.parametrize("repeats", [False, True])
def test_what_the_silo_does_not_sell_is_never_ranked(repeats):
    sold = np.arange(6) < 4
    asked = Timelines(
        indptr=np.array([0, 2, 2]),
        item_nums=np.array([1, 3]),
        times=np.zeros(2),
        now=0.0,
        n_items=6,
        assortment=sold,
    )
    masked = never_ranked(asked, repeats=repeats)
    had = [] if repeats else [1, 3]
    assert np.flatnonzero(masked[0]).tolist() == sorted([*had, 4, 5])
    assert np.flatnonzero(masked[1]).tolist() == [4, 5]


@each_way
def test_a_network_with_a_weight_takes_part_at_home(catalogue, model, knobs):
    """And one without a weight changes nothing, whatever it says."""
    dataset = make_silo()

    def fitted(fusion, seed):
        parts = parts_of(catalogue, _with_network(model, fusion, seed), **WITH_NETWORK)
        return fit_recommender(dataset, catalogue, parts, knobs, metric=METRIC, declared_users=1000)

    silent, other = (scores_of(fitted([1, 0, 0], seed), dataset) for seed in (0, 1))
    assert np.array_equal(silent, other)
    assert np.array_equal(silent, scores_of(fit(dataset, catalogue, model, knobs), dataset))
    heard = fitted([1, 0.6, 0], 0)
    assert "global networks" in heard.mix
    assert np.isfinite(scores_of(heard, dataset)).all()


def test_without_a_gram_the_fused_model_is_the_base(catalogue, model):
    """No Gram, hence no EASE over both: what everybody's model says stands for itself."""
    bare = replace(_with_network(model, [1, 0, 0]), gram_factors=np.zeros((N_HEAD, 0), np.float32))
    bare = replace(bare, fusion=bare.fusion[:, :2])
    planned = PlannedModels(terms=WITH_NETWORK, sizes=Sizes(n_items=N_ITEMS, head=N_HEAD))
    parts = GlobalParts(planned, PublicFacts(catalogue=catalogue, model=bare))
    dataset = make_silo()
    assert not parts.has_gram
    recommender = fit_recommender(
        dataset, catalogue, parts, DP_ONLY, metric=METRIC, declared_users=1000
    )
    assert recommender.mix["global"] > 0
    assert np.isfinite(scores_of(recommender, dataset)).all()
