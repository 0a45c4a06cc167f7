from dataclasses import dataclass, field
from datetime import date
from typing import Literal

import pytest

from fondaco.shared.config import build, override, read_toml, unknown_name
from fondaco.shared.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class _Privacy:
    epsilon: float
    trust: Literal["aggregate", "silo"] = "silo"


@dataclass(frozen=True, kw_only=True)
class _Silos:
    count: int = 10


@dataclass(frozen=True, kw_only=True)
class _Job:
    name: str
    privacy: _Privacy
    silos: _Silos
    models: tuple[str, ...] = ("gram",)
    quick: bool = False
    either: int | str = 0
    notes: dict[str, str] = field(default_factory=dict)


TABLES = {"name": "demo", "privacy": {"epsilon": 1.0}}


def _job(**changes):
    return build(_Job, {**TABLES, **changes})


def test_build_fills_nested_tables_and_defaults():
    job = _job(models=["gram", "ease"], quick=True)
    assert job.privacy == _Privacy(epsilon=1.0)
    assert job.silos == _Silos(count=10)
    assert (job.models, job.quick) == (("gram", "ease"), True)


def test_build_takes_a_whole_number_for_a_real_one():
    epsilon = _job(privacy={"epsilon": 4}).privacy.epsilon
    assert (epsilon, type(epsilon)) == (4.0, float)


def test_build_takes_numbers_and_dates_for_text():
    assert _job(name=7).name == "7"
    assert _job(name=date(2011, 9, 1)).name == "2011-09-01"


def test_build_names_the_nearest_key_of_an_unknown_one():
    with pytest.raises(ConfigError, match=r"'privacy\.epsilom'; did you mean 'privacy\.epsilon'"):
        _job(privacy={"epsilom": 1.0})


def test_build_names_a_missing_key_by_its_full_path():
    with pytest.raises(ConfigError, match=r"privacy\.epsilon is missing"):
        build(_Job, {"name": "demo"})


@pytest.mark.parametrize(
    "changes",
    [
        {"privacy": 3},
        {"privacy": {"epsilon": "one"}},
        {"privacy": {"epsilon": True}},
        {"privacy": {"epsilon": 1.0, "trust": "server"}},
        {"silos": {"count": 1.5}},
        {"silos": {"count": True}},
        {"models": "gram"},
        {"models": [["gram"]]},
        {"quick": 1},
        {"either": 1},
        {"name": ["demo"]},
    ],
    ids=str,
)
def test_build_refuses_a_value_of_the_wrong_type(changes):
    with pytest.raises(ConfigError):
        _job(**changes)


def test_build_reports_what_the_dataclass_itself_refuses():
    @dataclass(frozen=True, kw_only=True)
    class Positive:
        count: int

        def __post_init__(self):
            if self.count < 1:
                raise ConfigError(f"{self.count=} must be > 0")

    with pytest.raises(ConfigError, match="must be > 0"):
        build(Positive, {"count": 0})


def test_override_reads_values_as_toml_and_the_rest_as_text():
    settings = ["privacy.epsilon=4", "models=['ease', 'gram']", "name=movielens-1m", "quick = true"]
    job = build(_Job, override(TABLES, settings))
    assert (job.privacy.epsilon, job.models, job.quick) == (4.0, ("ease", "gram"), True)
    assert job.name == "movielens-1m"


def test_override_makes_tables_that_are_missing():
    assert override({}, ["a.b.c=1"]) == {"a": {"b": {"c": 1}}}


def test_override_keeps_an_equals_sign_in_the_value():
    assert override({}, ["name=a=b"]) == {"name": "a=b"}


def test_override_leaves_the_original_as_it_was():
    override(TABLES, ["privacy.epsilon=4"])
    assert TABLES["privacy"] == {"epsilon": 1.0}


@pytest.mark.parametrize("setting", ["privacy.epsilon", "=3", " =3", "name.first=1"])
def test_override_refuses_a_setting_without_a_place(setting):
    with pytest.raises(ConfigError, match="--set"):
        override(TABLES, [setting])


def test_read_toml_returns_tables(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text('name = "Süd"\n[privacy]\nepsilon = 1\n', encoding="utf-8")
    assert read_toml(path) == {"name": "Süd", "privacy": {"epsilon": 1}}


@pytest.mark.parametrize("content", [b"name = ", b"a = 1\na = 2", b"name = '\xff'"])
def test_read_toml_refuses_what_is_no_toml(tmp_path, content):
    path = tmp_path / "job.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read as TOML"):
        read_toml(path)


def test_read_toml_names_a_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        read_toml(tmp_path / "job.toml")


def test_unknown_name_lists_what_is_known_where_nothing_is_near():
    assert unknown_name("zzz", ["b", "a"], "model") == "unknown model 'zzz'; known: a, b"
