import pytest

from fondaco.server.roster import read_coordinator, read_roster
from fondaco.shared.chain.keys import COORDINATOR, Identity, key_name
from fondaco.shared.errors import ConfigError


def public(silo_id):
    return Identity.seeded(0, key_name(silo_id)).public.text()


@pytest.fixture
def peers(tmp_path):
    """Write lines to peers.txt and return it."""

    def write(*lines):
        path = tmp_path / "peers.txt"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


def test_keys_may_stand_in_one_file_under_any_names(peers):
    path = peers("# who takes part", public("züri 1/2"), "", f"  {public('bern')}  ")
    assert read_roster(path) == {"bern": public("bern"), "züri 1/2": public("züri 1/2")}


def test_keys_may_stand_in_a_folder_of_files(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.pub").write_text(public(name))
    (tmp_path / ".hidden").write_text("not a key")
    (tmp_path / "folder").mkdir()
    assert list(read_roster(tmp_path)) == ["a", "b"]


def damaged():
    name, number, key = public("c").split("+", 2)
    return f"{name}+{number}+A{key[1:-4]}AAA="


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("hello", "peers.txt line 2: 'hello' is no public key"),
        (damaged(), "line 2: .* is no public key"),
        (public("a"), "line 2: silo 'a' has a key already"),
        (Identity.seeded(0, COORDINATOR).public.text(), "line 2: .* is no silo's name"),
        (Identity.seeded(0, "fondaco/").public.text(), "is no silo's name"),
        (Identity.seeded(0, "fondaco/%20").public.text(), "is no silo's name"),
        (Identity.seeded(0, "fondaco/two words").public.text(), "is no public key"),
        ("-----BEGIN PRIVATE KEY-----", "line 2: this is a private key"),
    ],
)
def test_line_that_is_no_new_silos_key_is_named(peers, line, problem):
    with pytest.raises(ConfigError, match=problem):
        read_roster(peers(public("a"), line))


def test_two_silos_with_one_key_are_named(peers):
    owner = Identity.seeded(0, key_name("a"))
    other = Identity.seeded(0, key_name("b"))
    other.public = type(owner.public)(key_name("b"), owner.public.raw)
    with pytest.raises(ConfigError, match="'b' and 'a' have the same key"):
        read_roster(peers(public("a"), other.public.text()))


def test_no_keys_at_all_are_refused(peers, tmp_path):
    with pytest.raises(ConfigError, match="holds no public keys"):
        read_roster(peers("# nobody yet"))
    with pytest.raises(ConfigError, match="does not exist"):
        read_roster(tmp_path / "nowhere")
    (tmp_path / "peers.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read as public keys"):
        read_roster(tmp_path / "peers.txt")


def test_coordinator_is_given_as_text_or_as_a_file(peers):
    key = Identity.seeded(0, COORDINATOR).public.text()
    assert read_coordinator(key) == read_coordinator(str(peers(key))) == key


def test_coordinator_must_be_the_coordinator(peers):
    with pytest.raises(ConfigError, match="must hold one public key, that of fondaco-coordinator"):
        read_coordinator(str(peers(public("a"))))
    with pytest.raises(ConfigError, match="must hold one public key"):
        read_coordinator(str(peers(public("a"), public("b"))))
    with pytest.raises(ConfigError, match="is no public key"):
        read_coordinator(f"{COORDINATOR}+00000000+AAAA")


def test_private_key_in_place_of_the_coordinators_is_named(tmp_path):
    path = tmp_path / "coordinator.pem"
    Identity.generate(COORDINATOR).save(path)
    with pytest.raises(ConfigError, match="line 1: this is a private key"):
        read_coordinator(str(path))
