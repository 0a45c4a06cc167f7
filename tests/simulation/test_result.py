import json
import math
from pathlib import Path

import pytest

from fondaco.shared.errors import ConfigError
from fondaco.simulation.result import read_result, write_result

# Schema 2, as other tools rely on it; more may be there.
SCHEMA_2 = {
    "schema": int,
    "scenario": str,
    "seed": int,
    "code_digest": str,
    "machine": dict,
    "versions": dict,
    "dataset": {
        "name": str,
        "n_customers": int,
        "n_items": int,
        "n_interactions": int,
        "n_silos": int,
        "split": dict,
    },
    "privacy": {
        "unit": str,
        "adjacency": str,
        "target_delta": float,
        "epsilon": float,
        "epsilon_rdp": float,
        "trust": str,
        "secure_aggregation": str,
        "releases": list,
    },
    "plan": {
        "digest": str,
        "n_silos": int,
        "n_min": int,
        "t_collude": int,
        "head": int,
        "grid": int,
        "key_agreement": str,
        "ring_bits": int,
        "order": str,
        "budget_units": int,
    },
    "models": dict,
    "quality": dict,
    "per_silo": list,
    "cold": {"customers": dict, "items": dict},
    "timings_s": dict,
    "peak_rss_bytes": int,
}
RELEASE = {
    "kind": str,
    "round": int,
    "noise_multiplier": float,
    "sensitivity": float,
    "n_silos": int,
    "rounds": int,
    "sampling_rate": float,
    "steps": int,
    "share": float,
    "dim": int,
}
MODEL = {"n_params": int, "epsilon_share": float, "fusion_weight": list, "train_s": float}
CELL = {"mean": float, "low": float, "high": float, "n": int}


def _holds(found, wanted):
    for name, kind in wanted.items():
        if isinstance(kind, dict):
            _holds(found[name], kind)
        else:
            assert type(found[name]) is kind, name


@pytest.fixture(scope="module")
def result(tiny_run, tmp_path_factory):
    """The result as another tool reads it."""
    path = write_result(tiny_run.result, tmp_path_factory.mktemp("result"))
    return json.loads(path.read_text(encoding="utf-8"))


def test_result_has_every_key_of_schema_2(result):
    _holds(result, SCHEMA_2)
    assert result["schema"] == 2


def test_releases_have_every_key_of_schema_2(result):
    assert [release["kind"] for release in result["privacy"]["releases"]] == ["popularity", "gram"]
    for release in result["privacy"]["releases"]:
        _holds(release, RELEASE)


def test_models_say_what_they_cost_and_weigh(result):
    assert list(result["models"]) == ["gram"]
    gram = result["models"]["gram"]
    _holds(gram, MODEL)
    assert gram["n_params"] == 20 * 21 // 2
    assert gram["epsilon_share"] == pytest.approx(0.9)
    assert gram["fusion_weight"] == [1.0] * (len(result["activity_edges"]) + 1)
    assert gram["step_ratio"] is None


def test_quality_is_system_then_metric_then_interval(result):
    for metrics in result["quality"].values():
        for cell in metrics.values():
            _holds(cell, CELL)


def test_per_silo_is_system_then_metric_then_mean(result):
    for row in result["per_silo"]:
        assert isinstance(row["silo_id"], str)
        for system in result["quality"]:
            assert all(isinstance(mean, float) for mean in row[system].values())


def test_result_holds_no_number_that_json_does_not_know(tiny_run):
    text = json.dumps(tiny_run.result, allow_nan=False)
    assert "NaN" not in text


def test_shares_of_the_budget_sum_to_one(result):
    shares = [release["share"] for release in result["privacy"]["releases"]]
    assert math.fsum(shares) == pytest.approx(1.0)


def test_seeded_noise_is_stamped_as_no_claim(result):
    assert result["privacy"]["claims"].startswith("none")
    assert any("protects nobody" in note for note in result["notes"])


def test_result_says_how_shares_were_hidden(result):
    assert result["privacy"]["secure_aggregation"] == "masked-sum"
    assert (result["plan"]["key_agreement"], result["plan"]["ring_bits"]) == ("x25519", 32)
    (note,) = (note for note in result["notes"] if "secure aggregation" in note)
    assert note.startswith("secure aggregation is masked-sum")
    assert "nothing is claimed" in note


@pytest.mark.parametrize(
    ("setting", "hidden", "said"),
    [
        ("privacy.secure_aggregation=simulated", "simulated", ["sums are taken in the clear"]),
        ("privacy.trust=silo", "none", []),
    ],
)
def test_result_says_in_the_clear_only_where_sums_are(run_tiny, tmp_path, setting, hidden, said):
    result = run_tiny(tmp_path, setting).result
    assert result["privacy"]["secure_aggregation"] == hidden
    assert (result["plan"]["key_agreement"], result["plan"]["ring_bits"]) == ("", 0)
    assert [text for text in said for note in result["notes"] if text in note] == said
    assert sum("secure aggregation" in note for note in result["notes"]) == len(said)


def test_sizes_are_those_of_the_market(tiny_run, result):
    sizes = tiny_run.prepared.market.sizes
    assert result["dataset"]["n_customers"] == sizes.n_customers == 120
    assert result["dataset"]["n_items"] == sizes.n_items == 60
    assert result["dataset"]["n_silos"] == 4


def test_result_names_no_folder_of_this_machine(tiny_run, result):
    assert str(tiny_run.agents[0]._home.folder) not in json.dumps(result)
    assert str(Path(__file__).parents[2]) not in json.dumps(result)


def test_writing_leaves_one_whole_file(tmp_path, result):
    path = write_result({"schema": 2, "who": "Jörg"}, tmp_path / "new")
    assert [p.name for p in path.parent.iterdir()] == ["result.json"]
    assert read_result(path)["who"] == "Jörg"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": 1}', '"text"'])
def test_anything_but_a_result_of_this_schema_is_refused(tmp_path, text):
    path = tmp_path / "result.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"result\.json"):
        read_result(path)


def test_a_missing_result_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.json"):
        read_result(tmp_path / "gone.json")
