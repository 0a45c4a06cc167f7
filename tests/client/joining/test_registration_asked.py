"""doctor's question about the registration, put to the installed Flower."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fondaco.client.reach import ask_registration
from fondaco.shared.errors import ConfigError
from fondaco.shared.supervisor import FLOWER_ENV
from fondaco.shared.tls_check import check_tls

TOOLS = Path(sys.executable).parent
START_S = 60.0


@pytest.fixture
def superlink(authority, tmp_path):
    """A SuperLink that asks for node keys; gives its address and runs `flwr` commands on it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"localhost:{free.getsockname()[1]}"
    (tmp_path / "flwr").mkdir()
    (tmp_path / "flwr" / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "{address}"\n'
        f'root-certificates = "{authority.ca}"\n'
    )
    (tmp_path / "secret").write_bytes(b"s" * 32)
    environment = {**os.environ, **FLOWER_ENV, "FLWR_HOME": str(tmp_path / "flwr")}
    command = [TOOLS / "flower-superlink", "--host", "127.0.0.1", "--port", address[10:]]
    command += ["--ssl-ca-certfile", authority.ca, "--ssl-certfile", authority.certificate]
    command += ["--ssl-keyfile", authority.key, "--enable-supernode-auth"]
    command += ["--isolation", "process", "--superexec-auth-secret-file", tmp_path / "secret"]
    command += ["--database", tmp_path / "state.db"]
    with (tmp_path / "log").open("wb") as log:
        running = subprocess.Popen(  # noqa: S603
            command, env=environment, stdout=log, stderr=subprocess.STDOUT
        )

    def flwr(*words):
        done = subprocess.run(  # noqa: S603
            [TOOLS / "flwr", *words, "here"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    try:
        _await(address, authority.ca.read_text())
        yield address, flwr
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait()


def _await(address, ca):
    until = time.monotonic() + START_S
    while True:
        try:
            return check_tls(address, ca)
        except ConfigError:
            if time.monotonic() > until:
                raise
            time.sleep(0.3)


@pytest.mark.slow
def test_flower_tells_known_keys_from_others_and_begins_no_session(superlink, authority, tmp_path):
    (address, flwr), ca = superlink, authority.ca.read_text()
    key = ec.generate_private_key(ec.SECP384R1())
    assert ask_registration(address, ca, key) == "unknown"
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    (tmp_path / "node.pub").write_bytes(public)
    flwr("supernode", "register", str(tmp_path / "node.pub"))
    for _ in range(2):
        assert ask_registration(address, ca, key) == "registered"
    shown = flwr("supernode", "list")
    assert "registered" in shown
    assert "online" not in shown
