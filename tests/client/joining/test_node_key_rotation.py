"""fondaco-client keys --rotate-node: a new key of the courier, a new registration, the old kept."""

import json
from pathlib import Path

import pytest
from kits import mode_of

from fondaco.client.owner import Owner
from fondaco.shared.kit import Registration


@pytest.fixture
def courier(script, init, coordinator):
    init(coordinator.kit())
    return script.home.with_name("shop-courier")


def test_new_node_key_comes_with_a_registration_and_keeps_the_old(script, courier, desk):
    old = (courier / "node-key").read_bytes()
    handed = desk / "north.registration.json"
    before = Registration.from_bytes(handed.read_bytes())
    script.own("keys", "--rotate-node")
    assert "register --replace" in script.err
    after = Registration.from_bytes(handed.read_bytes())
    assert after.identity == before.identity
    assert after.node_key != before.node_key
    assert after.node_key == (courier / "node-key.pub").read_text().strip()
    assert (courier / "node-key.old").read_bytes() == old
    assert {mode_of(path) for path in courier.glob("node-key*")} == {0o600}


def test_node_key_is_not_renewed_twice_before_the_old_is_put_away(script, courier):
    script.own("keys", "--rotate-node")
    kept = (courier / "node-key").read_bytes()
    assert "node-key.old is still there" in script.refused("keys", "--rotate-node")
    assert (courier / "node-key").read_bytes() == kept
    (courier / "node-key.old").unlink()
    script.own("keys", "--rotate-node")
    assert (courier / "node-key").read_bytes() != kept


def test_new_identity_comes_with_a_registration_too(script, courier, desk):
    facts = json.loads(script.own("keys", "--rotate", "--json"))
    told = Registration.from_bytes(Path(facts["registration"]).read_bytes())
    assert told.identity == facts["key"] == Owner.open(script.home).identity.public.text()
    assert told.node_key == facts["node_key"]


def test_registration_is_written_again_where_it_is_wanted(script, courier, desk):
    first = (desk / "north.registration.json").read_bytes()
    script.own("keys", "--registration", desk / "again.json")
    assert "old key" not in script.err
    assert (desk / "again.json").read_bytes() == first


def test_owner_without_a_courier_is_told_how_to_join(script, desk):
    script.own("keys", "--silo", "north")
    assert "init --kit KIT" in script.refused("keys", "--rotate-node")
    assert "init --kit KIT" in script.refused("keys", "--registration", ".")
    assert "just made" in script.refused("keys", "--silo", "x", "--rotate-node")


@pytest.mark.parametrize("blob", [b"", b"x", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"])
def test_damaged_node_key_is_named(script, courier, blob):
    (courier / "node-key").write_bytes(blob)
    assert "node-key holds no private key" in script.refused("keys", "--rotate-node")
