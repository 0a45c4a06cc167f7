"""The demonstration: what `docker compose` makes of it, and the walls that we promise."""

import re
import subprocess

import pytest
from deploy_files import DEPLOY, SWITCHES, options_of, tool

SILOS = ("alpha", "beta", "gamma")
SECRET = re.compile("PASS|SECRET|TOKEN|KEY|URL|DSN")


@pytest.fixture
def services(compose):
    return compose["services"]


@pytest.fixture
def ours(services):
    return {name: body for name, body in services.items() if name not in ("postgres", "proxy")}


def test_the_file_is_one_that_compose_reads(services):
    wanted = {f"{silo}-{role}" for silo in SILOS for role in ("agent", "courier", "owner", "load")}
    assert set(services) == wanted | {"coordinator", "proxy", "postgres"}


def test_every_container_of_ours_is_quiet(ours):
    for body in ours.values():
        assert body["environment"].items() >= SWITCHES.items()


def test_every_container_has_walls(services):
    for name, body in services.items():
        assert body["read_only"], name
        assert body["cap_drop"] == ["ALL"], name
        assert body["security_opt"] == ["no-new-privileges:true"], name
        assert body["pids_limit"] <= 512, name
        assert "privileged" not in body, name


def test_only_the_owner_at_work_is_root_and_it_has_no_network(services):
    roots = {name for name, body in services.items() if body["user"].startswith("0")}
    assert roots == {f"{silo}-owner" for silo in SILOS}
    assert {name for name, body in services.items() if "cap_add" in body} == roots
    for name in roots:
        assert services[name]["network_mode"] == "none"
        assert services[name]["profiles"] == ["owner"]


def test_agents_have_no_network_and_couriers_nothing_of_the_owners(services):
    for silo in SILOS:
        agent, courier = services[f"{silo}-agent"], services[f"{silo}-courier"]
        assert agent["network_mode"] == "none"
        assert agent["user"] != courier["user"]
        mounted = {volume["source"] for volume in courier["volumes"]}
        assert mounted == {f"{silo}-courier", f"{silo}-link"}
        shared = mounted & {volume["source"] for volume in agent["volumes"]}
        assert shared == {f"{silo}-link"}


def test_no_silo_reaches_anothers_volumes(services):
    for silo in SILOS:
        for name, body in services.items():
            if name.startswith(f"{silo}-"):
                assert all(v["source"].startswith(f"{silo}-") for v in body["volumes"])


def test_only_loading_sees_the_database_and_it_sees_nothing_else(compose, services):
    near = {name for name, body in services.items() if "shops" in (body.get("networks") or {})}
    assert near == {"postgres", *(f"{silo}-load" for silo in SILOS)}
    assert all(list(services[name]["networks"]) == ["shops"] for name in near)
    assert compose["networks"]["shops"]["internal"]


def test_only_the_proxys_port_is_published_and_on_the_loopback_address(services):
    ports = {name: body["ports"] for name, body in services.items() if body.get("ports")}
    assert list(ports) == ["coordinator"]
    (port,) = ports["coordinator"]
    assert (port["host_ip"], port["target"]) == ("127.0.0.1", 9443)
    assert services["proxy"]["network_mode"] == "service:coordinator"


def test_no_secret_stands_in_an_environment_or_a_command(services):
    for name, body in services.items():
        for variable in body["environment"] or {} if "environment" in body else {}:
            assert variable.endswith("_FILE") or not SECRET.search(variable), (name, variable)
        assert "password=" not in str(body.get("command")).lower()


def test_secrets_are_files_that_git_does_not_keep(compose):
    for secret in compose["secrets"].values():
        assert "/deploy/demo/secrets/" in secret["file"]
    assert "deploy/demo/secrets/" in (DEPLOY.parent / ".gitignore").read_text().split()


def test_images_are_pinned(services):
    for body in services.values():
        assert re.fullmatch(r"[a-z-]+:[0-9]+\.[0-9.]+(-[a-z]+)?", body["image"])


def test_what_runs_for_long_is_watched_and_started_again(services):
    for name, body in services.items():
        if "profiles" not in body:
            assert body["restart"] == "unless-stopped", name
            assert body["healthcheck"]["test"], name


@pytest.mark.parametrize("script", ["demo.sh", "shops.sh"])
def test_scripts_are_ones_that_sh_reads(script):
    path = DEPLOY / "demo" / script
    assert subprocess.run(["/bin/sh", "-n", path], check=False).returncode == 0  # noqa: S603
    done = tool("shellcheck", "--severity=style", "--exclude=SC1007", path)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_script_says_only_what_the_commands_understand():
    """Every option of ours in demo.sh and in compose.yaml is one that the command has."""
    text = "".join((DEPLOY / name).read_text() for name in ("demo/demo.sh", "compose.yaml"))
    plain = text.replace("\\\n", " ").replace(", ", " ")
    calls = re.findall(r"(fondaco-(?:client|server)) ((?:plan )?[a-z]+)([^\n|&\"]*)", plain)
    assert len(calls) >= 15
    for program, command, rest in calls:
        words = set(re.findall(r"(?<=\s)--?[a-z-]+", rest))
        assert words <= options_of(program, command), (program, command)
