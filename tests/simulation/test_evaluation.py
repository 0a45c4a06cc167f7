from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from fondaco.client.dataset import NO_ROWS, Rows
from fondaco.shared.errors import ConfigError
from fondaco.shared.metrics import DEFAULT_METRICS
from fondaco.shared.models.published import Published
from fondaco.simulation.evaluation import (
    PERSONAL,
    check_evaluation,
    measure,
)
from fondaco.simulation.rankings import Rankings, pool, pool_training

SYSTEMS = {"popularity", "dp_popularity", "global", *PERSONAL}


def _quiet(*facts):
    del facts


@pytest.fixture(scope="module")
def parts(tiny_run):
    prepared = tiny_run.prepared
    return {
        "silos": prepared.silos,
        "model": tiny_run.outcome.model,
        "plan": prepared.plan,
        "catalogue": prepared.market.catalogue,
    }


def _measure(parts, scenario, **changes):
    return measure(**(parts | changes), scenario=scenario, progress=_quiet)


def test_every_system_and_metric_is_measured(tiny_run):
    quality = tiny_run.result["quality"]
    assert set(quality) == SYSTEMS
    for system in quality:
        assert set(quality[system]) == {*DEFAULT_METRICS, "coverage@10"}


def test_intervals_hold_their_mean_and_count_customers(tiny_run):
    n_test = sum(len(silo.test.user_nums) for silo in tiny_run.prepared.silos)
    for metrics in tiny_run.result["quality"].values():
        for name, cell in metrics.items():
            assert cell["low"] <= cell["mean"] <= cell["high"]
            assert cell["n"] == (1 if name == "coverage@10" else n_test)


def test_silos_average_to_the_whole(tiny_run):
    rows = tiny_run.result["per_silo"]
    assert [row["silo_id"] for row in rows] == tiny_run.prepared.silo_ids
    weights = [row["n_test"] for row in rows]
    for system in SYSTEMS:
        mean = np.average([row[system]["ndcg@10"] for row in rows], weights=weights)
        assert mean == pytest.approx(tiny_run.result["quality"][system]["ndcg@10"]["mean"])


def test_silo_alone_never_depends_on_the_global_model(tiny_run, parts, tiny_scenario):
    model = parts["model"]
    other = replace(
        model,
        popularity=model.popularity[::-1].copy(),
        gram_factors=-model.gram_factors,
        item_out=model.item_out[::-1].copy(),
    )
    found = _measure(parts, tiny_scenario(), model=other).quality
    first = tiny_run.result["quality"]
    for system in ("own_cf", "silo_alone", "popularity"):
        assert found[system] == first[system]
    assert found["global"] != first["global"]


def test_own_cf_never_depends_on_item_facts(tiny_run, parts, tiny_scenario):
    catalogue = parts["catalogue"]
    n_items = len(catalogue)
    other = replace(catalogue, texts=catalogue.texts[::-1], brands=("b",) * n_items)
    found = _measure(parts, tiny_scenario(), catalogue=other).quality
    assert found["own_cf"] == tiny_run.result["quality"]["own_cf"]
    assert found["silo_alone"] != tiny_run.result["quality"]["silo_alone"]


def test_fused_is_named_with_its_mix_for_every_silo(tiny_run):
    mix = tiny_run.result["mix"]
    assert list(mix) == tiny_run.prepared.silo_ids
    assert all(weights for weights in mix.values())


def test_drawn_silos_are_measured_alone(parts, tiny_scenario):
    found = _measure(parts, tiny_scenario("evaluation.silos=2"))
    assert len(found.per_silo) == 2
    again = _measure(parts, tiny_scenario("evaluation.silos=2"))
    assert [row["silo_id"] for row in again.per_silo] == [r["silo_id"] for r in found.per_silo]


def test_no_baselines_leaves_them_out(parts, tiny_scenario):
    assert set(_measure(parts, tiny_scenario("baselines=[]")).quality) == SYSTEMS - {"popularity"}


def test_silos_without_test_customers_have_no_figures(parts, tiny_scenario):
    silos = list(parts["silos"])
    nobody = replace(
        silos[0].test,
        user_nums=silos[0].test.user_nums[:0],
        history=silos[0].test.history.take(np.zeros(len(silos[0].test.history), bool)),
        targets=silos[0].test.targets.take(np.zeros(len(silos[0].test.targets), bool)),
    )
    silos[0] = replace(silos[0], test=nobody)
    row = _measure(parts, tiny_scenario(), silos=silos).per_silo[0]
    assert row == {"silo_id": silos[0].silo_id, "n_customers": silos[0].n_users, "n_test": 0}
    with pytest.raises(ConfigError, match="no silo has a test customer"):
        _measure(parts, tiny_scenario(), silos=silos[:1])


def test_cold_customers_and_items_are_reported_apart(parts, tiny_scenario):
    """A customer without history, and an item that nobody bought in training."""
    silos = list(parts["silos"])
    first = silos[0]
    cold_user, cold_item = first.test.user_nums[0], first.test.targets.item_nums[0]
    history = first.test.history
    silos[0] = replace(
        first, test=replace(first.test, history=history.take(history.user_nums != cold_user))
    )
    silos = [replace(s, train=s.train.take(s.train.item_nums != cold_item)) for s in silos]
    cold = _measure(parts, tiny_scenario(), silos=silos).cold
    assert cold["customers"]["n"] >= 1
    assert cold["items"]["n"] >= 1
    assert cold["items"]["customers who took one"] >= 1
    for part in cold.values():
        assert 0 <= part["fused"]["ndcg@20"]["mean"] <= 1


def test_cold_items_are_ranked_among_themselves(parts, tiny_scenario):
    """With every other item warm in its silo, the only cold item comes first in every list."""
    first = parts["silos"][0]
    cold_item = first.test.targets.item_nums[0]
    everything = np.arange(60)
    rows = Rows(user_nums=everything * 0, item_nums=everything, times=everything * 0.0)
    known = replace(first, train=rows.take(everything != cold_item), interim=NO_ROWS)
    cold = _measure(parts, tiny_scenario(), silos=[known]).cold["items"]
    assert cold["n"] == 1
    assert {cold[system]["ndcg@20"]["mean"] for system in SYSTEMS} == {1.0}


def test_an_item_is_cold_where_the_silo_itself_has_not_sold_it(parts):
    """Sales elsewhere do not count, those between training and test do."""
    one, other = parts["silos"][:2]
    everything = np.arange(60)
    rows = Rows(user_nums=everything * 0, item_nums=everything, times=everything * 0.0)
    assortment = everything < 50
    one = replace(one, train=rows.take(everything < 30), interim=rows.take(everything == 40))
    one, other = replace(one, assortment=assortment), replace(other, train=rows)
    test = pool([one, other], "test", keep_repeats=False)
    expected = (everything >= 30) & (everything != 40) & assortment
    np.testing.assert_array_equal(test.cold, [expected, expected & False])
    valid = pool([one, other], "valid", keep_repeats=False)
    np.testing.assert_array_equal(valid.cold[0], (everything >= 30) & assortment)


def test_pooling_keeps_the_silos_order(parts):
    silos = parts["silos"]
    test = pool(silos, "test", keep_repeats=False)
    counts = [len(silo.test.user_nums) for silo in silos]
    assert np.bincount(test.silo_nums).tolist() == counts
    start = counts[0]
    np.testing.assert_array_equal(
        test.targets[start : start + counts[1]].toarray(),
        silos[1].test.target_matrix(silos[1].n_items).toarray(),
    )
    assert test.hidden is test.history
    assert not pool(silos, "test", keep_repeats=True).hidden.nnz


def test_what_a_silo_does_not_sell_is_ranked_by_no_system(parts, tiny_scenario):
    silos = list(parts["silos"])
    sold = np.isin(np.arange(60), silos[0].train.item_nums[:80])
    silos[0] = replace(silos[0], assortment=sold)
    test = pool(silos, "test", keep_repeats=False)
    rankings = Rankings(test, pool_training(silos))
    rankings.rank("random", lambda history, rows: np.random.default_rng(0).random(history.shape))
    mine = rankings.by_system["random"][test.silo_nums == 0]
    assert set(np.unique(mine)) <= {-1, *np.flatnonzero(sold)}
    assert (mine >= 0).any(axis=1).all()
    quality = _measure(parts, tiny_scenario(), silos=silos).quality
    assert set(quality) == SYSTEMS


def test_training_rows_are_pooled_without_validation_or_test(parts):
    silos = parts["silos"]
    train = pool_training(silos)
    assert train.shape == (sum(silo.n_users for silo in silos), silos[0].n_items)
    distinct = sum(len(np.unique(silo.train.pair_keys())) for silo in silos)
    assert train.sum() == distinct


def test_global_scores_of_customers_without_head_items_are_popularity(tiny_run):
    model = tiny_run.outcome.model
    outside = np.setdiff1d(np.arange(60), model.head)[0]
    history = csr_matrix(([1.0, 1.0], ([0, 1], [outside, model.head[0]])), shape=(3, 60))
    scores = Published(model).score(history)
    np.testing.assert_array_equal(scores[0], model.popularity)
    np.testing.assert_array_equal(scores[2], model.popularity)
    expected = model.item_in[0] @ model.item_out.T
    np.testing.assert_allclose(scores[1], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ('baselines=["ease_poled"]', "did you mean 'ease_pooled'"),
        ("evaluation.headline=ndgc@10", "ndgc"),
        ("evaluation.headline=ndcg@1000", "at most 100"),
        ("evaluation.bootstrap=0", "at least 1"),
        ("seed=-1", "at least 0"),
    ],
)
def test_a_knob_that_could_not_be_measured_is_refused(tiny_scenario, setting, hint):
    with pytest.raises(ConfigError, match=hint):
        check_evaluation(tiny_scenario(setting))


def test_a_headline_that_is_no_default_metric_is_measured(parts, tiny_scenario):
    found = _measure(parts, tiny_scenario("evaluation.headline=recall@50"))
    assert "recall@50" in found.quality["fused"]
