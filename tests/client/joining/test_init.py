"""fondaco-client init: folders and keys from the first kit, plan and peers from the next."""

import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest
from kits import files_of, mode_of

from fondaco.client.deployment import read_courier, read_deployment
from fondaco.client.joining import EXAMPLE
from fondaco.client.owner import Owner
from fondaco.shared.audit_log import verify
from fondaco.shared.catalogue import ids_only
from fondaco.shared.kit import Registration, fingerprint
from fondaco.shared.plan_text import read_plan


@pytest.fixture
def courier(script):
    return script.home.with_name("shop-courier")


def ran(*command):
    """Run one of this machine's programs, or one that init wrote."""
    environment = {**os.environ, "PYTHONPATH": "/nowhere"}
    return subprocess.run(  # noqa: S603
        command, capture_output=True, text=True, check=False, env=environment
    )


def test_first_kit_makes_owner_courier_and_registration(script, init, coordinator, courier, desk):
    out = init(coordinator.kit())
    owner, settings = Owner.open(script.home), read_courier(courier)
    assert (owner.silo_id, settings.silo_id) == ("north", "north")
    deployment = read_deployment(script.home)
    assert deployment.superlink == settings.superlink == "harbour.example:8443"
    assert deployment.coordinator == coordinator.key
    assert str(deployment.socket) == settings.socket == str(courier / "agent.sock")
    assert (courier / "ca.pem").read_text() == coordinator.ca
    assert len((courier / "superexec.secret").read_bytes()) == 32
    told = Registration.from_bytes((desk / "north.registration.json").read_bytes())
    assert told.identity == owner.identity.public.text()
    assert told.node_key == (courier / "node-key.pub").read_text().strip()
    for shown in (coordinator.key, told.identity):
        assert fingerprint(shown) in out
    assert str(desk / "north.registration.json") in out
    assert f"fondaco-client init --kit KIT --home {script.home}" in out


def test_nothing_in_either_folder_can_be_read_by_others(script, init, coordinator, courier):
    init(coordinator.kit())
    for folder in (script.home, courier, courier / "flwr", courier / "bin"):
        assert mode_of(folder) == 0o700
    for path in files_of(script.home, courier):
        assert mode_of(path) == (0o700 if path.parent.name == "bin" else 0o600), path


def test_no_secret_leaves_the_folders(script, init, coordinator, courier, desk):
    out = init(coordinator.kit())
    private = [script.home / "identity.pem", courier / "node-key", courier / "superexec.secret"]
    for path in private:
        body = path.read_bytes().splitlines()[1] if path.name != "superexec.secret" else b""
        handed = (desk / "north.registration.json").read_bytes() + out.encode()
        assert not body or body not in handed
    assert b"PRIVATE" not in b"".join(files_of(desk).values())


def test_openssh_reads_the_node_key(init, coordinator, courier):
    init(coordinator.kit())
    shown = ran(shutil.which("ssh-keygen"), "-y", "-f", courier / "node-key").stdout
    assert shown.strip() == (courier / "node-key.pub").read_text().strip()
    assert shown.startswith("ecdsa-sha2-nistp384 ")


def test_launcher_runs_this_installation_and_knows_its_folder(init, coordinator, courier):
    init(coordinator.kit())
    text = (courier / "bin" / "flwr-clientapp").read_text()
    assert f"exec {shlex.quote(sys.executable)} -PE -m fondaco.client.launcher " in text
    assert f"FONDACO_COURIER={courier}" in text
    told = ran(courier / "bin" / "flwr-clientapp", "--help")
    assert told.returncode == 0, told.stderr


def test_second_kit_brings_the_plan_and_pins_peers_after_yes(script, init, coordinator, desk):
    init(coordinator.kit())
    (desk / "north.registration.json").unlink()
    plan = coordinator.plan(script.home)
    out = init(coordinator.kit(plan), said="y\n")
    assert read_plan(script.home / "kit" / "plan.toml").digest == plan.digest
    for key in (*plan.roster.values(), plan.coordinator):
        assert fingerprint(key) in out
    owner = Owner.open(script.home)
    assert {key.text() for key in owner.peers()} == {
        *plan.roster.values(),
        plan.coordinator,
    } - {owner.identity.public.text()}
    owner.check(plan)
    assert list(desk.iterdir()) == []
    assert f"fondaco-client approve {script.home}/kit/plan.toml" in out


@pytest.mark.parametrize("said", ["n\n", "\n", ""], ids=repr)
def test_peers_are_not_pinned_without_a_yes(script, init, coordinator, said):
    init(coordinator.kit())
    kit = coordinator.kit(coordinator.plan(script.home))
    init(kit, said=said, code=1)
    assert Owner.open(script.home).peers() == []
    facts = json.loads(init(kit, "--json"))
    assert facts["pinned"] is False
    assert {peer["state"] for peer in facts["peers"]} == {"new", "yours"}
    facts = json.loads(init(kit, "--json", "--yes"))
    assert facts["pinned"] is True
    assert "fingerprints match" not in init(kit)


def test_same_kit_again_changes_nothing(script, init, coordinator, courier):
    kit = coordinator.kit()
    init(kit)
    before = files_of(script.home, courier)
    init(kit)
    after = files_of(script.home, courier)
    log = script.home / "audit.jsonl"
    assert {**after, log: b""} == {**before, log: b""}


def test_newer_kit_changes_certificates_and_address_and_keeps_keys(
    script, init, coordinator, courier
):
    init(coordinator.kit())
    kept = {p: p.read_bytes() for p in (script.home / "identity.pem", courier / "node-key")}
    kept[courier / "superexec.secret"] = (courier / "superexec.secret").read_bytes()
    (script.home / "source.toml").write_text("# mine\n")
    coordinator.ca, coordinator.address = coordinator.ca * 2, "elsewhere.example:443"
    out = init(coordinator.kit())
    assert "certificate authority, address" in out
    assert "restart" in out
    assert (courier / "ca.pem").read_text() == coordinator.ca
    assert (script.home / "kit" / "ca.pem").read_text() == coordinator.ca
    assert read_courier(courier).superlink == "elsewhere.example:443"
    assert {path: path.read_bytes() for path in kept} == kept
    assert (script.home / "source.toml").read_text() == "# mine\n"


def test_catalogue_of_an_earlier_plan_stays_findable(script, init, coordinator):
    from fondaco.client.kit_files import find_catalogue  # noqa: PLC0415

    init(coordinator.kit())
    first = coordinator.plan(script.home)
    init(coordinator.kit(first), "--yes")
    coordinator.catalogue = ids_only(coordinator.catalogue)
    second = coordinator.plan(script.home)
    assert "plan, catalogue" in init(coordinator.kit(second), "--yes")
    owner = Owner.open(script.home)
    assert find_catalogue(owner, first).digest == first.catalogue_digest
    assert find_catalogue(owner, second).digest == second.catalogue_digest


def test_place_and_port_of_the_courier_are_chosen_once_and_kept(script, init, coordinator):
    place = script.home.parent / "elsewhere"
    init(coordinator.kit(), "--courier", place, "--courier-port", 9200)
    init(coordinator.kit())
    assert read_deployment(script.home).courier == str(place)
    assert read_courier(place).port == 9200


def test_template_of_the_table_is_put_there_and_can_be_edited(script, init, coordinator):
    init(coordinator.kit())
    assert (script.home / "source.toml").read_bytes() == EXAMPLE.read_bytes()


def test_registration_goes_where_it_is_wanted(init, coordinator, desk):
    (desk / "post").mkdir()
    init(coordinator.kit(), "--out", "post")
    init(coordinator.kit(), "--out", "x.json")
    names = {"post/north.registration.json", "x.json"}
    assert {p.relative_to(desk).as_posix() for p in files_of(desk)} == names


def test_who_joined_by_which_kit_is_written_down(script, init, coordinator):
    init(coordinator.kit())
    script.own("keys", "--rotate-node")
    entries = verify(script.home / "audit.jsonl").entries
    assert [entry.action for entry in entries] == ["init", "rotate"]
    assert entries[0].fields["coordinator"] == fingerprint(coordinator.key)


def test_keys_made_before_the_kit_came_are_taken_over(script, init, coordinator):
    public = script.own("keys", "--silo", "north").strip()
    init(coordinator.kit())
    assert Owner.open(script.home).identity.public.text() == public
