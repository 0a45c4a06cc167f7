"""Kits that are not for this owner are refused with the fix, and nothing is changed by them."""

import pytest
from kits import files_of, mode_of

from fondaco.client.owner import Owner
from fondaco.shared.catalogue import ids_only
from fondaco.shared.chain.keys import COORDINATOR, Identity
from fondaco.shared.kit import fingerprint


@pytest.fixture
def unchanged(script, refused):
    """Return a function that holds that `init` refuses a kit and leaves everything as it was."""

    def hold(kit, *words):
        folders = script.home, script.home.with_name("shop-courier")
        before = files_of(*folders)
        line = refused(kit, *words)
        assert files_of(*folders) == before
        return line

    return hold


@pytest.mark.parametrize("blob", [b"", b"x", b"{}\n", b"\x00" * 100, b'{"schema": 1}\nAAAA\n'])
def test_file_that_is_no_kit_makes_nothing(script, refused, tmp_path, blob):
    (tmp_path / "bad.kit").write_bytes(blob)
    assert "kit" in refused(tmp_path / "bad.kit")
    assert "cannot be read" in refused(tmp_path / "missing.kit")
    assert "cannot be read" in refused(tmp_path)
    assert not script.home.exists()


def test_folder_that_was_made_for_the_owner_stays_where_a_kit_is_refused(
    script, refused, coordinator, desk
):
    """By root, for the agent's OS user: the next one would be root's."""
    script.home.mkdir(mode=0o700)
    (desk / "letter.txt").write_text("dear")
    assert "is no courier's" in refused(coordinator.kit(), "--courier", desk)
    assert script.home.is_dir()


def test_kit_that_was_changed_on_the_way_makes_nothing(script, refused, coordinator):
    kit = coordinator.kit()
    kit.write_bytes(kit.read_bytes().replace(b"harbour.example", b"evil.example"))
    assert "changed after it was signed" in refused(kit)
    assert not script.home.exists()


def test_kit_of_another_coordinator_is_refused(init, coordinator, unchanged):
    init(coordinator.kit())
    known = coordinator.key
    coordinator.identity = Identity.generate(COORDINATOR)
    line = unchanged(coordinator.kit())
    assert fingerprint(known) in line
    assert fingerprint(coordinator.key) in line
    assert "--coordinator FINGERPRINT" in line


def test_new_key_of_the_coordinator_is_taken_over_by_its_fingerprint(script, init, coordinator):
    init(coordinator.kit())
    init(coordinator.kit(coordinator.plan(script.home)), "--yes")
    coordinator.identity = Identity.generate(COORDINATOR)
    plan = coordinator.plan(script.home)
    told = "--coordinator", fingerprint(coordinator.key)
    kit = coordinator.kit(plan)
    assert "--replace-peer coordinator" in _refused(script, kit, *told, "--yes")
    init(kit, *told, "--yes", "--replace-peer", "coordinator")
    Owner.open(script.home).check(plan)


def _refused(script, kit, *words):
    out = script.own("init", "--kit", kit, *words, code=2)
    assert "Traceback" not in out + script.err
    return script.err


def test_other_fingerprint_than_was_told_is_refused_before_anything_is_made(
    script, refused, coordinator
):
    line = refused(coordinator.kit(), "--coordinator", "0000 " * 8)
    assert "do not use this kit" in line
    assert not script.home.exists()


def test_fingerprint_that_was_told_may_be_typed_in_any_way(init, coordinator):
    told = fingerprint(coordinator.key).replace(" ", "").upper()
    init(coordinator.kit(), "--coordinator", told)


def test_kit_for_another_silo_is_refused(init, coordinator, unchanged):
    init(coordinator.kit())
    assert "is for 'south'" in unchanged(coordinator.kit(silo_id="south"))


def test_older_kit_is_refused(init, coordinator, unchanged):
    older, newer = coordinator.kit(), coordinator.kit()
    init(newer)
    assert "older than" in unchanged(older)


def test_plan_with_an_older_key_of_this_silo_is_refused(script, init, coordinator, unchanged):
    init(coordinator.kit())
    plan = coordinator.plan(script.home)
    script.own("keys", "--rotate")
    assert "keys --registration" in unchanged(coordinator.kit(plan))


def test_plan_in_the_first_kit_is_refused_where_the_keys_are_missing(
    script, init, refused, coordinator
):
    init(coordinator.kit())
    plan = coordinator.plan(script.home)
    script.home = script.home.with_name("other")
    assert "holds none" in refused(coordinator.kit(plan))
    assert not (script.home / "identity.pem").exists()


def test_lost_key_of_a_ledger_in_use_is_not_made_anew(script, init, refused, coordinator):
    init(coordinator.kit())
    with Owner.open(script.home).ledger():
        pass
    (script.home / "identity.pem").unlink()
    assert "backup" in refused(coordinator.kit())
    assert not (script.home / "identity.pem").exists()


def test_catalogue_that_is_not_the_plans_is_refused(script, init, coordinator, refused):
    init(coordinator.kit())
    plan = coordinator.plan(script.home)
    init(coordinator.kit(plan), "--yes")
    before = files_of(script.home / "kit")
    coordinator.catalogue = ids_only(coordinator.catalogue)
    assert "another catalogue" in refused(coordinator.kit(plan))
    assert files_of(script.home / "kit") == before


def test_changed_key_of_a_peer_needs_its_name(script, init, coordinator):
    init(coordinator.kit())
    plan = coordinator.plan(script.home)
    init(coordinator.kit(plan), "--yes")
    new = Identity.generate("fondaco/silo-2").public.text()
    again = coordinator.plan(script.home, roster={**plan.roster, "silo-2": new})
    kit = coordinator.kit(again)
    line = _refused(script, kit, "--yes")
    assert "'silo-2' has another key" in line
    assert fingerprint(new) in line
    init(kit, "--yes", "--replace-peer", "silo-2")
    Owner.open(script.home).check(again)


@pytest.mark.parametrize("place", ["shop/courier", "shop", "."])
def test_courier_and_owner_never_lie_within_each_other(script, refused, coordinator, place):
    folder = script.home.parent / place
    assert "within each other" in refused(coordinator.kit(), "--courier", folder)
    assert not script.home.exists()


def test_courier_never_takes_over_a_folder_of_something_else(script, init, refused, coordinator):
    other = script.home.parent / "documents"
    other.mkdir()
    (other / "letter.txt").write_text("dear")
    assert "is no courier's" in refused(coordinator.kit(), "--courier", other)
    assert [path.name for path in other.iterdir()] == ["letter.txt"]
    assert not script.home.exists()
    (other / "link").symlink_to(script.home)
    assert "no folder" in refused(coordinator.kit(), "--courier", other / "letter.txt")


def test_folder_of_something_else_never_becomes_an_owners(script, refused, coordinator, desk):
    (desk / "letter.txt").write_text("dear")
    script.home, mode = desk, mode_of(desk)
    assert "is no owner's folder" in refused(coordinator.kit())
    assert mode_of(desk) == mode
    assert [path.name for path in desk.iterdir()] == ["letter.txt"]


def test_couriers_of_two_owners_do_not_mix(script, init, refused, coordinator):
    init(coordinator.kit())
    script.home = script.home.with_name("second")
    place = script.home.with_name("shop-courier")
    line = refused(coordinator.kit(silo_id="south"), "--courier", place)
    assert "courier's folder of 'north'" in line


def test_couriers_folder_is_not_changed_while_the_old_one_is_there(init, refused, coordinator):
    init(coordinator.kit())
    assert "move that folder" in refused(coordinator.kit(), "--courier", "elsewhere")


def test_place_too_deep_for_a_socket_is_refused(script, refused, coordinator):
    deep = script.home.parent / ("x" * 100)
    assert "too long" in refused(coordinator.kit(), "--courier", deep)
    assert not script.home.exists()


def test_unknown_os_user_is_refused_with_the_command_that_makes_one(script, refused, coordinator):
    line = refused(coordinator.kit(), "--courier-user", "no-such-user-here")
    assert "useradd" in line
    assert not script.home.exists()
