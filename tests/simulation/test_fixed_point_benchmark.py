"""The benchmark of grids compares the run's own sums with floats under the same noise."""

import json
import math

import numpy as np
import pytest

from fondaco.server.global_model import model_digest
from fondaco.shared.errors import ConfigError
from fondaco.shared.privacy.clipping import gram_sum, popularity_sum
from fondaco.simulation.benchmarks import fixed_point as benchmark
from fondaco.simulation.benchmarks.fixed_point import Grid, histories_of, model_of, released
from fondaco.simulation.benchmarks.runs import federate
from fondaco.simulation.run import prepare

FLOATS = Grid(per_unit=0, ring_bits=0)


@pytest.fixture(scope="module")
def prepared(tiny_scenario):
    return prepare(tiny_scenario("privacy.secure_aggregation=simulated"))


@pytest.fixture(scope="module")
def histories(prepared):
    return histories_of(prepared)


def _planned(prepared):
    return next(grid for grid in Grid.all_of(prepared) if grid.per_unit == prepared.plan.grid)


def test_plans_grid_gives_the_model_of_the_run_itself(prepared, histories):
    model, _ = model_of(prepared, histories, _planned(prepared), 3)
    assert model_digest(model) == model_digest(federate(prepared, 3).model)


def test_float_sums_are_what_the_finest_grid_comes_close_to(prepared, histories):
    fine, head = 2**24, np.arange(20)
    for each in histories:
        popularity = popularity_sum(each, fine).values / fine
        np.testing.assert_allclose(benchmark.float_popularity(each), popularity, atol=1e-5)
        some = each.restrict(head)
        gram = gram_sum(some, fine).values / fine
        np.testing.assert_allclose(benchmark.float_gram(some), gram, atol=1e-5)


@pytest.mark.parametrize("bits", [12, 16, 20, 24])
def test_sums_move_by_a_few_steps_of_the_grid_only(prepared, histories, bits):
    event = prepared.plan.releases[0]
    grid = Grid(per_unit=2**bits, ring_bits=64)
    exact = released(prepared, event, histories, FLOATS, 0).total
    rounded = released(prepared, event, histories, grid, 0).total
    # A step for each customer at an item, and the noise's: half of one, and up to 9.5 by rounding
    # its stddev up to a whole number of steps.
    steps = np.bincount(np.concatenate([each.item_nums for each in histories]))
    assert np.all(np.abs(exact - rounded) * 2**bits <= steps.max() + 10 * len(histories))
    assert not np.array_equal(exact, rounded)


def test_short_ring_holds_the_same_sums_as_a_wide_one(prepared, histories):
    event = prepared.plan.releases[0]
    short, wide = (
        released(prepared, event, histories, Grid(per_unit=2**16, ring_bits=bits), 0)
        for bits in (32, 64)
    )
    np.testing.assert_array_equal(short.total, wide.total)
    assert 1 < short.headroom < wide.headroom


def test_rows_hold_differences_seed_by_seed(prepared):
    grids = [FLOATS, Grid(per_unit=2**4, ring_bits=32), _planned(prepared)]
    told = []
    rows = benchmark.measure_grids(prepared, grids, [0, 1], lambda *step: told.append(step))
    assert told[-1] == ("grids", 6, 6)
    assert len(rows) == len(grids) * len(benchmark.SYSTEMS)
    floats, coarse, planned = rows[:3]
    assert (floats["difference"], floats["moved"], floats["headroom"]) == (0, 0, math.inf)
    assert coarse["difference"] == pytest.approx(coarse["mean"] - floats["mean"])
    assert coarse["moved"] > planned["moved"] > 0
    assert (coarse["planned"], planned["planned"]) == ("", "yes")
    assert len(coarse["by_seed"].split()) == 2


def test_other_models_than_the_gram_are_refused(tiny_scenario):
    many = prepare(tiny_scenario('models=["gram", "autoencoder"]'))
    with pytest.raises(ConfigError, match="only a scenario"):
        model_of(many, histories_of(many), FLOATS, 0)


def test_command_writes_its_rows_with_units(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "load_scenario", lambda name, settings: prepared.scenario)
    out = tmp_path / "fixed_point.json"
    benchmark.main(out=out, scenario="tiny", data_dir="", epsilon=4.0, seeds="0")
    result = json.loads(out.read_text())
    assert result["units"]["difference"] == "ndcg@10"
    assert [row["sums"] for row in result["rows"][:5]] == [
        "float64",
        "2^12",
        "2^16",
        "2^20",
        "2^24",
    ]
