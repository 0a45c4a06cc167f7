"""fondaco-client doctor on machine, network and code: every check, well and not well."""

import base64
import hashlib
import json
import os
import shutil
import socket
from collections import namedtuple
from importlib.metadata import Distribution
from pathlib import Path

import pytest
from harbour import KNOWN, REFUSED, UNKNOWN
from kits import files_of

from fondaco.client import doctor, doctor_host
from fondaco.server.tls import TlsFiles

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def checks(script):
    """Return a function: look -> what it found, by name."""

    def look(*looks):
        found = doctor.examine(script.home, looks)
        return {check.name: check for check in found}

    return look


@pytest.fixture
def network(init, coordinator, harbour, checks):
    """Return a function -> what the network looks like to an owner of this harbour."""
    coordinator.address = harbour.address
    init(coordinator.kit())
    return lambda: checks(doctor_host.look_at_network)


# ---- network ----


def test_coordinator_that_is_there_and_knows_us_is_well(network, harbour):
    found = network()
    assert {name: check.state for name, check in found.items()} == {
        "port": "ok",
        "TLS": "ok",
        "clock": "ok",
        "registration": "ok",
    }
    assert "TLSv1.3" in found["TLS"].seen


def test_asking_for_the_registration_shows_no_key_and_begins_nothing(network, harbour, script):
    network()
    _, headers, body = harbour.requests[-1]
    sent = body + json.dumps(headers).encode()
    private = (script.home.with_name("shop-courier") / "node-key").read_bytes()
    assert not any(line in sent for line in private.splitlines()[1:-1])
    pem = base64.b64decode(headers["flwr-public-key"])
    assert body == b"\x0a" + bytes([len(pem) & 0x7F | 0x80, len(pem) >> 7]) + pem  # no heartbeat


def test_unknown_node_key_fails_with_the_file_to_hand_over(network, harbour):
    harbour.registered = UNKNOWN
    check = network()["registration"]
    assert check.state == "fail"
    assert "registration.json" in check.fix
    assert "--replace" not in check.fix


def test_renewed_node_key_is_followed_until_the_old_one_is_removed(network, harbour, script):
    script.own("keys", "--rotate-node")
    harbour.registered = UNKNOWN
    assert "--replace" in network()["registration"].fix
    harbour.registered = KNOWN
    check = network()["registration"]
    assert check.state == "warn"
    assert check.fix == f"rm {script.home.with_name('shop-courier')}/node-key.old"


def test_signature_that_is_not_taken_fails_with_the_clock(network, harbour):
    harbour.registered = REFUSED
    check = network()["registration"]
    assert check.state == "fail"
    assert "clock" in check.fix


@pytest.mark.parametrize("answer", [(200, b""), (500, b"{}"), (400, b'{"code":1}')], ids=repr)
def test_answer_that_no_superlink_gives_is_not_taken_for_a_yes(network, harbour, answer):
    harbour.registered = answer
    found = network()
    assert "registration" not in found or found["registration"].state != "ok"
    assert "fail" in {check.state for check in found.values()}


@pytest.mark.parametrize(
    ("offset_s", "state"),
    [
        (0, "ok"),
        (5, "ok"),
        (-30, "warn"),
        (30, "warn"),
        (-100, "fail"),
        (100, "fail"),
        (None, "warn"),
    ],
)
def test_clock_is_held_against_the_coordinators(network, harbour, offset_s, state):
    harbour.offset_s = offset_s
    check = network()["clock"]
    assert check.state == state
    assert bool(check.fix) == (state != "ok")


def test_port_where_nobody_listens_fails_and_the_rest_waits(init, coordinator, checks):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator.address = f"localhost:{free.getsockname()[1]}"
    init(coordinator.kit())
    found = checks(doctor_host.look_at_network)
    assert found["port"].state == "fail"
    assert {found[name].state for name in ("clock", "registration")} == {"warn"}
    assert "TLS" not in found


def test_other_authority_fails_at_tls_with_the_port_open(
    init, coordinator, harbour, checks, tmp_path
):
    stranger = TlsFiles(tmp_path / "stranger")
    stranger.make("stranger", ["localhost"])
    coordinator.ca, coordinator.address = stranger.ca.read_text(), harbour.address
    init(coordinator.kit())
    found = checks(doctor_host.look_at_network)
    assert (found["port"].state, found["TLS"].state) == ("ok", "fail")
    assert found["TLS"].fix
    assert found["clock"].state == "warn"


def test_certificate_that_ends_soon_is_told(monkeypatch, network):
    monkeypatch.setattr(doctor_host, "SOON_DAYS", 10_000)
    check = network()["TLS"]
    assert check.state == "warn"
    assert "rotate certificate" in check.fix


def test_owner_who_has_not_joined_is_told_to(script, checks, desk):
    script.own("keys", "--silo", "north")
    found = checks(doctor_host.look_at_network, doctor_host.look_at_users)
    assert [check.state for check in found.values()] == ["warn"]


# ---- machine ----


def test_permissions_are_good_after_init_and_work(script, joined, checks):
    script.own("approve", script.home / "kit" / "plan.toml", "--yes")
    assert checks(doctor_host.look_at_permissions)["permissions"].state == "ok"


@pytest.mark.parametrize(
    "name",
    [
        ".",
        "ledgers/north.db",
        "data/rows.npz",
        "quarantine/bad.csv",
        "../shop-courier",
        "../shop-courier/node-key",
        "../shop-courier/superexec.secret",
    ],
)
def test_anything_that_others_may_read_fails(script, joined, checks, name):
    path = script.home / name
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        path.touch()
    path.chmod(0o755 if path.is_dir() else 0o644)
    check = checks(doctor_host.look_at_permissions)["permissions"]
    assert check.state == "fail"
    assert check.fix.startswith("chmod -R go= ")
    path.chmod(0o700 if path.is_dir() else 0o600)
    assert checks(doctor_host.look_at_permissions)["permissions"].state == "ok"


def test_courier_inside_of_the_owners_folder_fails(script, init, coordinator, checks):
    init(coordinator.kit())
    path = script.home / "deployment.json"
    facts = json.loads(path.read_text())
    inside = script.home / "courier"
    shutil.copytree(facts["courier"], inside)
    path.write_text(json.dumps({**facts, "courier": str(inside)}))
    found = doctor.examine(script.home, (doctor_host.look_at_permissions,))
    assert "lies inside" in found[0].seen


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_files_and_folders_of_other_users_are_told(script, init, coordinator, checks):
    init(coordinator.kit())
    looks = doctor_host.look_at_users, doctor_host.look_at_permissions
    assert checks(*looks)["OS users"].state == "warn"
    courier = script.home.with_name("shop-courier")
    for path in (courier, *courier.rglob("*")):
        os.chown(path, 65534, -1)
    found = checks(*looks)
    assert found["permissions"].state == "ok"
    assert (
        "the agent, which reads your rows, would have the rights of root" in found["OS users"].seen
    )
    os.chown(script.home / "owner.json", 65534, -1)
    check = checks(*looks)["permissions"]
    assert "belongs to another user" in check.seen
    assert check.fix.startswith("chown -R")


def test_files_that_a_running_agent_renames_are_no_failure(script, joined, checks, monkeypatch):
    find = Path.rglob

    def meanwhile(folder, pattern):
        yield folder / "mark.part"  # seen, and renamed before it was looked at
        yield from find(folder, pattern)

    monkeypatch.setattr(Path, "rglob", meanwhile)
    assert checks(doctor_host.look_at_permissions)["permissions"].state == "ok"


def test_disk_is_held_against_what_the_plan_writes(script, joined, checks, monkeypatch):
    assert checks(doctor_host.look_at_disk)["disk"].state == "ok"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(9, 9, 1000))
    assert checks(doctor_host.look_at_disk)["disk"].state == "fail"


def test_disk_need_covers_the_outbox_and_the_models(joined):
    least = sum(event.dim * 8 for event in joined.releases)
    assert doctor_host.disk_need(joined) > least


@pytest.mark.parametrize(("said", "state"), [(None, "ok"), ("0", "ok"), ("1", "warn")])
def test_telemetry_that_somebody_switched_on_is_told(joined, checks, monkeypatch, said, state):
    monkeypatch.delenv(doctor_host.SWITCH, raising=False)
    if said is not None:
        monkeypatch.setenv(doctor_host.SWITCH, said)
    assert checks(doctor_host.look_at_environment)["environment"].state == state


# ---- installed code ----


@pytest.fixture
def wheel(tmp_path):
    """A distribution of two files, as pip leaves it."""
    info = tmp_path / "site" / "fondaco-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fondaco\nVersion: 1.0\n")
    lines = []
    for name in ("agent.py", "owner.py"):
        (info.parent / name).write_text(f"# {name}\n")
        digest = hashlib.sha256((info.parent / name).read_bytes()).digest()
        coded = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        lines.append(f"{name},sha256={coded},11")
    (info / "RECORD").write_text("\n".join([*lines, "fondaco-1.0.dist-info/RECORD,,"]))
    return info


def _installed(info):
    return doctor_host.installed_files(Distribution.at(info))


def test_installed_files_are_held_against_the_wheel(wheel):
    assert _installed(wheel).state == "ok"
    assert "2 files" in _installed(wheel).seen
    (wheel.parent / "agent.py").write_text("# changed\n")
    check = _installed(wheel)
    assert check.state == "fail"
    assert "agent.py" in check.seen
    (wheel.parent / "agent.py").unlink()
    assert _installed(wheel).state == "fail"


def test_wheel_without_hashes_proves_nothing(wheel):
    (wheel / "RECORD").write_text("agent.py,,\n")
    assert _installed(wheel).state == "fail"


def test_editable_install_and_none_are_told(wheel):
    (wheel / "direct_url.json").write_text('{"dir_info": {"editable": true}, "url": "file:///x"}')
    assert _installed(wheel).state == "warn"
    assert doctor_host.installed_files(None).state == "warn"


# ---- all of it ----


def test_everything_is_shown_with_its_fix_for_people_and_machines(script, network, harbour, desk):
    before = files_of(desk)
    out = script.own("doctor")
    facts = json.loads(script.own("doctor", "--json"))
    assert facts["ok"] is True
    harbour.registered = UNKNOWN
    assert "1 failed" in script.own("doctor", code=1)
    names = [check["name"] for check in facts["checks"]]
    assert (
        names
        == [
            "installation",
            "environment",
            "permissions",
            "OS users",
            "port",
            "TLS",
            "clock",
            "registration",
            "plan",
            "code",
            "peers",
            "limits",
            "budget",
            "source",
            "data",
            "disk",
        ]
        or os.geteuid() != 0
    )
    for check in facts["checks"]:
        assert check["name"] in out
        assert (check["state"] == "ok") == (check["fix"] == "")
    assert files_of(desk) == before
