"""The benchmark of neural parts compares like with like: one budget, the same customers."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fondaco.shared.errors import ConfigError
from fondaco.simulation.benchmarks import neural
from fondaco.simulation.benchmarks.neural import Measured, measure_seed, rows_of
from fondaco.simulation.benchmarks.runs import at_epsilon

BOTH = ('models=["gram","sequence"]', "sequence.rounds=2")
SYSTEMS = ["gram alone", "gram in it", "sequence in it", "fused"]


@pytest.fixture(scope="module")
def alone(tiny_run):
    return tiny_run.prepared


@pytest.fixture(scope="module")
def fused(tiny_scenario, alone):
    return at_epsilon(replace(alone, scenario=tiny_scenario(*BOTH)), 4.0)


def test_seed_measures_every_system_on_the_same_customers(tiny_run, alone, fused):
    found = measure_seed(alone, fused, alone.scenario.seed)
    assert list(found.values) == SYSTEMS
    assert len({len(values) for values in found.values.values()}) == 1
    expected = tiny_run.result["quality"]["global"]["ndcg@10"]["mean"]
    assert found.values["gram alone"].mean() == pytest.approx(expected)
    assert found.weights["gram in it"] == 1.0


def test_reference_must_be_one_model_alone(fused):
    with pytest.raises(ConfigError, match="alone"):
        measure_seed(fused, fused, 0)


def test_rows_are_paired_by_customer_and_relative_to_the_gram_alone(fused):
    """Every customer gains the same: the interval has no width."""
    base = np.array([0.1, 0.2, 0.3])
    values = dict(zip(SYSTEMS, (base, base - 0.02, base * 0, base + 0.05), strict=True))
    weights = {"gram in it": 1.0, "sequence in it": 0.5}
    rows = rows_of(fused, 3, [Measured(values=values, weights=weights)])
    by_system = {row["system"]: row for row in rows}
    found = [by_system["fused"][name] for name in ("above", "low", "high")]
    np.testing.assert_allclose(found, 25.0)
    assert by_system["gram alone"]["above"] == 0.0
    assert by_system["gram in it"]["above"] == pytest.approx(-10.0)
    assert by_system["sequence in it"]["weight"] == 0.5
    assert {row["seed"] for row in rows} == {3}


def test_seeds_are_averaged_before_customers_are_drawn(fused):
    """What one seed gives to a customer and another takes away is no gain."""
    flat = np.full(2, 0.2)
    runs = [
        Measured(values={"gram alone": flat, "fused": flat + gain}, weights={})
        for gain in (np.array([0.1, -0.1]), np.array([-0.1, 0.1]))
    ]
    row = rows_of(fused, "all", runs)[1]
    np.testing.assert_allclose([row["low"], row["high"]], 0.0, atol=1e-9)


def test_shares_of_the_budget_add_up(fused):
    values = dict.fromkeys(SYSTEMS, np.ones(2))
    rows = rows_of(fused, 0, [Measured(values=values, weights={})])
    share = {row["system"]: row["share"] for row in rows}
    privacy = fused.scenario.privacy
    rest = 1.0 - privacy.popularity_share - privacy.fusion_share
    assert share["gram alone"] == share["fused"] == 1.0
    assert share["gram in it"] + share["sequence in it"] == pytest.approx(rest, abs=1e-5)


def test_main_writes_rows_per_budget_seed_and_system(tmp_path, monkeypatch, alone, fused):
    def measured(name, models, settings, seeds):
        budget = replace(fused, scenario=fused.scenario)
        one = Measured(values=dict.fromkeys(SYSTEMS, np.ones(2)), weights={})
        assert (name, models[0]) == ("complete-journey", "gram")
        bare = "privacy.epsilon=100.0" in settings
        assert (len(seeds), "privacy.head=1500" in settings) == ((1, True) if bare else (2, False))
        return rows_of(budget, "all", [one])

    monkeypatch.setattr(neural, "measure_job", measured)
    out = tmp_path / "neural.json"
    neural.main(data_dir=".", out=out, seeds="0,1", epsilons="4,100", scenarios="complete-journey")
    assert len(json.loads(out.read_text())["rows"]) == 2 * len(SYSTEMS)


def test_job_has_rows_of_each_seed_and_of_all():
    sizes = ("dataset.n_users=60", "dataset.n_items=40", "silos.count=5", "privacy.head=20")
    rows = neural.measure_job("synthetic", ("gram", "sequence"), (*sizes, BOTH[1]), [0, 1])
    assert [row["seed"] for row in rows] == [0] * 4 + [1] * 4 + ["all"] * 4
    mean = {(row["seed"], row["system"]): row["mean"] for row in rows}
    assert mean["all", "fused"] == pytest.approx((mean[0, "fused"] + mean[1, "fused"]) / 2)
    assert len({row["epsilon"] for row in rows}) == 1


def test_unknown_scenario_is_refused():
    with pytest.raises(ConfigError, match="among"):
        neural.main(data_dir=".", scenarios="nowhere")
