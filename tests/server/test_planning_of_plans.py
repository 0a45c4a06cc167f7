"""Plans of a deployment, made from a file, public keys and an item list; no scenario in sight."""

from dataclasses import replace
from pathlib import Path

import pytest

from fondaco import server
from fondaco.server.plan_config import CohortConfig, PlanFile, PrivacyConfig
from fondaco.server.planning import make_plan
from fondaco.shared.chain.keys import COORDINATOR, Identity, key_name
from fondaco.shared.config import build, read_toml
from fondaco.shared.errors import ConfigError
from fondaco.shared.plan_text import from_toml, to_toml
from fondaco.shared.privacy.plan import RunPlan

TABLES = {
    "name": "north sea",
    "public": {"declared_users": 500},
    "privacy": {"trust": "silo", "head": 4},
}


HELD_BACK = {"declared_users": 500, "valid_from": "2026-01-01", "test_from": "2026-02-01"}


def roster(n_silos=6):
    named = {f"store {num}": key_name(f"store {num}") for num in range(n_silos)}
    return {silo: Identity.generate(name).public.text() for silo, name in named.items()}


def config(n_silos=6, **tables):
    coordinator = Identity.generate(COORDINATOR).public.text()
    asked = build(PlanFile, {**TABLES, **tables})
    return asked.plan_config(roster(n_silos), coordinator, "2999-12-31")


def test_plan_is_deployed_and_names_its_silos(catalogue):
    asked = config()
    plan = make_plan(asked, catalogue)
    assert (plan.mode, plan.secure_aggregation, plan.cohort.n_silos) == ("deploy", "none", 6)
    assert (dict(plan.roster), plan.coordinator) == (asked.roster, asked.coordinator)
    assert plan.epsilons()["epsilon"] <= 4.0
    assert plan.public["dataset"] == "north sea"
    assert plan.public["declared_users"] == "500"


def test_plan_survives_both_of_its_texts(catalogue):
    plan = make_plan(config(models=["gram", "mf"], public=HELD_BACK), catalogue)
    assert from_toml(to_toml(plan)) == RunPlan.from_json(plan.to_json()) == plan


def test_same_facts_make_the_same_plan(catalogue):
    asked = config()
    assert make_plan(asked, catalogue).digest == make_plan(asked, catalogue).digest


@pytest.mark.parametrize("asked", ["", "masked-sum"])
def test_shared_noise_is_masked_in_a_deployment(catalogue, asked):
    privacy = {"trust": "aggregate", "head": 4, "secure_aggregation": asked}
    plan = make_plan(config(privacy=privacy), catalogue)
    assert (plan.secure_aggregation, plan.key_agreement) == ("masked-sum", "x25519")
    assert plan.ring_bits in (32, 64)


@pytest.mark.parametrize(
    ("n_silos", "asked"),
    [(6, {"secure_aggregation": "simulated"}), (2, {}), (6, {"secure_aggregation": "none"})],
)
def test_noise_that_nothing_hides_is_not_shared_in_a_deployment(catalogue, n_silos, asked):
    privacy = {"trust": "aggregate", "head": 4, **asked}
    with pytest.raises(ConfigError):
        make_plan(config(n_silos, privacy=privacy), catalogue)


def test_enough_witnesses_are_asked_for_unless_named(catalogue):
    assert make_plan(config(), catalogue).witnesses == 2
    assert make_plan(config(cohort={"witnesses": 4}), catalogue).witnesses == 4
    assert make_plan(config(n_silos=2), catalogue).witnesses == 1


@pytest.mark.parametrize(
    ("witnesses", "problem"), [(6, "between 0 and 5"), (1, "could all be colluding")]
)
def test_witnesses_that_cannot_do_are_refused(catalogue, witnesses, problem):
    asked = config(cohort={"witnesses": witnesses, "t_collude": 2})
    with pytest.raises(ConfigError, match=problem):
        make_plan(asked, catalogue)


def test_dates_are_public_facts_where_there_are_any():
    dates = {"valid_from": "2026-01-01", "test_from": "2026-02-01"}
    facts = config(public={"declared_users": 9, **dates}).public
    assert facts["protocol"] == "time"
    assert {name: facts[name] for name in dates} == dates
    assert config().public["protocol"] == "all-rows"


@pytest.mark.parametrize(
    ("tables", "problem"),
    [
        ({"public": {}}, "public.declared_users is missing"),
        ({"public": {"declared_users": 0}}, "at least 1"),
        ({"public": {"declared_users": 1, "headline": "luck@20"}}, "luck"),
        ({"public": {"declared_users": 1, "valid_from": "2026-01-01"}}, "go together"),
        (
            {
                "public": {
                    "declared_users": 1,
                    "valid_from": "2026-02-01",
                    "test_from": "2026-01-01",
                }
            },
            "must be before",
        ),
        ({"public": {"declared_users": 1, "valid_from": "soon", "test_from": "later"}}, "date"),
        ({"privacy": {"epsilom": 1.0}}, "did you mean 'privacy.epsilon'"),
        ({"models": ["gramm"]}, "did you mean 'gram'"),
        ({"models": []}, "at least one"),
        ({"models": ["gram", "gram"]}, "distinct"),
        ({"models": ["gram", "mf"]}, "hold back"),
        ({"privacy": {"trust": "silo", "popularity_share": 0.99}}, "nothing for the models"),
        ({"privacy": {"trust": "silo", "fusion_share": 0.0}}, "between 0 and 1"),
        ({"mf": {"share": 0.0}}, "share"),
        ({"seed": 1}, "unknown key 'seed'"),
    ],
)
def test_file_with_a_mistake_is_refused_by_name(tables, problem):
    with pytest.raises(ConfigError, match=problem):
        config(**tables)


@pytest.mark.parametrize(
    "changes",
    [
        {"expires": "soon"},
        {"expires": "2999-02-30"},
        {"coordinator": ""},
        {"roster": {}},
        {"cohort": CohortConfig(min_present=7)},
        {"cohort": CohortConfig(t_collude=6)},
        {"privacy": PrivacyConfig(trust="silo", head=9)},
        {"privacy": PrivacyConfig(trust="silo", head=4, epsilon=0.0)},
        {"privacy": PrivacyConfig(trust="silo", head=4, target_delta=1.0)},
    ],
)
def test_config_out_of_range_makes_no_plan(catalogue, changes):
    with pytest.raises(ConfigError):
        make_plan(replace(config(), **changes), catalogue)


def test_somebody_elses_key_makes_no_plan(catalogue):
    asked = config()
    keys = dict(asked.roster)
    keys["store 0"], keys["store 1"] = keys["store 1"], keys["store 0"]
    with pytest.raises(ConfigError, match="another silo's name"):
        make_plan(replace(asked, roster=keys), catalogue)


def test_continued_plan_covers_the_earlier_one(catalogue):
    asked = config(models=["gram", "mf"], public=HELD_BACK)
    first = make_plan(asked, catalogue)
    more = replace(asked, privacy=replace(asked.privacy, epsilon=6.0), earlier=first)
    later = make_plan(more, catalogue)
    assert later.earlier == first.releases
    assert {event.kind for event in later.releases} == {"mf", "fusion"}
    assert 4.0 < later.epsilons()["epsilon"] <= 6.0
    with pytest.raises(ConfigError, match="nothing is left"):
        make_plan(replace(more, privacy=replace(asked.privacy, epsilon=3.0)), catalogue)


def test_example_file_makes_a_plan_of_a_file(catalogue):
    asked = build(PlanFile, read_toml(Path(server.__file__).parent / "plan_example.toml"))
    plan = make_plan(
        asked.plan_config(roster(), Identity.generate(COORDINATOR).public.text(), "2999-12-31"),
        catalogue,
    )
    assert set(plan.models) == {"gram", "mf"}
