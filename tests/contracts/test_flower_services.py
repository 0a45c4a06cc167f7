"""What the coordinator's house takes for granted about the installed Flower."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from flwr.supercore.constant import TASK_TYPE_TO_COMMAND
from flwr.supercore.exit import ExitCode
from flwr.superlink.routers.fleet.router import router

from fondaco.server.home import ServerHome, ServerSettings
from fondaco.server.proxy import ROUTES
from fondaco.server.services import superexec_program, superlink_program
from fondaco.shared.tls_check import explain_exit

PROGRAMS = Path(sys.executable).parent
SELF_REGISTRATION = {"register-node", "unregister-node"}


@pytest.fixture
def home(tmp_path):
    settings = ServerSettings(name="m", port=8000, public_address="127.0.0.1:8000")
    return ServerHome.make(tmp_path / "server", settings)


def run(home, *command):
    done = subprocess.run(  # noqa: S603
        [PROGRAMS / command[0], *command[1:]],
        check=True,
        capture_output=True,
        text=True,
        env=home.environment(),
        cwd=home.app,
    )
    return done.stdout


@pytest.mark.parametrize("describe", [superlink_program, superexec_program])
def test_flower_knows_every_flag_that_it_is_started_with(home, describe):
    program = describe(home)
    known = run(home, program.name, "--help")
    flags = [part for part in map(str, program.command) if part.startswith("--")]
    assert len(flags) >= 3
    assert [flag for flag in flags if flag not in known] == []


def test_proxy_shows_all_fleet_routes_but_self_registration():
    routes = {route.path for route in router.routes}
    assert routes == {f"/v1/fleet/{name}" for name in {*ROUTES, *SELF_REGISTRATION}}
    assert {method for route in router.routes for method in route.methods} == {"POST"}


def test_superexec_starts_no_program_that_the_house_did_not_write(home):
    assert {path.name for path in home.bin.iterdir()} == set(TASK_TYPE_TO_COMMAND.values())
    path = superexec_program(home).environment["PATH"].split(os.pathsep)
    assert path[0] == str(home.bin)
    assert str(PROGRAMS) not in path


def test_bundle_holds_no_code(home):
    run(home, "flwr", "build")
    (bundle,) = home.app.glob("*.fab")
    names = set(zipfile.ZipFile(bundle).namelist())
    assert {"pyproject.toml", "LICENSE"} <= names
    assert [name for name in names if name.endswith(".py")] == []
    assert len(names) <= 4


def test_exit_codes_mean_what_we_explain():
    assert ExitCode.SUPERNODE_CONNECTION_ERROR == 305
    assert ExitCode.SUPERNODE_STARTED_WITHOUT_TLS_BUT_NODE_AUTH_ENABLED == 303
    assert ExitCode.SUPERNODE_NODE_AUTH_KEY_INVALID == 302
    assert ExitCode.SUPEREXEC_AUTH_SECRET_LOAD_FAILED == 401
    assert ExitCode.RUNTIME_VERSION_INCOMPATIBLE == 606
    for code in (302, 303, 401, 606):
        assert "last lines" not in explain_exit(1, f"Exit Code: {code}\n")
