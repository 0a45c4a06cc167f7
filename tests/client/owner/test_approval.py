"""An owner reads a plan, signs it or does not; what cannot be signed is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from owner_records import types_of

from fondaco.shared.chain.keys import Identity, PublicKey
from fondaco.shared.errors import ConfigError
from fondaco.shared.plan_text import read_plan, to_toml


def test_approval_says_what_it_means_and_signs(script, owner, ready):
    plan, path = ready
    out = script.own("approve", path, said="y\n")
    for words in ("epsilon", "in two silos", "in three", "Your sums are not masked"):
        assert words in out
    assert "signed" in out
    assert owner.approved() == plan
    kept = list((script.home / "plans").glob("*.toml"))
    assert [read_plan(file).digest for file in kept] == [plan.digest]
    with owner.ledger() as ledger:
        record = ledger.chain.of_type("PLAN")[0]
    assert record["claims"] == "as planned"
    assert record["plan_digest"] == plan.digest
    script.own("approve", path, "--yes")
    assert types_of(owner) == ["GENESIS", "POLICY", "PLAN"]


@pytest.mark.parametrize("said", ["n\n", "\n", ""], ids=repr)
def test_owner_who_does_not_say_yes_signs_nothing(script, owner, ready, said):
    script.own("approve", ready[1], said=said, code=1)
    assert owner.approved() is None
    assert not (script.home / "plans").exists()


def test_facts_for_machines_are_shown_without_signing_and_with(script, owner, ready):
    plan, path = ready
    facts = json.loads(script.own("approve", path, "--json"))
    assert facts["approved"] is False
    assert facts["plan"] == plan.digest
    assert sorted(facts["epsilon_in_silos"]) == ["1", "2", "3"]
    assert facts["epsilon_in_silos"]["1"] <= facts["epsilon_in_silos"]["2"]
    assert owner.approved() is None
    facts = json.loads(script.own("approve", path, "--json", "--yes"))
    assert facts["approved"] is True
    assert Path(facts["kept_as"]).is_file()
    assert owner.approved() == plan


def _changed(ready, **changes):
    plan, path = ready
    path.write_text(to_toml(replace(plan, **changes)))
    return path


def test_plan_for_other_code_is_refused(script, owner, ready):
    assert "for code" in script.refused("approve", _changed(ready, code_digest="sha256:x"), "--yes")
    assert owner.approved() is None


def test_plan_with_another_key_for_this_owner_is_refused(script, owner, ready):
    roster = {**ready[0].roster, "north": Identity.generate("fondaco/north").public.text()}
    line = script.refused("approve", _changed(ready, roster=roster), "--yes")
    assert "does not hold this owner's key" in line
    assert owner.approved() is None


def test_plan_with_keys_that_nobody_checked_is_refused(script, owner, ready):
    stranger = Identity.generate("fondaco/silo-2").public.text()
    path = _changed(ready, roster={**ready[0].roster, "silo-2": stranger})
    assert "not pinned: 1 (fondaco/silo-2)" in script.refused("approve", path, "--yes")
    server = Identity.generate("fondaco-coordinator").public.text()
    path = _changed(ready, coordinator=server)
    assert "not pinned: 1 (fondaco-coordinator)" in script.refused("approve", path, "--yes")
    assert owner.approved() is None


def test_plan_beyond_the_owners_limits_is_refused(script, owner, ready):
    _, path = ready
    script.own("policy", "--epsilon-if-masking-broke", 0.5, "--target-delta", "1e-6")
    assert "masking broken" in script.refused("approve", path, "--yes")
    limits = "--epsilon-per-year", 0.5, "--epsilon-if-masking-broke", 9
    script.own("policy", *limits, "--target-delta", "1e-6")
    assert "per year" in script.refused("approve", path, "--yes")
    assert owner.approved() is None


def test_plan_is_refused_before_limits_are_set(script, owner, make_deployed, tmp_path):
    plan = make_deployed(owner)
    owner.pin([PublicKey.from_text(text) for text in (*plan.roster.values(), plan.coordinator)])
    path = tmp_path / "plan.json"
    path.write_text(plan.to_json())
    assert "limits first" in script.refused("approve", path, "--yes")
    assert owner.approved() is None


@pytest.mark.parametrize(
    "text", ["", "x", "[", "schema = 3", '{"schema": 4}', "\x00", "schema = 4\n[promise]\n"]
)
def test_file_that_is_no_plan_is_refused(script, owner, tmp_path, text):
    for name in ("plan.toml", "plan.json"):
        (tmp_path / name).write_text(text)
        script.refused("approve", tmp_path / name, "--yes")
    assert "cannot be read" in script.refused("approve", tmp_path / "missing.toml", "--yes")
    assert owner.approved() is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("stddev_grid = ", "stddev_grid = 1"),
        ("dim = ", "dim = 9"),
        ("n_min = ", "n_min = -"),
        ("budget_units = ", "budget_units = 1"),
        ('target_epsilon = "1.0"', 'target_epsilon = "0.5"'),
        ("schema = 4", "schema = 5"),
        ('mode = "deploy"', 'mode = "production"'),
    ],
)
def test_plan_edited_by_hand_is_refused_or_another_plan(script, owner, ready, old, new):
    plan, path = ready
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    try:
        assert read_plan(path).digest != plan.digest
    except ConfigError:
        script.refused("approve", path, "--yes")
        assert owner.approved() is None


def test_newer_plan_takes_the_place_of_the_older(script, owner, ready, make_deployed):
    _, path = ready
    script.own("approve", path, "--yes")
    second = make_deployed(owner, public={"split": "2020-01-01"})
    path.write_text(to_toml(second))
    script.own("approve", path, "--yes")
    assert owner.approved() == second
    assert len(list((script.home / "plans").iterdir())) == 2
