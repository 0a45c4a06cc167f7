"""fondaco-client for a data owner: every command, keys and limits."""

import json
import stat

import pytest
from owner_records import types_of

from fondaco.client import owner as owner_module
from fondaco.client.owner import Owner
from fondaco.shared.chain.keys import Identity, PublicKey

COMMANDS = ("recommend", "keys", "policy", "approve", "leave", "erase", "ledger")


# ---- every command ----


def test_commands_are_listed_in_the_order_of_use(script):
    listed = script("--help").split("Commands")[1]
    order = ["init", "policy", "load", "doctor", "approve", "run", "recommend", "status"]
    places = [listed.index(f" {command} ") for command in order]
    assert places == sorted(places)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(script, command):
    out = script(command, "--help")
    assert "Usage" in out
    assert command in script("--help")


def test_script_without_words_shows_its_help(script):
    assert "Usage" in script(code=2) + script.err


@pytest.mark.parametrize("command", ["policy", "leave", "ledger"])
def test_folder_that_is_no_owners_is_refused(script, command):
    assert "no owner's folder" in script.refused(command)
    assert not script.home.exists()


def test_ledger_shows_records_of_several_types(script, owner):
    script.own("policy", "--epsilon-per-year", 3, "--epsilon-if-masking-broke", 3)
    words = ["ledger", "--json", "--type", "policy", "--type", "genesis"]
    records = json.loads(script.own(*words))["records"]
    assert [record["type"] for record in records] == ["GENESIS", "POLICY"]


def test_folder_that_is_no_owners_approves_and_erases_nothing(script, tmp_path):
    assert "no owner's folder" in script.refused("approve", tmp_path / "plan.toml")
    assert "no owner's folder" in script.refused("erase", "ann")


def test_socket_that_run_would_not_use_is_refused(script, owner, tmp_path):
    assert "--agent-only" in script.refused("run", "--socket", tmp_path / "agent.sock")


# ---- keys ----


def test_key_is_made_once_on_the_owners_machine_and_shown(script):
    public = script.own("keys", "--silo", "north").strip()
    assert PublicKey.from_text(public).name == "fondaco/north"
    assert script.own("keys").strip() == public
    assert json.loads(script.own("keys", "--json")) == {"silo_id": "north", "key": public}
    assert "never overwritten" in script.refused("keys", "--silo", "north")
    assert script.own("keys").strip() == public


def test_key_is_for_its_owner_alone(script, owner):
    path = script.home / owner_module.KEY
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(script.home.stat().st_mode) == 0o700
    assert "PRIVATE" not in script.own("keys") + script.own("keys", "--json")
    path.chmod(0o644)
    assert "chmod 600" in script.refused("keys")


@pytest.mark.parametrize("name", [" ", "a\nb", "\x1b[1m"], ids=repr)
def test_name_that_is_none_is_refused(script, name):
    assert "no name for a silo" in script.refused("keys", "--silo", name)
    assert not script.home.exists()


@pytest.mark.parametrize("name", ["Süd & Söhne", "../etc", "a/b", "[red]x[/red]", "a+b c"])
def test_any_printable_name_makes_an_owner(script, name):
    public = script.own("keys", "--silo", name).strip()
    assert PublicKey.from_text(public).name.isascii()
    assert Owner.open(script.home).silo_id == name
    script.own("ledger")
    files = [path for path in script.home.parent.rglob("*") if path.is_file()]
    assert all(path.resolve().is_relative_to(script.home.resolve()) for path in files)
    assert name in json.loads(script.own("ledger", "--json"))["silo_id"]


# ---- limits ----


def test_limits_are_set_shown_and_changed_one_at_a_time(script, owner):
    assert "no limits" in script.own("policy")
    script.own("policy", "--epsilon-per-year", 3, "--epsilon-if-masking-broke", 4)
    script.own("policy", "--epsilon-per-year", 2)
    facts = json.loads(script.own("policy", "--json"))
    assert facts["limits"]["epsilon_per_year"] == "2.0"
    assert facts["limits"]["epsilon_if_masking_broke"] == "4.0"
    assert types_of(owner) == ["GENESIS", "POLICY", "POLICY"]
    script.own("policy", "--epsilon-per-year", 2)
    assert types_of(owner) == ["GENESIS", "POLICY", "POLICY"]


def test_limits_keep_the_delta_that_was_set(script, owner):
    first = "--epsilon-per-year", 3, "--epsilon-if-masking-broke", 4
    script.own("policy", *first, "--target-delta", "1e-7")
    script.own("policy", "--epsilon-per-year", 2)
    assert json.loads(script.own("policy", "--json"))["limits"]["target_delta"] == "1e-07"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--epsilon-per-year", 3], "set both"),
        (["--epsilon-if-masking-broke", 3], "set both"),
        (["--epsilon-per-year", 3, "--epsilon-if-masking-broke", 3, "--target-delta", 0], "delta"),
        (["--epsilon-per-year", 3, "--epsilon-if-masking-broke", 3, "--target-delta", 1], "delta"),
        (["--epsilon-per-year", "inf", "--epsilon-if-masking-broke", 3], ""),
        (["--epsilon-per-year", "nan", "--epsilon-if-masking-broke", 3], ""),
        (["--peer", "no key"], "no public key"),
    ],
    ids=str,
)
def test_limits_out_of_range_are_refused(script, owner, words, why):
    assert why in script.refused("policy", *words)
    assert "POLICY" not in types_of(owner)


def test_key_beside_limits_that_are_refused_is_not_trusted(script, owner):
    key = Identity.generate("fondaco/south").public.text()
    assert "set both" in script.refused("policy", "--peer", key, "--epsilon-per-year", 3)
    assert owner.peers() == []


def test_other_key_of_a_pinned_name_is_refused(script, owner):
    first, second = (Identity.generate("fondaco/south").public.text() for _ in range(2))
    script.own("policy", "--peer", first)
    script.own("policy", "--peer", first)
    assert "another key of fondaco/south" in script.refused("policy", "--peer", second)
    assert json.loads(script.own("policy", "--json"))["peers"] == ["fondaco/south"]
    assert [key.text() for key in owner.peers()] == [first]
