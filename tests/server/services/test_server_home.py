import os
import subprocess
import tomllib
from urllib.request import getproxies, proxy_bypass

import pytest

from fondaco.server.home import ServerHome, ServerSettings
from fondaco.shared.chain.keys import COORDINATOR, Identity
from fondaco.shared.errors import ConfigError


def test_home_comes_back_as_it_was_made(make_home):
    home = make_home(deadline_s=30)
    again = ServerHome.open(home.folder)
    assert again.settings == home.settings
    assert again.identity.public == home.identity.public
    assert again.tls.check(again.settings.hosts)


def test_everything_in_a_home_is_for_its_owner_alone(make_home):
    home = make_home()
    found = [home.folder, *home.folder.rglob("*")]
    assert len(found) > 20
    assert [path for path in found if path.stat().st_mode & 0o077 and path.is_file()] == []
    assert home.folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "name", ["coordinator.pem", "tls/ca.key", "tls/server.key", "superexec.secret"]
)
def test_home_whose_secrets_others_may_read_is_refused(make_home, name):
    home = make_home()
    (home.folder / name).chmod(0o644)
    with pytest.raises(ConfigError, match=rf"may be read by others; run chmod 600 .*{name}"):
        ServerHome.open(home.folder)


def test_home_is_never_made_twice(make_home):
    home = make_home()
    with pytest.raises(ConfigError, match="is a coordinator's home already"):
        ServerHome.make(home.folder, home.settings)


def test_making_that_was_interrupted_goes_on_with_the_same_keys(make_home):
    home = make_home()
    trusted = home.tls.ca.read_bytes()
    (home.folder / "server.toml").unlink()
    home.tls.certificate.unlink()
    again = ServerHome.make(home.folder, home.settings)
    assert again.identity.public == home.identity.public
    assert again.tls.ca.read_bytes() == trusted
    assert again.tls.check(home.settings.hosts)


def test_key_that_was_made_before_is_taken(tmp_path):
    identity = Identity.generate(COORDINATOR)
    (tmp_path / "server").mkdir()
    identity.save(tmp_path / "server" / "coordinator.pem")
    settings = ServerSettings(name="market", port=8000, public_address="fondaco.example:8443")
    home = ServerHome.make(tmp_path / "server", settings)
    assert home.identity.public == identity.public
    assert (home.folder / "coordinator.pub").read_text().strip() == identity.public.text()


def test_folder_that_is_no_home_names_init(tmp_path):
    with pytest.raises(ConfigError, match="make one with fondaco-server init"):
        ServerHome.open(tmp_path)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("port = 0", "expected HOST:PORT"),
        ("prot = 8000", "unknown key 'server.toml: prot'; did you mean 'server.toml: port'"),
        ("port = '8000'", "port='8000' must be a int"),
        ("deadline_s = 0", "must lie between 1 and a week"),
        ("host = 'https://x'", "is no host name and no IP address"),
        ("public_address = 'fondaco.example'", "expected HOST:PORT"),
        ("name = ' '", "is no name for a coordinator"),
    ],
)
def test_settings_out_of_range_are_named(make_home, line, problem):
    home = make_home()
    path, key = home.folder / "server.toml", line.partition(" ")[0]
    kept = [old for old in path.read_text().splitlines() if not old.startswith(key)]
    path.write_text("\n".join([*kept, line]))
    with pytest.raises(ConfigError, match=problem):
        ServerHome.open(home.folder)


@pytest.mark.parametrize(
    ("host", "local", "hosts"),
    [
        ("127.0.0.1", "127.0.0.1:8000", ["fondaco.example", "127.0.0.1"]),
        ("0.0.0.0", "127.0.0.1:8000", ["fondaco.example"]),  # noqa: S104
        ("::", "[::1]:8000", ["fondaco.example"]),
        ("10.0.0.5", "10.0.0.5:8000", ["fondaco.example", "10.0.0.5"]),
    ],
)
def test_certificate_names_what_silos_and_own_programs_connect_to(host, local, hosts):
    settings = ServerSettings(
        name="market", host=host, port=8000, public_address="fondaco.example:443"
    )
    assert settings.local == local
    assert settings.hosts == hosts


def test_flower_programs_get_a_quiet_environment_of_their_own(make_home, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", "/elsewhere")
    monkeypatch.setenv("FLWR_SUPERGRID_API_URL", "https://elsewhere")
    monkeypatch.setenv("FLWR_LOG_LEVEL", "WARNING")
    home = make_home()
    found = {k: v for k, v in home.environment().items() if k.startswith(("FLWR", "OMP", "FOND"))}
    assert found == {
        "FLWR_HOME": str(home.flwr),
        "FLWR_LOG_LEVEL": "WARNING",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "OMP_NUM_THREADS": "1",
        "FONDACO_SERVER_HOME": str(home.folder),
    }


def test_no_proxy_of_the_host_gets_flower_programs_talk(make_home, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://proxy.corp.example:3128")
    monkeypatch.setenv("ALL_PROXY", "http://proxy.corp.example:3128")
    monkeypatch.setenv("no_proxy", "corp.example")
    environment = make_home().environment()
    monkeypatch.setattr(os, "environ", environment)
    assert {k for k in environment if k.lower().endswith("_proxy")} == {"NO_PROXY"}
    for host in ("127.0.0.1", "10.0.0.5"):
        assert proxy_bypass(host)
    assert getproxies() == {"no": "*"}


def test_flwr_finds_the_superlink_and_its_authority(make_home):
    home = make_home()
    config = tomllib.loads((home.flwr / "config.toml").read_text())["superlink"]
    assert config["default"] == "fondaco"
    assert config["fondaco"]["address"] == home.settings.local
    assert config["fondaco"]["root-certificates"] == str(home.tls.ca)


@pytest.mark.parametrize("task", ["agentapp", "clientapp", "connector", "model", "simulation"])
def test_superexec_finds_no_program_that_runs_a_bundle(make_home, task):
    home = make_home()
    command = [home.bin / f"flwr-{task}", "--token", "x"]
    done = subprocess.run(command, check=False, capture_output=True)  # noqa: S603
    assert done.returncode == 1
    assert b"runs its own ServerApp only" in done.stderr
