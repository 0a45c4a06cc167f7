"""The courier's folder of another OS user: made by root, and no way for that user out of it."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from fondaco.client.doctor import examine, look_at_source
from fondaco.client.doctor_host import look_at_network, look_at_permissions, look_at_users
from fondaco.client.joining import Wishes, join
from fondaco.shared.errors import ConfigError

NOBODY, NAMELESS = "nobody", 54321
PYTHON = sys.executable
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


@pytest.fixture
def open_place(monkeypatch):
    """A folder that every OS user can reach, on a machine whose Python all may run."""
    monkeypatch.setattr(sys, "executable", shutil.which("sh"))
    folder = Path(tempfile.mkdtemp(prefix="fondaco-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def wishes(open_place):
    return Wishes(courier=open_place / "courier", courier_user=NOBODY, out=open_place)


def home_of(uid, coordinator, place):
    """Return an owner's folder that belongs to an OS user, as root made it."""
    home = place / "shop"
    home.mkdir(mode=0o700)
    os.chown(home, uid, -1)
    join(coordinator.kit(), home, Wishes(courier=place / "courier", out=place))
    return home


def test_couriers_files_belong_to_its_user_and_the_owners_do_not(coordinator, open_place, wishes):
    join(coordinator.kit(), open_place / "shop", wishes)
    join(coordinator.kit(), open_place / "shop", wishes)
    theirs = pwd.getpwnam(NOBODY).pw_uid
    for path in ((open_place / "courier"), *(open_place / "courier").rglob("*")):
        assert path.lstat().st_uid == theirs, path
    for path in ((open_place / "shop"), *(open_place / "shop").rglob("*")):
        assert path.lstat().st_uid == 0, path
    assert (os.geteuid(), os.getegid()) == (0, 0)


@pytest.mark.parametrize("name", ["ca.part", "courier.part", "superexec.secret", "ca.pem", "bin"])
def test_link_of_a_hijacked_courier_leads_nowhere(coordinator, open_place, wishes, name):
    join(coordinator.kit(), open_place / "shop", wishes)
    victim = open_place / "roots"
    victim.mkdir(mode=0o700)
    (victim / "file").write_text("precious")
    (victim / "file").chmod(0o600)
    place = open_place / "courier" / name
    if place.is_dir():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    place.symlink_to(victim if name == "bin" else victim / "file")
    os.lchown(place, pwd.getpwnam(NOBODY).pw_uid, -1)
    with suppress(ConfigError, OSError):
        join(coordinator.kit(), open_place / "shop", wishes)
    assert [path.name for path in victim.iterdir()] == ["file"]
    assert (victim / "file").read_text() == "precious"


def test_folder_that_its_user_cannot_reach_is_refused_with_the_fix(coordinator, open_place):
    closed = open_place / "closed"
    closed.mkdir(mode=0o700)
    wishes = Wishes(courier=closed / "courier", courier_user=NOBODY, out=open_place)
    with pytest.raises(ConfigError, match="choose another --courier"):
        join(coordinator.kit(), open_place / "shop", wishes)


def test_couriers_user_is_changed_by_hand_only(coordinator, open_place, wishes):
    join(coordinator.kit(), open_place / "shop", Wishes(courier=wishes.courier, out=open_place))
    with pytest.raises(ConfigError, match="chown -R nobody"):
        join(coordinator.kit(), open_place / "shop", wishes)


def test_owners_folder_of_another_user_stays_that_users(coordinator, open_place):
    theirs = pwd.getpwnam(NOBODY)
    home = open_place / "shop"
    home.mkdir(mode=0o700)
    os.chown(home, theirs.pw_uid, theirs.pw_gid)
    join(coordinator.kit(), home, Wishes(courier=open_place / "courier", out=open_place))
    assert {path.lstat().st_uid for path in home.rglob("*")} == {theirs.pw_uid}


def test_nobody_but_root_gives_folders_to_others(coordinator, open_place, children):
    kit = coordinator.kit()
    readable = open_place / "kit"
    shutil.copy(kit, readable)
    readable.chmod(0o644)
    open_place.chmod(0o777)

    def work():
        os.seteuid(pwd.getpwnam(NOBODY).pw_uid)
        with pytest.raises(ConfigError, match="only root"):
            join(readable, open_place / "shop", Wishes(courier_user="root"))

    assert children.ended(work) == 0


def test_user_who_cannot_run_this_python_is_named(coordinator, open_place, wishes, monkeypatch):
    program = open_place / "python"
    program.touch(mode=0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(ConfigError, match=r"'nobody' cannot run .*install fondaco where it can"):
        join(coordinator.kit(), open_place / "shop", wishes)


def test_doctor_of_the_owner_says_what_only_the_couriers_user_can_tell(
    coordinator, open_place, harbour, children
):
    owner, home = pwd.getpwnam("daemon"), open_place / "shop"
    home.mkdir(mode=0o700)
    os.chown(home, owner.pw_uid, owner.pw_gid)
    coordinator.address = harbour.address
    place = {"courier": open_place / "courier", "courier_user": NOBODY, "out": open_place}
    join(coordinator.kit(), home, Wishes(**place))

    def look():
        os.setgroups([])
        os.setegid(owner.pw_gid)
        os.seteuid(owner.pw_uid)
        looks = look_at_permissions, look_at_users, look_at_network
        found = {check.name: check for check in examine(home, looks)}
        assert found["registration"].state == "warn"
        assert "as the courier's user" in found["registration"].fix
        assert {found[name].state for name in ("permissions", "OS users", "TLS")} == {"ok"}

    assert children.ended(look) == 0


def test_strangers_file_is_told_where_the_owner_has_no_name(coordinator, open_place):
    home = home_of(NAMELESS, coordinator, open_place)
    os.chown(home / "audit.jsonl", 0, -1)
    (check,) = examine(home, (look_at_permissions,))
    assert check.seen == f"{home}/audit.jsonl belongs to another user than {home}"
    assert check.fix == f"chown -R {NAMELESS} {home}"


def test_doctor_of_root_judges_the_source_with_the_rights_of_its_reader(coordinator, open_place):
    home, reader = home_of(0, coordinator, open_place), pwd.getpwnam("daemon").pw_uid
    address, orders = home / "database.url", home / "orders.csv"
    address.write_text("mysql://shop@127.0.0.1:1/shop")
    orders.write_text("user_id,item_id\n")

    def seen(settings):
        (home / "source.toml").write_text(f"[source]\n{settings}\n")
        (check,) = examine(home, (look_at_source,))
        return check.seen

    table = 'kind = "csv"\npath = "orders.csv"'
    server = 'kind = "mysql"\nurl_file = "database.url"\ntable = "orders"'
    for path in (address, orders):
        path.chmod(0o600)
    for keeper in (0, reader):
        for path in (home, *home.rglob("*")):
            os.chown(path, keeper, -1)
        assert "Connection refused" in seen(server)
        assert "a csv source" in seen(table)
    os.chown(orders, 0, -1)
    assert "Permission denied" in seen(table)


@pytest.mark.parametrize(
    "words",
    [
        ("policy", "--epsilon-per-year", "9"),
        ("load",),
        ("erase", "ann"),
        ("leave",),
        ("ledger",),
        ("status",),
        ("history",),
        ("recommend", "--customer", "ann"),
        ("keys", "--rotate"),
    ],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize("linked", [False, True])
def test_root_leaves_nothing_in_another_users_folder(coordinator, open_place, words, linked):
    owner, home = pwd.getpwnam("daemon"), open_place / "shop"
    home.mkdir(mode=0o700)
    os.chown(home, owner.pw_uid, owner.pw_gid)
    join(coordinator.kit(), home, Wishes(courier=open_place / "courier", out=open_place))
    named = home
    if linked:
        named = open_place / "link"
        named.symlink_to(home)
    before = {path: path.lstat().st_mtime_ns for path in home.rglob("*")}
    done = subprocess.run(  # noqa: S603
        [PYTHON, "-m", "fondaco.client.cli", *words, "--home", named],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "belongs to OS user 'daemon'" in done.stderr
    assert "sudo -u daemon" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert {path: path.lstat().st_mtime_ns for path in home.rglob("*")} == before
