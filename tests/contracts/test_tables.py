"""Every table of things that can be named in a configuration."""

import ast
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from fondaco.client.dpsgd import ROUTES
from fondaco.client.sources import SOURCES
from fondaco.client.training import STATISTICS
from fondaco.server.aggregation import AGGREGATORS, OPTIMIZERS
from fondaco.shared.config import FusionConfig
from fondaco.shared.fusion import FUSERS
from fondaco.shared.models import MODELS
from fondaco.shared.models import base as model_base
from fondaco.shared.models.terms import FUSION
from fondaco.simulation.baselines import BASELINES
from fondaco.simulation.datasets import DATASETS
from fondaco.simulation.library import load_scenario, scenario_names

TABLES = {
    "AGGREGATORS": AGGREGATORS,
    "BASELINES": BASELINES,
    "DATASETS": DATASETS,
    "FUSERS": FUSERS,
    "MODELS": MODELS,
    "OPTIMIZERS": OPTIMIZERS,
    "ROUTES": ROUTES,
    "SOURCES": SOURCES,
    "STATISTICS": STATISTICS,
}
CONSTANTS = {"FUSION": FUSION}
ROOT = Path(__file__).parents[2]
ROOMS = ("client", "server", "shared", "simulation")

each_table = pytest.mark.parametrize("name", TABLES)


def _literal_keys(name):
    """Keys as written in the one place that assigns the table."""
    found = []
    for path in (path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name:
                found.append(node.value)
    (table,) = found
    assert isinstance(table, ast.Dict), f"{name} is not written as one literal"
    return [CONSTANTS[k.id] if isinstance(k, ast.Name) else ast.literal_eval(k) for k in table.keys]


@each_table
def test_table_is_a_literal_without_a_name_twice(name):
    keys = _literal_keys(name)
    assert len(set(keys)) == len(keys)
    assert keys == list(TABLES[name])


@each_table
def test_table_holds_everything_once(name):
    entries = list(TABLES[name].values())
    assert len({id(entry) for entry in entries}) == len(entries)


@pytest.mark.parametrize("table", [DATASETS, MODELS], ids=["DATASETS", "MODELS"])
def test_entries_know_their_own_name(table):
    assert [entry.name for entry in table.values()] == list(table)


def test_every_fuser_can_be_chosen():
    assert set(get_args(get_type_hints(FusionConfig)["fuser"])) == set(FUSERS)


def test_terms_name_what_the_server_can_do():
    """`shared` may not import the server's tables, so it repeats their names."""
    assert set(model_base.OPTIMIZERS) == set(OPTIMIZERS)
    assert set(model_base.COMBINERS) == set(AGGREGATORS) - {"sum"}


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_a_table_of_its_knobs(name):
    assert type(getattr(load_scenario("synthetic"), name)) is MODELS[name].terms


def test_every_data_set_has_a_scenario():
    chosen = {name: load_scenario(name).dataset.name for name in scenario_names()}
    assert {name: name for name in DATASETS}.items() <= chosen.items()
