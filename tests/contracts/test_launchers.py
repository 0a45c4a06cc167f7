"""The names inside of flwr that our launchers replace: there, used as we think, and enough."""

import inspect
import os
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.cli.build import build_fab_from_disk
from flwr.clientapp import ClientApp
from flwr.supercore.fab import Fab
from flwr.supercore.run import Run

from fondaco.client import launcher as client_launcher
from fondaco.server import launcher as server_launcher
from fondaco.shared.errors import ConfigError

CLIENT = "flwr.supernode.runtime.run_clientapp"
SERVER = "flwr.superlink.runtime.run_serverapp"
PROJECT = """
[project]
name = "evil"
version = "1.0.0"
license = "Apache-2.0"
[tool.flwr.app]
publisher = "evil"
fab-include = ["evil/**/*.py", "fondaco/**/*.py"]
[tool.flwr.app.components]
serverapp = "evil.app:server"
clientapp = "evil.app:client"
[tool.flwr.app.config]
run = "0123456789abcdef"
task = "run"
"""
EVIL = """
from pathlib import Path
Path({proof!r}).write_text("ran")
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
client, server = ClientApp(), ServerApp()
app = client

@client.query("status")
def status(message, context):
    return Message(RecordDict(), reply_to=message)

@server.main()
def main(grid, context):
    pass
"""

WHAT_IS_LOADED = """
import sys
from fondaco.client.launcher import flowers_program
from flwr.supernode.runtime.run_clientapp import run_clientapp
print(flowers_program().__globals__["run_clientapp"] is run_clientapp)
print("flwr.supernode.cli" in sys.modules)
"""


pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")


@pytest.fixture
def proof(tmp_path):
    return tmp_path / "proof"


@pytest.fixture
def fab(tmp_path, proof):
    """A bundle that brings code of its own, also under our names."""
    folder = tmp_path / "evil-project"
    for name in ("evil/app.py", "fondaco/client/app.py", "fondaco/server/app.py"):
        path = folder / name
        path.parent.mkdir(parents=True)
        path.write_text(EVIL.format(proof=str(proof)))
        (path.parent / "__init__.py").write_text("")
    (folder / "pyproject.toml").write_text(PROJECT)
    content = build_fab_from_disk(folder)
    return Fab(hash_str=import_module("hashlib").sha256(content).hexdigest(), content=content,
               verifications={})  # fmt: skip


def _context(config=None):
    return Context(run_id=1, node_id=2, node_config={}, state=RecordDict(), run_config=config or {})


def _run():
    return replace(Run.create_empty(1), fab_id="evil/evil", fab_version="1.0.0")


class EndedError(Exception):
    """Flower's program is over."""


def _quiet(program, home):
    """Take the network out of one of Flower's programs, and let it end without exiting."""
    os.environ["FLWR_HOME"] = str(home)

    def end(code=None, **_):
        raise EndedError(code)

    program.flwr_exit = end
    program.event = lambda *_, **__: None
    program.register_signal_handlers = lambda *_, **__: None
    program.HeartbeatSender = lambda *_: SimpleNamespace(start=lambda: None, is_running=False)


def _answer_one(fab, home, installed):
    """Run Flower's client program on one message; return what it sent back."""
    program, said = import_module(CLIENT), []
    _quiet(program, home)
    if installed is not None:
        client_launcher.install(installed)
    identity = program.TaskIdentity  # the SuperNode says so otherwise
    identity.task_id, identity.run_id, identity.node_id = 1, 1, 2
    content = RecordDict({"fondaco": ConfigRecord({"record": b""})})
    message = Message(content, dst_node_id=2, message_type="query.status")
    program.pull_task_input = lambda client: (message, _context(), _run(), fab)
    program.push_message = lambda client, reply, context: said.append(reply)
    with pytest.raises(EndedError):
        program.run_clientapp("127.0.0.1:9", "token", insecure=True)
    return said[0]


def test_bundle_at_a_silo_is_neither_unpacked_nor_imported(children, fab, proof, tmp_path):
    ours = ClientApp()

    @ours.query("status")
    def status(message: Message, context: Context) -> Message:
        return Message(RecordDict({"ours": ConfigRecord()}), reply_to=message)

    def work():
        reply = _answer_one(fab, tmp_path / "flwr", ours)
        assert not reply.has_error(), reply.error
        assert set(reply.content) == {"ours"}

    assert children.ended(work) == 0
    assert not proof.exists()
    assert not (tmp_path / "flwr").exists()


def test_the_same_bundle_would_have_run_without_the_launcher(children, fab, proof, tmp_path):
    def work():
        reply = _answer_one(fab, tmp_path / "flwr", None)
        assert not reply.has_error(), reply.error

    assert children.ended(work) == 0
    assert proof.read_text() == "ran"
    assert (tmp_path / "flwr" / "apps").is_dir()


def test_bundle_that_is_no_archive_does_no_harm_at_a_silo(children, fab, proof, tmp_path):
    def work():
        for content in (b"", b"PK\x03\x04" + b"\xff" * 100):
            bad = Fab(hash_str="0" * 64, content=content, verifications={})
            assert not _answer_one(bad, tmp_path / "flwr", _ours()).has_error()

    assert children.ended(work) == 0
    assert not (tmp_path / "flwr").exists()


def _ours():
    app = ClientApp()

    @app.query("status")
    def status(message: Message, context: Context) -> Message:
        return Message(RecordDict(), reply_to=message)

    return app


@pytest.mark.parametrize("name", ["install_from_fab", "get_load_client_app_fn"])
def test_silo_whose_flower_has_other_names_does_not_start(children, name):
    def work():
        delattr(import_module(CLIENT), name)
        with pytest.raises(RuntimeError, match="bundles cannot be kept out"):
            client_launcher.install(_ours())

    assert children.ended(work) == 0


def test_program_at_a_silo_is_flowers_own_without_the_rest_of_the_supernode():
    said = subprocess.run(  # noqa: S603  (our own module)
        [sys.executable, "-c", WHAT_IS_LOADED], capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["True", "False"]


def test_flowers_client_program_unpacks_and_loads_by_the_names_that_are_replaced():
    source = inspect.getsource(import_module(CLIENT).run_clientapp)
    assert source.count("install_from_fab(") == 1
    assert source.count("get_load_client_app_fn(") == 1
    assert source.count("client_app: ClientApp = load_client_app_fn(") == 1
    assert "load_app" not in inspect.getsource(import_module(CLIENT))


def test_flowers_server_program_runs_the_bundle_by_the_name_that_is_replaced():
    program = import_module(SERVER)
    source = inspect.getsource(program.run_serverapp)
    assert source.count("run_(") == 1
    assert "load_app" not in inspect.getsource(program)
    assert "importlib" not in inspect.getsource(program)
    wanted = {"grid", "server_app_dir", "server_app_attr", "context"}
    assert wanted <= set(inspect.signature(program.run_).parameters)
    assert {"grid", "context"} <= set(inspect.signature(server_launcher._run_installed).parameters)


class FakeGrid:
    """What Flower's server program asks of its Grid."""

    def __init__(self, fab, config):
        self.outputs = []
        task = SimpleNamespace(
            task_id=1, run=SimpleNamespace(run_id=1), context=SimpleNamespace(node_id=1), fab=fab
        )
        self._retry_invoker = SimpleNamespace(max_tries=None)
        self._runtime_client = SimpleNamespace(
            PullTaskInput=lambda request: task, PushTaskOutput=self.outputs.append
        )
        self.config = config

    def set_run(self, run):
        self.run = run

    def close(self):
        pass


def _serve_one(fab, home, installed, **config):
    """Run Flower's server program on one bundle."""
    program = import_module(SERVER)
    _quiet(program, home)
    program.HttpGrid = lambda **_: FakeGrid(fab, config)
    program.start_log_uploader = lambda **_: None
    program.context_from_proto = lambda _: _context()
    program.run_from_proto = lambda _: replace(_run(), override_config=config)
    program.fab_from_proto = lambda _: fab
    errors = []
    program.log = lambda level, text, *parts, exc_info=None: errors.append(exc_info)
    if installed:
        server_launcher.flwr_serverapp = lambda: program.run_serverapp(
            "127.0.0.1:9", None, "token", insecure=True
        )
        with pytest.raises(EndedError):
            server_launcher.main()
    else:
        with pytest.raises(EndedError):
            program.run_serverapp("127.0.0.1:9", None, "token", insecure=True)
    return [error for error in errors if error is not None]


@pytest.mark.parametrize("config", [{}, {"run": "../../etc"}, {"run": "x" * 9999}, {"run": 7}])
def test_bundle_at_the_coordinator_is_not_imported(children, fab, proof, tmp_path, config):
    from fondaco.server.home import ServerHome, ServerSettings  # noqa: PLC0415

    settings = ServerSettings(name="m", port=8000, public_address="127.0.0.1:8000")
    home = ServerHome.make(tmp_path / "server", settings)

    def work():
        os.environ[server_launcher.HOME_VARIABLE] = str(home.folder)
        (error,) = _serve_one(fab, home.flwr, True, **config)
        assert isinstance(error, ConfigError), error
        assert "was prepared here" in str(error)

    assert children.ended(work) == 0
    assert not proof.exists()
    assert list(home.runs.iterdir()) == []


def test_the_same_bundle_would_have_run_at_the_coordinator(children, fab, proof, tmp_path):
    def work():
        _serve_one(fab, tmp_path / "flwr", False)

    children.ended(work)
    assert proof.read_text() == "ran"
