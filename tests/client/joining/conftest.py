"""A coordinator who sends kits, and the desk at which an owner opens them."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harbour import Harbour
from kits import Coordinator


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """A folder with a coordinator's certificates."""
    from fondaco.server.tls import TlsFiles  # noqa: PLC0415  (imports what warns)

    files = TlsFiles(tmp_path_factory.mktemp("tls"))
    files.make("harbour", ["localhost"])
    return files


@pytest.fixture
def coordinator(tmp_path, authority, catalogue, make_plan, make_roster):
    return Coordinator(
        tmp_path / "post", authority.ca.read_text(), catalogue, make_plan, make_roster
    )


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """An empty folder in which the owner's engineer stands."""
    folder = tmp_path / "desk"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def init(script, desk):
    """Return a function: kit, words -> what `fondaco-client init` prints."""
    del desk
    return lambda kit, *words, **how: script.own("init", "--kit", kit, *words, **how)


@pytest.fixture
def refused(script, desk):
    """Return a function: kit, words -> the one line with which `init` refuses."""
    del desk
    return lambda kit, *words: script.refused("init", "--kit", kit, *words)


@pytest.fixture
def joined(script, init, coordinator):
    """An owner who has joined, and whose plan has come; limits are set."""
    init(coordinator.kit())
    plan = coordinator.plan(script.home)
    init(coordinator.kit(plan), "--yes")
    limits = "--epsilon-per-year", 3, "--epsilon-if-masking-broke", 4, "--target-delta", "1e-6"
    script.own("policy", *limits)
    return plan


@pytest.fixture
def harbour(authority):
    """The coordinator's port, open."""
    port = Harbour(authority)
    yield port
    port.close()
