"""`init`, `invite`, `register`, `rotate` and `plan new --home` as a coordinator types them."""

import errno
import json

import pytest
from builders import ITEMS_CSV, PLAN_CONFIG
from typer.testing import CliRunner

from fondaco.server import cli, services, tls
from fondaco.server.commands import services as commands
from fondaco.server.home import ServerHome
from fondaco.server.nodes import keep
from fondaco.server.services import is_running, only_one, renew_in_time, serve
from fondaco.shared.audit_log import verify
from fondaco.shared.errors import ConfigError
from fondaco.shared.kit import Kit, fingerprint
from fondaco.shared.plan_text import read_plan

SILOS = ("alpha", "beta", "gamma")


def run(*words, code=0):
    result = CliRunner().invoke(cli.app, [str(word) for word in words], terminal_width=200)
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.stdout


def said(*words):
    return json.loads(run(*words, "--json"))


def refusal(*words):
    result = CliRunner().invoke(cli.app, [str(word) for word in words])
    assert isinstance(result.exception, ConfigError)
    assert "\n" not in str(result.exception)
    return str(result.exception)


@pytest.fixture
def folder(tmp_path):
    run("init", "--home", tmp_path / "s", "--name", "market", "--address", "fondaco.example:8443")
    return tmp_path / "s"


@pytest.mark.parametrize(
    ("address", "listen", "local"),
    [
        ("fondaco.example:8443", "127.0.0.1", "127.0.0.1:8000"),
        ("fondaco.example:8000", "127.0.0.1", "127.0.0.1:8001"),
        ("fondaco.example:8443", "127.0.0.1:9000", "127.0.0.1:9000"),
        ("127.0.0.1:9001", "127.0.0.1", "127.0.0.1:9001"),
        ("10.0.0.5:8443", "10.0.0.5", "10.0.0.5:8443"),
        ("[2001:db8::1]:8443", "::1", "[::1]:8000"),
        ("[::1]:8443", "[::1]:8443", "[::1]:8443"),
    ],
)
def test_superlink_listens_behind_a_proxy_unless_silos_reach_it(tmp_path, address, listen, local):
    words = ("--home", tmp_path / "s", "--name", "m", "--address", address, "--listen", listen)
    assert said("init", *words)["listens"] == local
    assert ServerHome.open(tmp_path / "s").settings.public_address == address


def test_init_says_what_to_keep_what_to_read_aloud_and_what_comes_next(tmp_path):
    text = run("init", "--home", tmp_path / "s", "--name", "m", "--address", "fondaco.example:443")
    own = (tmp_path / "s" / "coordinator.pub").read_text()
    assert fingerprint(own) in text
    assert "proxy/nginx.conf" in text
    assert "next: fondaco-server start" in text


def test_name_with_an_underscore_is_an_address_for_every_log(tmp_path):
    words = ("--home", tmp_path / "s", "--name", "m", "--address", "my_hub:443")
    run("init", *words)
    (entry,) = verify(tmp_path / "s" / "audit.jsonl").entries
    assert entry.fields["address"] == "my_hub:443"


def test_init_warns_of_a_superlink_that_everybody_reaches(tmp_path):
    words = ("--home", tmp_path / "s", "--name", "m", "--address", "10.0.0.5:443")
    assert "reaches that without a proxy" in run("init", *words, "--listen", "10.0.0.5")


def test_first_kit_names_address_authority_and_coordinator(folder):
    made = said("invite", "alpha", "--home", folder)
    kit = Kit.from_bytes((folder / "kits" / "alpha.kit").read_bytes())
    home = ServerHome.open(folder)
    assert (kit.silo_id, kit.superlink, kit.plan) == ("alpha", "fondaco.example:8443", "")
    assert kit.ca == home.tls.ca.read_text()
    assert kit.coordinator == home.identity.public.text()
    assert made["fingerprint"] == fingerprint(kit.coordinator)


def test_kit_goes_where_it_is_wanted_and_stays_at_home_too(folder, tmp_path):
    (tmp_path / "out").mkdir()
    run("invite", "alpha", "--home", folder, "--out", tmp_path / "out")
    run("invite", "alpha", "--home", folder, "--out", tmp_path / "new" / "a.kit")
    assert Kit.from_bytes((tmp_path / "out" / "alpha.kit").read_bytes())
    kept = (folder / "kits" / "alpha.kit").read_bytes()
    assert kept == (tmp_path / "new" / "a.kit").read_bytes()


@pytest.fixture
def planned(folder, tmp_path, make_silo):
    """A home with three registered silos and a plan for them."""
    for name in SILOS:
        assert said("register", make_silo(name).file, "--home", folder)["pending"]
    (tmp_path / "config.toml").write_text(PLAN_CONFIG)
    (tmp_path / "items.csv").write_text(ITEMS_CSV)
    words = ("--catalogue", tmp_path / "items.csv", "--out", tmp_path / "plan.toml")
    text = run("plan", "new", tmp_path / "config.toml", "--home", folder, *words)
    assert f"invite SILO --plan {tmp_path}/plan.toml --home {folder}" in text
    return tmp_path / "plan.toml"


def test_plan_and_kits_follow_from_registrations(folder, planned):
    plan = read_plan(planned)
    assert tuple(plan.roster) == SILOS
    for name in SILOS:
        run("invite", name, "--home", folder, "--plan", planned)
        kit = Kit.from_bytes((folder / "kits" / f"{name}.kit").read_bytes())
        assert kit.run_plan() == plan
        assert kit.peers == tuple(plan.roster.values())
        assert json.loads(kit.catalogue)["ids"] == list("abcde")
    trail = verify(folder / "audit.jsonl")
    assert trail.findings == ()
    assert [e.action for e in trail.entries] == ["init", *["register"] * 3, *["invite"] * 3]
    assert trail.entries[-1].fields["plan"] == plan.digest


def test_kit_of_a_plan_that_does_not_fit_is_never_written(folder, planned, tmp_path, make_silo):
    assert "not for 'delta'" in refusal("invite", "delta", "--home", folder, "--plan", planned)
    items = json.loads((tmp_path / "catalogue.json").read_text())
    (tmp_path / "catalogue.json").write_text(json.dumps({**items, "texts": [""] * 5}))
    assert "another catalogue" in refusal("invite", "alpha", "--home", folder, "--plan", planned)
    (tmp_path / "catalogue.json").write_text(json.dumps(items))
    run("register", make_silo("alpha").file, "--home", folder, "--replace")
    text = refusal("invite", "alpha", "--home", folder, "--plan", planned)
    assert "another key for it than the registrations" in text
    ServerHome.open(folder).registration("beta").unlink()
    text = refusal("invite", "beta", "--home", folder, "--plan", planned)
    assert "not among the registrations" in text
    run("init", "--home", tmp_path / "t", "--name", "m", "--address", "fondaco.example:8443")
    text = refusal("invite", "alpha", "--home", tmp_path / "t", "--plan", planned)
    assert "another coordinator's key" in text


def test_register_says_fingerprint_and_what_waits(folder, make_silo):
    silo = make_silo("alpha")
    text = run("register", silo.file, "--home", folder)
    assert fingerprint(silo.registration.identity) in text
    assert "may connect after fondaco-server start" in text
    assert "already, with the same keys" in run("register", silo.file, "--home", folder)
    assert "--replace" in refusal("register", make_silo("alpha").file, "--home", folder)


def test_every_secret_can_be_made_anew(folder):
    home = ServerHome.open(folder)
    before = home.tls.key.read_bytes(), home.secret.read_bytes()
    assert "silos notice nothing" in run("rotate", "certificate", "--home", folder)
    assert "silos notice nothing" in run("rotate", "secret", "--home", folder)
    assert home.tls.key.read_bytes() != before[0]
    assert home.secret.read_bytes() != before[1]
    assert home.tls.check(home.settings.hosts)


def test_authority_changes_in_two_steps_with_new_kits_between(folder):
    text = run("rotate", "ca", "--home", folder)
    assert "give every silo a new kit" in text
    run("invite", "alpha", "--home", folder)
    between = Kit.from_bytes((folder / "kits" / "alpha.kit").read_bytes()).ca
    assert between.count("BEGIN CERTIFICATE") == 2
    assert said("rotate", "ca", "--home", folder, "--finish")["finished"]
    home = ServerHome.open(folder)
    assert home.tls.ca.read_text() in between
    assert home.tls.check(home.settings.hosts)
    assert "belongs to rotate ca" in refusal("rotate", "secret", "--home", folder, "--finish")
    trail = verify(folder / "audit.jsonl").entries
    assert [e.fields.get("what") for e in trail if e.action == "rotate"] == ["ca", "ca-finish"]


def test_certificate_that_ends_soon_is_renewed_and_the_log_says_so(make_home, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(tls, "SERVER_DAYS", 5)
        home = make_home()
    assert renew_in_time(home)
    assert json.loads(capsys.readouterr().err)["event"] == "coordinator.renewed"
    assert not renew_in_time(home)
    assert capsys.readouterr().err == ""


def test_full_disk_stops_no_care_and_no_service(make_home, make_silo, monkeypatch, capsys):
    home = make_home()
    log = home.logs / "superlink.log"
    log.write_text("x" * 20)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(services, "MAX_LOG", 10)
    monkeypatch.setattr(services, "_CARE_S", -1.0)
    monkeypatch.setattr(services.shutil, "copyfile", full)
    monkeypatch.setattr(services, "enrol", full)
    keep(home, make_silo("alpha").file)
    care = services._Care(home)
    assert not care()
    assert log.stat().st_size == 0
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["event"], line["error"]) for line in told] == [("failed", "OSError")] * 2
    log.write_text("x" * 20)
    assert not care()
    assert capsys.readouterr().err == ""


def test_one_process_alone_keeps_a_home_going(folder):
    home = ServerHome.open(folder)
    assert not is_running(home)
    with only_one(home):
        assert is_running(home)
        with pytest.raises(ConfigError, match=r"is running already \(process"):
            serve(home, lambda: None)
    assert not is_running(home)


def test_start_goes_on_where_nobody_new_can_be_let_in(folder, monkeypatch):
    def lost(home):
        raise ConfigError(f"{home.nodes} is gone")

    monkeypatch.setattr(commands, "enrol", lost)
    monkeypatch.setattr(commands, "serve", lambda home, ready: ready())
    monkeypatch.setattr(commands.logs, "install", lambda program: None)
    assert said("start", "--home", folder)["refused"] == [f"{folder}/nodes.json is gone"]
