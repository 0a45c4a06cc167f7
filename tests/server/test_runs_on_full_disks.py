"""A run that a full disk stops says so, though its status lies on that disk too."""

import errno
import re
from types import SimpleNamespace

import pytest

from fondaco.server import deployed
from fondaco.server import status as status_module
from fondaco.server.deployed import prepare_run, run_prepared
from fondaco.server.status import read_status
from fondaco.shared.chain.keys import COORDINATOR, Identity
from fondaco.shared.errors import RoundError
from fondaco.shared.files import write_whole


@pytest.fixture
def home(tmp_path, monkeypatch):
    """As much of a coordinator's folder as this needs."""
    key = Identity.generate(COORDINATOR)
    home = SimpleNamespace(
        runs=tmp_path, identity=key, settings=SimpleNamespace(deadline_s=1), folder=tmp_path
    )
    monkeypatch.setattr(deployed.ServerHome, "open", lambda folder: home)
    return home


@pytest.fixture
def run(home, make_plan, make_roster, catalogue):
    roster = {**make_roster(10), "coordinator": home.identity.public.text()}
    return prepare_run(home, make_plan(**roster, catalogue_digest=catalogue.digest), catalogue)


@pytest.fixture
def small_disk(run, monkeypatch):
    """From the first round on there is room for a status only where something was given up."""
    full = []

    def write(path, text):
        if full and sum(file.stat().st_size for file in run.folder.iterdir()) > full[0]:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_whole(path, text)

    def run_job(*_):
        full.append(sum(file.stat().st_size for file in run.folder.iterdir()) - 1)
        write(run.folder / "round-1", "")

    monkeypatch.setattr(status_module, "write_whole", write)
    monkeypatch.setattr(deployed, "run_job", run_job)


def test_run_on_a_full_disk_says_so_in_its_status(run, small_disk):
    with pytest.raises(RoundError, match="make room there"):
        run_prepared(None, run.folder, run.name, "run")
    status = read_status(run.status("run"))
    assert status.state == "failed"
    said = r"the disk under .* is full \(.*No space left.*round-1'\); make room there and run"
    assert re.match(said, status.error)


def test_nothing_is_left_of_the_room_that_was_kept(run, monkeypatch):
    monkeypatch.setattr(deployed, "run_job", lambda *_: None)
    before = sorted(path.name for path in run.folder.iterdir())
    run_prepared(None, run.folder, run.name, "run")
    left = sorted(path.name for path in run.folder.iterdir())
    assert left == sorted([*before, "run.lock", "status.json"])
    assert read_status(run.status("run")).state == "finished"
