"""Knobs are searched on invented data, and only such as change something."""

import pytest

from fondaco.shared.errors import ConfigError
from fondaco.simulation.library import load_scenario
from fondaco.simulation.tune import parse_knob, tune, write_tuned

SMALL = ["dataset.declared_users=300", "silos.count=4", "privacy.epsilon=8"]


def test_knob_of_a_model_that_nobody_trains_is_refused():
    knob = parse_knob("autoencoder.width=16,32")
    with pytest.raises(ConfigError, match=r"changes nothing: .* does not name autoencoder"):
        tune("synthetic", SMALL, [knob], trials=1)


def test_best_setting_found_is_a_scenario(tmp_path):
    knobs = [parse_knob("privacy.popularity_share=0.1,0.9")]
    found = tune("synthetic", SMALL, knobs, trials=2)
    assert found.value == max(value for _, value in found.trials) > 0
    write_tuned("synthetic", SMALL, found, tmp_path / "mine.toml")
    mine = load_scenario(str(tmp_path / "mine.toml"))
    assert f"privacy.popularity_share={mine.privacy.popularity_share}" == found.settings[0]
    assert mine.tuned_on == "synthetic data, seed 0"
