import importlib.machinery
import shutil

import pytest

from fondaco.shared import provenance
from fondaco.shared.errors import ConfigError


@pytest.fixture
def digest_of(monkeypatch):
    """code_digest of rooms in another folder, without its memory."""

    def digest(root):
        monkeypatch.setattr(provenance, "rooms_root", lambda: root)
        return provenance.code_digest.__wrapped__()

    return digest


@pytest.fixture
def copy(tmp_path):
    for room in ("client", "shared", "server"):
        shutil.copytree(provenance.rooms_root() / room, tmp_path / room)
    return tmp_path


def test_rooms_root_holds_all_rooms():
    assert {"client", "shared", "server"} <= {p.name for p in provenance.rooms_root().iterdir()}


def test_code_digest_is_the_same_wherever_it_is_installed(copy, digest_of):
    assert digest_of(copy) == provenance.code_digest()


@pytest.mark.parametrize("name", ["client/agent.py", "shared/privacy/noise.py"])
def test_code_digest_changes_with_any_line_that_may_touch_customers(copy, digest_of, name):
    before = digest_of(copy)
    with (copy / name).open("a", encoding="utf-8") as file:
        file.write("# one more line\n")
    assert digest_of(copy) != before


def test_code_digest_changes_when_a_file_appears_moves_or_goes(copy, digest_of):
    digests = [digest_of(copy)]
    (copy / "client" / "more.py").write_text("x = 1\n", encoding="utf-8")
    digests.append(digest_of(copy))
    (copy / "client" / "more.py").rename(copy / "shared" / "more.py")
    digests.append(digest_of(copy))
    (copy / "shared" / "more.py").unlink()
    assert len({*digests}) == 3
    assert digest_of(copy) == digests[0]


def test_code_digest_ignores_the_coordinator(copy, digest_of):
    before = digest_of(copy)
    (copy / "server" / "rounds.py").write_text("", encoding="utf-8")
    assert digest_of(copy) == before


def _found(origin):
    return lambda name: importlib.machinery.ModuleSpec(name, None, origin=origin)


@pytest.mark.parametrize(
    ("find", "message"),
    [(lambda name: None, "not installed"), (_found("/other/client/__init__.py"), "comes from")],
)
def test_rooms_from_two_installations_are_refused(monkeypatch, find, message):
    monkeypatch.setattr(provenance, "find_spec", find)
    with pytest.raises(ConfigError, match=message):
        provenance.rooms_root()
