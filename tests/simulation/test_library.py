import pytest

from fondaco.shared.errors import ConfigError
from fondaco.shared.metrics import parse_metric
from fondaco.simulation.library import load_scenario, scenario_names


@pytest.mark.parametrize("name", scenario_names())
def test_every_scenario_loads_and_says_what_it_shows(name):
    scenario = load_scenario(name)
    assert scenario.name == name
    assert scenario.title
    assert parse_metric(scenario.evaluation.headline).kind == "ndcg"


VARIANTS = {
    "synthetic-1000",
    "online-retail-ii-sequence",
    "disjoint-merchants",
    "disjoint-makers",
    "three-stores",
}


@pytest.mark.parametrize("name", set(scenario_names()) - VARIANTS - {"files"})
def test_a_scenario_of_a_data_set_has_its_name(name):
    assert load_scenario(name).dataset.name == name


def test_settings_win_in_their_order():
    settings = ["privacy.epsilon=4", "privacy.epsilon=2", "privacy.trust=silo", "seed=9"]
    scenario = load_scenario("synthetic", settings)
    assert scenario.privacy.epsilon == 2.0
    assert scenario.privacy.trust == "silo"
    assert scenario.seed == 9


def test_lists_and_numbers_can_be_set():
    scenario = load_scenario("synthetic", ['models=["gram"]', "baselines=[]", "silos.count=50"])
    assert scenario.models == ("gram",)
    assert scenario.baselines == ()
    assert scenario.silos.count == 50


@pytest.mark.parametrize(
    ("setting", "nearest"),
    [
        ("privacy.epsilom=1", "privacy.epsilon"),
        ("privcy.epsilon=1", "privacy"),
        ("sed=1", "seed"),
        ("silos.cuont=3", "silos.count"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(setting, nearest):
    with pytest.raises(ConfigError, match=f"did you mean '{nearest}'"):
        load_scenario("synthetic", [setting])


@pytest.mark.parametrize(
    "setting",
    [
        "privacy.epsilon=four",
        "privacy.trust=nobody",
        "silos.count=1.5",
        "privacy=1",
        "seed",
        "baselines=popularity",
        "dataset.test_from=2024-01-01",
        "fusion.half_life_days=-1",
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(setting):
    with pytest.raises(ConfigError):
        load_scenario("synthetic", [setting])


def test_an_unknown_scenario_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'synthetic'"):
        load_scenario("syntetic")


def test_a_scenario_file_of_ones_own_is_read(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[dataset]\nname = "files"\nprotocol = "last-k"\n', encoding="utf-8")
    scenario = load_scenario(str(path), ["dataset.last_k=2"])
    assert (scenario.name, scenario.dataset.last_k) == ("mine", 2)


def test_a_missing_scenario_file_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.toml does not exist"):
        load_scenario(str(tmp_path / "gone.toml"))
