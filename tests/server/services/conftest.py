"""Coordinators' homes, silos' registrations, and processes that a test starts and ends."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fondaco.server.home import ServerHome, ServerSettings
from fondaco.shared.chain.keys import Identity, key_name
from fondaco.shared.kit import Registration


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


class Silo:
    """What an owner has made: an identity, a node key, and the registration of both."""

    def __init__(self, folder, silo_id, identity=None):
        self.identity = identity or Identity.generate(key_name(silo_id))
        private = ec.generate_private_key(ec.SECP384R1())
        form, none = serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        self.node_key = folder / f"{silo_id}.node-key"
        self.node_key.write_bytes(private.private_bytes(serialization.Encoding.PEM, form, none))
        ssh = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        self.registration = Registration(
            silo_id=silo_id,
            identity=self.identity.public.text(),
            node_key=private.public_key().public_bytes(*ssh).decode(),
        )
        self.file = folder / f"{silo_id}.registration.json"
        self.file.write_bytes(self.registration.to_bytes(self.identity))


class Processes:
    """Starts processes that are ended with the test, by their own ids."""

    def __init__(self, folder):
        self._folder = folder
        self._running = []

    def start(self, *command, environment, name):
        log = self._folder / f"{name}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(  # noqa: S603
                [str(part) for part in command],
                cwd=self._folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        self._running.append(process)
        return process, log

    def end(self):
        for process in reversed(self._running):
            if process.poll() is None:
                process.terminate()
        for process in reversed(self._running):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until(true, seconds, what):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := true():
            return found
        time.sleep(0.2)
    raise AssertionError(f"{what} within {seconds} s")


@pytest.fixture
def make_silo(tmp_path):
    return lambda silo_id, identity=None: Silo(tmp_path, silo_id, identity)


@pytest.fixture
def make_home(tmp_path):
    """Make a coordinator's home, by default one that silos reach directly."""

    def make(name="server", **changes):
        port = free_port()
        settings = {"name": "market", "port": port, "public_address": f"127.0.0.1:{port}"}
        return ServerHome.make(tmp_path / name, ServerSettings(**{**settings, **changes}))

    return make


@pytest.fixture
def processes(tmp_path):
    started = Processes(tmp_path)
    yield started
    started.end()


@pytest.fixture
def run_house(processes, programs, waiting):
    """Run `fondaco-server start` until silos may connect; return the process and its log."""

    def run(home, name="start"):
        command = programs / "fondaco-server", "start", "--home", home.folder, "--json"
        process, log = processes.start(*command, environment=dict(os.environ), name=name)
        waiting(lambda: said(process, log, '"ready": true'), 180, "the coordinator starts")
        return process, log

    return run


@pytest.fixture
def run_node(processes, programs, tmp_path):
    """Run a SuperNode with a silo's node key, as a courier does."""

    def run(silo, address, ca, *flags):
        home = tmp_path / f"{silo.registration.silo_id}-flwr"
        environment = {
            **os.environ,
            "FLWR_HOME": str(home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "OMP_NUM_THREADS": "1",
        }
        trust = ("--root-certificates", ca) if ca else ()
        command = (
            *(programs / "flower-supernode", "--superlink", address, *trust),
            *("--auth-supernode-private-key", silo.node_key),
            *("--isolation", "process", "--port", free_port(), *flags),
        )
        return processes.start(*command, environment=environment, name=f"node-{free_port()}")

    return run


def said(process, log, words):
    """Return the log if it holds `words`; a process that ended will not say them any more."""
    text = log.read_text(errors="replace")
    if words not in text and process.poll() is not None:
        raise AssertionError(f"ended with {process.returncode}: {text[-2000:]}")
    return text if words in text else ""


@pytest.fixture
def saying():
    return said


@pytest.fixture
def waiting():
    return wait_until


@pytest.fixture
def port():
    return free_port


@pytest.fixture(scope="session")
def programs():
    """Where Flower's and our own programs are."""
    return Path(sys.executable).parent
