import json

import pytest

from fondaco.server import nodes
from fondaco.server.nodes import enrol, keep, known_nodes, pending, registrations
from fondaco.server.roster import keys_of, read_coordinator, read_roster
from fondaco.shared.audit_log import verify
from fondaco.shared.errors import ConfigError


class SuperLink:
    """Answers as `flwr supernode ... --format json` does."""

    def __init__(self):
        self.live, self.burnt, self.next_id, self.calls = {}, set(), 100, []

    def __call__(self, home, *arguments):
        _, verb, *rest = arguments
        self.calls.append(verb)
        return getattr(self, verb)(*rest)

    def ls(self, _):
        rows = [{"node-id": i, "status": "online"} for i in self.live]
        gone = [{"node-id": i, "status": "unregistered"} for i, _ in self.burnt]
        return {"success": True, "nodes": rows + gone}

    def register(self, path, *_):
        with open(path) as file:
            key = file.read().strip()
        if key in [*self.live.values(), *(k for _, k in self.burnt)]:
            said = "Using SuperLink: fondaco\n\n[code: 23] Public key already in use."
            return {"success": False, "error-message": said}
        self.next_id += 1
        self.live[str(self.next_id)] = key
        return {"success": True, "node-id": self.next_id}

    def unregister(self, node_id, _):
        self.burnt.add((node_id, self.live.pop(node_id)))
        return {"success": True, "node-id": int(node_id)}


@pytest.fixture
def superlink(monkeypatch):
    fake = SuperLink()
    monkeypatch.setattr(nodes, "flwr", fake)
    return fake


@pytest.fixture
def home(make_home):
    return make_home()


def test_registration_is_kept_once(home, make_silo):
    silo = make_silo("züri 1")
    assert keep(home, silo.file) == (silo.registration, True)
    assert keep(home, silo.file) == (silo.registration, False)
    assert registrations(home) == {"züri 1": silo.registration}


def test_other_keys_need_the_owners_word(home, make_silo):
    first = make_silo("alpha")
    keep(home, first.file)
    other_node = make_silo("alpha", first.identity)
    with pytest.raises(ConfigError, match=r"registered with another node key; .* --replace"):
        keep(home, other_node.file)
    keep(home, other_node.file, replace=True)
    assert registrations(home)["alpha"] == other_node.registration
    with pytest.raises(ConfigError, match=r"registered with another identity; .* --replace"):
        keep(home, make_silo("alpha").file)


def test_two_silos_never_share_a_key(home, make_silo):
    alpha = make_silo("alpha")
    keep(home, alpha.file)
    beta = make_silo("beta")
    copied = nodes.Registration(
        silo_id="beta",
        identity=beta.identity.public.text(),
        node_key=alpha.registration.node_key,
    )
    beta.file.write_bytes(copied.to_bytes(beta.identity))
    with pytest.raises(ConfigError, match="'alpha' is registered with one of these keys"):
        keep(home, beta.file)


def test_damaged_and_missing_files_are_named(home, make_silo, tmp_path):
    with pytest.raises(ConfigError, match=r"none.json cannot be read: No such file"):
        keep(home, tmp_path / "none.json")
    silo = make_silo("alpha")
    keep(home, silo.file)
    home.registration("alpha").write_bytes(b"{}")
    with pytest.raises(ConfigError, match=r"alpha.json: this is no registration"):
        registrations(home)


def test_every_registered_silo_is_let_in_once(home, make_silo, superlink):
    for name in ("beta", "alpha"):
        keep(home, make_silo(name).file)
    assert enrol(home).let_in == ("alpha", "beta")
    again = enrol(home)
    assert (again.let_in, again.shut_out, again.refused) == ((), (), ())
    assert {node.node_id for node in known_nodes(home).values()} == set(superlink.live)


def test_superlink_is_not_asked_before_anybody_registered(home, superlink):
    enrol(home)
    assert superlink.calls == []


def test_replaced_node_key_is_shut_out_before_the_new_one_is_let_in(home, make_silo, superlink):
    first = make_silo("alpha")
    keep(home, first.file)
    enrol(home)
    second = make_silo("alpha", first.identity)
    keep(home, second.file, replace=True)
    found = enrol(home)
    assert (found.let_in, found.shut_out) == (("alpha",), ("alpha",))
    assert list(superlink.live.values()) == [second.registration.node_key]


def test_silo_whose_registration_is_gone_is_shut_out(home, make_silo, superlink):
    keep(home, make_silo("alpha").file)
    enrol(home)
    home.registration("alpha").unlink()
    assert enrol(home).shut_out == ("alpha",)
    (entry,) = verify(home.folder / "audit.jsonl").entries
    assert (entry.action, dict(entry.fields)) == ("shut-out", {"silo_id": "alpha"})
    assert (superlink.live, known_nodes(home)) == ({}, {})


def test_lost_database_is_filled_again(home, make_silo, superlink):
    keep(home, make_silo("alpha").file)
    enrol(home)
    superlink.live.clear()
    assert enrol(home).let_in == ("alpha",)
    assert len(superlink.live) == 1


def test_node_key_that_was_removed_is_refused_with_a_way_out(home, make_silo, superlink):
    old = make_silo("alpha")
    keep(home, old.file)
    enrol(home)
    blob = old.file.read_bytes()
    keep(home, make_silo("alpha", old.identity).file, replace=True)
    enrol(home)
    old.file.write_bytes(blob)
    keep(home, old.file, replace=True)
    keep(home, make_silo("beta").file)
    found = enrol(home)
    assert found.let_in == ("beta",)
    assert "takes no node key twice" in found.refused[0]
    assert "--rotate-node" in found.refused[0]


@pytest.fixture
def interrupt(home, superlink, monkeypatch):
    """Enrol, but end once the SuperLink has registered so many nodes, before the last is noted."""

    def run(after):
        def interrupted(asked, *arguments):
            said = superlink(asked, *arguments)
            if superlink.calls.count("register") == after:
                raise KeyboardInterrupt
            return said

        with monkeypatch.context() as patch:
            patch.setattr(nodes, "flwr", interrupted)
            with pytest.raises(KeyboardInterrupt):
                enrol(home)

    return run


def test_kill_between_superlink_and_our_note_is_mended(home, make_silo, superlink, interrupt):
    keep(home, make_silo("alpha").file)
    interrupt(1)
    assert known_nodes(home)["alpha"].node_id == ""
    assert enrol(home).let_in == ("alpha",)
    assert set(superlink.live) == {known_nodes(home)["alpha"].node_id}


def test_whoever_is_to_be_let_in_or_shut_out_is_pending(home, make_silo, superlink):
    silo = make_silo("alpha")
    assert pending(home) == frozenset()
    keep(home, silo.file)
    assert pending(home) == {("alpha", silo.registration.node_key)}
    enrol(home)
    assert pending(home) == frozenset()
    home.registration("alpha").unlink()
    assert pending(home) == {("alpha", silo.registration.node_key)}


def test_superlink_that_is_down_or_unwilling_is_named(home, make_silo, superlink):
    keep(home, make_silo("alpha").file)
    superlink.ls = lambda _: {"success": False, "error-message": "x\nConnection is unavailable."}
    with pytest.raises(ConfigError, match=r"is it running .* \(Connection is unavailable.\)"):
        enrol(home)
    superlink.ls = lambda _: {"success": True, "nodes": []}
    superlink.register = lambda *_: {"success": False}
    assert enrol(home).refused == ("the SuperLink does not let 'alpha' in: no reason given",)


def test_damaged_notes_are_named(home):
    home.nodes.write_text(json.dumps({"alpha": {"node": 1}}))
    with pytest.raises(ConfigError, match=r"nodes.json is damaged .*remove it and .*superlink.db"):
        known_nodes(home)


def test_lost_notes_are_named_and_no_owner_is_sent_for_another_key(home, make_silo, superlink):
    keep(home, make_silo("alpha").file)
    enrol(home)
    home.nodes.unlink()
    with pytest.raises(ConfigError, match=r"nodes.json is gone; .*remove it and .*superlink.db"):
        enrol(home)
    superlink.live.clear()  # as a new superlink.db
    assert enrol(home).let_in == ("alpha",)


def test_key_of_an_interrupted_registration_is_shut_out_with_the_rest(
    home, make_silo, superlink, interrupt
):
    keep(home, make_silo("beta").file)
    enrol(home)
    first = make_silo("alpha")
    keep(home, first.file)
    interrupt(2)
    last = make_silo("alpha", first.identity)
    keep(home, last.file, replace=True)
    found = enrol(home)
    assert (found.shut_out, found.let_in, found.refused) == (("alpha",), ("alpha",), ())
    assert list(superlink.live.values())[1:] == [last.registration.node_key]
    assert {node.node_id for node in known_nodes(home).values()} == set(superlink.live)


def test_key_that_was_noted_and_never_registered_shuts_nobody_else_out(
    home, make_silo, superlink, monkeypatch
):
    first = make_silo("alpha")
    keep(home, first.file)

    def killed_before(asked, *arguments):
        if arguments[1] == "register":
            raise KeyboardInterrupt
        return superlink(asked, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(nodes, "flwr", killed_before)
        with pytest.raises(KeyboardInterrupt):
            enrol(home)
    superlink.live["7"] = "by hand"
    last = make_silo("alpha", first.identity)
    keep(home, last.file, replace=True)
    assert enrol(home).let_in == ("alpha",)
    assert [*superlink.live.values()] == ["by hand", last.registration.node_key]
    assert [key for _, key in superlink.burnt] == [first.registration.node_key]


def test_nodes_that_may_be_an_earlier_key_are_named(home, make_silo, superlink, interrupt):
    silo = make_silo("alpha")
    keep(home, silo.file)
    interrupt(1)
    superlink.live["7"] = "somebody's"
    home.registration("alpha").unlink()
    assert pending(home) == {("alpha", silo.registration.node_key)}
    (told,) = enrol(home).refused
    assert "'alpha'" in told
    assert "nodes 101, 7; shut them out with" in told


def test_plans_take_their_roster_from_the_registrations(home, make_silo):
    silos = [make_silo(name) for name in ("beta", "alpha")]
    for silo in silos:
        keep(home, silo.file)
    folder, coordinator = keys_of(home.folder, None, "")
    assert read_roster(folder) == {
        silo.registration.silo_id: silo.registration.identity for silo in reversed(silos)
    }
    assert read_coordinator(coordinator) == home.identity.public.text()


def test_damaged_registration_in_a_roster_is_named(home, make_silo):
    silo = make_silo("alpha")
    home.registration("alpha").write_bytes(silo.file.read_bytes()[:-20])
    with pytest.raises(ConfigError, match=r"alpha.json: this registration was changed"):
        read_roster(home.silos)


def test_roster_needs_a_home_or_both_keys(tmp_path):
    with pytest.raises(ConfigError, match="--keys is missing; give it, or --home SHOME"):
        keys_of(None, None, "key")
    with pytest.raises(ConfigError, match="--coordinator is missing"):
        keys_of(None, tmp_path, "")
    assert keys_of(tmp_path, tmp_path / "x", "key") == (tmp_path / "x", "key")
