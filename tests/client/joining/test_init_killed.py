"""init killed at every point at which it makes something durable, and run again."""

import os
import shutil
import signal
from functools import partial

from kits import files_of, mode_of

from fondaco.client.joining import Wishes, join
from fondaco.client.owner import Owner
from fondaco.shared.kit import Registration
from fondaco.shared.plan_text import read_plan


def _killed_at_each(children, work, again):
    """Kill `work` before its first fsync, before its second, ... and call `again` each time.

    Everything durable is synced, so that between any two steps there is a point.
    """

    def die(num):
        children.die_in(os, "fsync", "before", num)
        work()

    ended, num = -signal.SIGKILL, 0
    while ended == -signal.SIGKILL:
        num += 1
        ended = children.ended(partial(die, num))
        again(num)
    assert ended == 0
    return num - 1


def _hold_whole(home, courier):
    """Hold that both folders are whole: no half-made file, nothing that others could read."""
    files = files_of(home, courier)
    assert [path for path in files if path.suffix in (".part", ".making", ".incoming")] == []
    for path in files:
        assert mode_of(path) == (0o700 if path.parent.name == "bin" else 0o600), path


def test_first_init_killed_anywhere_is_finished_by_the_next(coordinator, children, tmp_path, desk):
    kit, home = coordinator.kit(), tmp_path / "shop"
    courier = home.with_name("shop-courier")
    seen = {}

    def work():
        join(kit, home, Wishes())

    def again(num):
        keys = {
            p: p.read_bytes() for p in (home / "identity.pem", courier / "node-key") if p.is_file()
        }
        seen[num] = len(keys)
        join(kit, home, Wishes())
        assert {path: path.read_bytes() for path in keys} == keys
        told = Registration.from_bytes((desk / "north.registration.json").read_bytes())
        assert told.identity == Owner.open(home).identity.public.text()
        assert told.node_key == (courier / "node-key.pub").read_text().strip()
        _hold_whole(home, courier)
        for folder in (home, courier):
            shutil.rmtree(folder)
        (desk / "north.registration.json").unlink()

    assert _killed_at_each(children, work, again) > 15
    assert set(seen.values()) == {0, 1, 2}


def test_second_init_killed_anywhere_is_finished_by_the_next(
    script, init, coordinator, children, tmp_path
):
    init(coordinator.kit())
    courier = script.home.with_name("shop-courier")
    plan = coordinator.plan(script.home)
    coordinator.ca *= 2
    kit = coordinator.kit(plan)
    for folder in (script.home, courier):
        shutil.copytree(folder, tmp_path / "before" / folder.name)

    def work():
        join(kit, script.home, Wishes())

    def again(num):
        del num
        join(kit, script.home, Wishes())
        assert read_plan(script.home / "kit" / "plan.toml").digest == plan.digest
        assert (courier / "ca.pem").read_text() == coordinator.ca
        _hold_whole(script.home, courier)
        for folder in (script.home, courier):
            shutil.rmtree(folder)
            shutil.copytree(tmp_path / "before" / folder.name, folder)

    assert _killed_at_each(children, work, again) > 10


def test_node_key_rotation_killed_anywhere_leaves_one_key_in_place(
    script, init, coordinator, children
):
    from fondaco.client.courier_folder import node_public, rotate_node_key  # noqa: PLC0415

    init(coordinator.kit())
    courier = script.home.with_name("shop-courier")
    first = (courier / "node-key").read_bytes()

    def again(num):
        del num
        public = node_public(courier)  # whatever happened, there is a key
        if not (courier / "node-key.old").exists() or (courier / "node-key.new").exists():
            public = rotate_node_key(courier)
        assert (courier / "node-key.old").read_bytes() == first
        assert node_public(courier) == public
        assert (courier / "node-key").read_bytes() != first
        assert not (courier / "node-key.new").exists()
        (courier / "node-key.old").replace(courier / "node-key")

    assert _killed_at_each(children, lambda: rotate_node_key(courier), again) >= 3
