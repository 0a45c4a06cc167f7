"""Benchmarks measure what they say: only the noise changes, and one centre sums the same."""

import math
from dataclasses import replace

import numpy as np
import pytest

from fondaco.server.global_model import model_digest
from fondaco.shared.errors import ConfigError
from fondaco.shared.privacy.clipping import gram_sum, popularity_sum
from fondaco.shared.privacy.contribution import bound_contributions
from fondaco.simulation import evaluation, rankings
from fondaco.simulation.benchmarks import movielens, scale, shops
from fondaco.simulation.benchmarks.runs import (
    at_epsilon,
    federate,
    parse_seeds,
    published_quality,
    spread,
)


@pytest.fixture(scope="module")
def prepared(tiny_run):
    return tiny_run.prepared


def _own_histories(silo, n_items):
    rows = silo.train
    return bound_contributions(rows.user_nums, rows.item_nums, silo.n_users, n_items)


def test_seeds_are_read_from_a_list():
    assert parse_seeds("0,3, 12") == [0, 3, 12]
    for text in ("", "1,", "-1", "x"):
        with pytest.raises(ConfigError, match="--seeds"):
            parse_seeds(text)


def test_federation_alone_gives_the_runs_model_and_its_seed_only_the_noise(tiny_run, prepared):
    first = federate(prepared, prepared.scenario.seed)
    assert model_digest(first.model) == tiny_run.result["model_digest"]
    other = federate(prepared, 5)
    assert other.rounds[0].present == first.rounds[0].present
    assert not np.array_equal(other.rounds[0].total, first.rounds[0].total)


def test_another_budget_keeps_the_silos_and_changes_the_plan(prepared):
    richer = at_epsilon(prepared, 8.0)
    assert richer.silos is prepared.silos
    assert richer.plan.target_epsilon == "8.0"


def test_silos_sums_add_up_to_one_centres_exactly(prepared):
    plan, head = prepared.plan, np.arange(prepared.plan.head)
    parts = [_own_histories(silo, plan.n_items) for silo in prepared.silos]
    pooled = movielens.pooled_histories(prepared)
    for of in (
        lambda histories: popularity_sum(histories, plan.grid).values,
        lambda histories: gram_sum(histories.restrict(head), plan.grid).values,
    ):
        np.testing.assert_array_equal(sum(map(of, parts)), of(pooled))


def test_one_centre_adds_the_noise_of_all_silos_together(prepared):
    """1,800 draws: a standard error of 1.7 %, so 10 % are passed by chance below 1e-6."""
    plan, histories = prepared.plan, movielens.pooled_histories(prepared)
    models = [movielens.one_centre(prepared, histories, seed) for seed in range(30)]
    noisy = np.stack([model.noisy_popularity for model in models])
    event = plan.event_for("popularity", 1)
    expected = event.silo_stddev_grid * math.sqrt(len(prepared.silos)) / plan.grid
    assert noisy.std(axis=0, ddof=1).mean() == pytest.approx(expected, rel=0.1)


def test_movielens_row_compares_both_on_the_same_customers(prepared):
    row = movielens.measure_budget(prepared, movielens.pooled_histories(prepared), [0, 1])
    assert row["difference"] == pytest.approx(100 * (row["global"] / row["one_centre"] - 1))
    assert row["n_seeds"] == 2
    assert row["target"] == 0.375


def test_published_quality_is_the_runs_own(tiny_run, prepared):
    found = published_quality(prepared, tiny_run.outcome.model)
    for system in ("dp_popularity", "global"):
        assert found[system] == pytest.approx(tiny_run.result["quality"][system]["ndcg@10"]["mean"])


def test_shops_have_one_row_per_system_against_silo_alone(prepared):
    values = shops.measure_seeds(prepared, [0, 1])
    assert values["popularity"].shape[0] == 1
    np.testing.assert_array_equal(values["silo_alone"][0], values["silo_alone"][1])
    rows = {row["system"]: row for row in shops.rows_of(prepared, values)}
    assert set(rows) == set(values)
    assert rows["silo_alone"]["above_alone"] == 0
    fused, alone = values["fused"].mean(), values["silo_alone"].mean()
    assert rows["fused"]["above_alone"] == pytest.approx(fused - alone)
    assert rows["fused"]["low"] <= rows["fused"]["above_alone"] <= rows["fused"]["high"]


def test_scale_lists_stages_and_holds_targets():
    sizes = ("dataset.n_users=60", "dataset.n_items=40", "silos.count=5", "privacy.head=20")
    tiny = scale.measure_scale(0, (*sizes, "evaluation.bootstrap=10"))
    rows = {row["what"]: row for row in tiny}
    assert rows["n_silos"]["value"] == 5
    assert rows["federation [s]"]["value"] > 0
    assert rows["wall time [s]"]["reached"] == "yes"
    assert rows["peak memory [bytes]"]["target"] == 4 * 10**9


def test_customers_scored_in_batches_get_the_same_figures(tiny_run, prepared, monkeypatch):
    monkeypatch.setattr(rankings, "BATCH_USERS", 7)
    scenario = replace(prepared.scenario, baselines=())
    found = evaluation.measure(
        prepared.silos,
        tiny_run.outcome.model,
        prepared.plan,
        prepared.market.catalogue,
        scenario=scenario,
        progress=lambda *_: None,
    )
    for system in (*evaluation.PERSONAL, "global"):
        expected = tiny_run.result["quality"][system]["ndcg@10"]["mean"]
        assert found.headline[system].mean() == pytest.approx(expected, abs=1e-6)


def test_spread_of_one_seed_is_nought():
    assert spread([0.3]) == 0.0
    assert spread([1.0, 3.0]) == pytest.approx(math.sqrt(2))
