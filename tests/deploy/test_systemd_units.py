"""Units: what systemd says of them, and the walls that we promise."""

import configparser
import re
import shutil
from pathlib import Path

import pytest
from deploy_files import DEPLOY, SWITCHES, options_of, tool

UNITS = DEPLOY / "systemd"
SERVICES = sorted(UNITS.glob("*.service"))
MOST_EXPOSED = {"fondaco-agent": 1.0, "fondaco-courier": 2.0, "fondaco-coordinator": 2.0}
each = pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A system in a folder: systemd's own targets, our units, and programs of our names."""
    root = tmp_path_factory.mktemp("root")
    targets = root / "usr" / "lib" / "systemd" / "system"
    ours, programs = root / "etc" / "systemd" / "system", root / "opt" / "fondaco" / "bin"
    for folder in (targets, ours, programs, root / "var" / "lib"):
        folder.mkdir(parents=True)
    for kind in ("*.target", "*.slice", "*.mount"):
        for unit in Path("/usr/lib/systemd/system").glob(kind):
            if unit.is_file():
                shutil.copy(unit, targets)
    for unit in (*SERVICES, *UNITS.glob("*.socket")):
        shutil.copy(unit, ours)
    for program in ("fondaco-client", "fondaco-server"):
        (programs / program).write_text("#!/bin/sh\n")
        (programs / program).chmod(0o755)
    return root


def read(path):
    """Return a unit's sections; a key that stands twice has all of its values."""
    found = {}
    section = None
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = found.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            section.setdefault(key, []).append(value)
    return found


def test_the_units_are_there():
    assert [path.stem for path in SERVICES] == sorted(MOST_EXPOSED)


def test_systemd_finds_no_fault(root):
    names = [path.name for path in (*SERVICES, *UNITS.glob("*.socket"))]
    done = tool("systemd-analyze", "verify", "--man=no", f"--root={root}", *names)
    assert (done.returncode, done.stderr) == (0, "")


@each
def test_systemd_finds_little_exposed(path, root):
    done = tool("systemd-analyze", "security", "--offline=true", f"--root={root}", path.name)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found, done.stderr
    assert float(found[1]) <= MOST_EXPOSED[path.stem]


@each
def test_a_service_is_quiet_and_holds_no_secret(path):
    pairs = dict(value.split("=", 1) for value in read(path)["Service"]["Environment"])
    assert pairs.items() >= SWITCHES.items()
    assert not any(re.search("PASS|SECRET|TOKEN|KEY|URL", name) for name in pairs)


@each
def test_a_service_has_a_user_of_its_own_and_no_rights(path):
    service = read(path)["Service"]
    assert service["User"] == service["Group"] == [path.stem]
    assert service["CapabilityBoundingSet"] == [""]
    assert service["NoNewPrivileges"] == ["yes"]
    assert service["ProtectSystem"] == ["strict"]
    assert service["UMask"] == ["0077"]
    assert service["LimitCORE"] == ["0"]


def test_the_agent_has_no_network_and_gets_its_socket_from_systemd():
    agent, socket = read(UNITS / "fondaco-agent.service"), read(UNITS / "fondaco-agent.socket")
    assert agent["Service"]["PrivateNetwork"] == ["yes"]
    assert agent["Service"]["IPAddressDeny"] == ["any"]
    assert "AF_INET" not in agent["Service"]["RestrictAddressFamilies"][0]
    assert agent["Unit"]["Requires"] == ["fondaco-agent.socket"]
    assert socket["Socket"]["SocketUser"] == ["fondaco-courier"]
    assert socket["Socket"]["SocketMode"] == ["0600"]


def test_the_courier_cannot_see_the_owners_folder_and_comes_back_for_ever():
    unit = read(UNITS / "fondaco-courier.service")
    assert unit["Service"]["InaccessiblePaths"] == ["-/var/lib/fondaco-agent"]
    assert (unit["Service"]["Restart"], unit["Service"]["RestartSec"]) == (["always"], ["15"])
    assert unit["Unit"]["StartLimitIntervalSec"] == ["0"]


def test_the_socket_lies_where_the_courier_looks():
    from fondaco.client.deployment import Deployment  # noqa: PLC0415

    courier = read(UNITS / "fondaco-courier.service")["Service"]["ExecStart"][0].split()[-1]
    there = Deployment(superlink="", coordinator="", courier=courier).socket
    assert read(UNITS / "fondaco-agent.socket")["Socket"]["ListenStream"] == [str(there)]


def test_users_and_folders_are_made_as_systemd_makes_them(root):
    users = tool("systemd-sysusers", f"--root={root}", UNITS / "sysusers.d" / "fondaco.conf")
    assert users.returncode == 0, users.stderr
    table = (root / "etc" / "passwd").read_text()
    assert all(re.search(rf"^{name}:.*:/usr/sbin/nologin$", table, re.M) for name in MOST_EXPOSED)
    folders = tool(
        "systemd-tmpfiles", "--create", f"--root={root}", UNITS / "tmpfiles.d" / "fondaco.conf"
    )
    assert folders.returncode == 0, folders.stderr
    for name in MOST_EXPOSED:
        folder = root / "var" / "lib" / name
        assert folder.stat().st_mode & 0o777 == 0o700


def test_the_commands_are_ones_that_exist():
    for path in SERVICES:
        program, command, *words = read(path)["Service"]["ExecStart"][0].split()
        options = {word for word in words if word.startswith("--")}
        assert options <= options_of(Path(program).name, command)


def test_units_are_plain_ini_files():
    for path in (*SERVICES, *UNITS.glob("*.socket")):
        configparser.ConfigParser(strict=False, interpolation=None).read_string(path.read_text())
