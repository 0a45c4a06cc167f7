"""Who is refused between silo and SuperLink, by real programs of Flower, and what both then read.

Each refusal is seen twice: by `check_tls` before Flower starts, and by what a SuperNode that was
started all the same writes as it ends.
"""

import http.client
import os
import subprocess

import pytest

from fondaco.server import tls
from fondaco.server.nodes import enrol, keep
from fondaco.server.services import answers, superlink_program
from fondaco.shared.errors import ConfigError
from fondaco.shared.tls_check import check_tls, explain_exit

pytestmark = pytest.mark.slow


@pytest.fixture
def superlink(make_home, processes, waiting):
    """Run a coordinator's SuperLink alone; return its home."""

    def run(*, plain=False, **changes):
        home = make_home(**changes)
        program = superlink_program(home)
        command = [*program.command]
        if plain:
            keep_flags = [c for c in command if str(c) != "--enable-supernode-auth"]
            command = [*keep_flags, "--insecure"]
        started, log = processes.start(*command, environment=program.environment, name="superlink")
        words = "Uvicorn running on"
        waiting(lambda: started.poll() is not None or words in log.read_text(), 150, words)
        assert started.poll() is None, log.read_text()
        return home

    return run


def refused(process, log):
    """Return what is explained to the owner of a SuperNode that ended."""
    code = process.wait(150)
    assert code == 1
    return explain_exit(code, log.read_text())


def checked(home, ca=None):
    with pytest.raises(ConfigError) as caught:
        check_tls(home.settings.local, ca or home.tls.ca.read_text())
    return str(caught.value)


def test_registered_key_alone_opens_the_door(superlink, make_silo, run_node, waiting, saying):
    home, alpha, stranger = superlink(), make_silo("alpha"), make_silo("stranger")
    assert answers(home)
    check_tls(home.settings.local, home.tls.ca.read_text())
    keep(home, alpha.file)
    assert enrol(home).let_in == ("alpha",)
    process, log = run_node(alpha, home.settings.local, home.tls.ca)
    waiting(lambda: saying(process, log, "SuperNode ID"), 150, "a registered silo connects")
    assert process.poll() is None
    text = refused(*run_node(stranger, home.settings.local, home.tls.ca))
    assert "does not know this node key" in text
    assert "fondaco-server register FILE" in text
    twin = refused(*run_node(alpha, home.settings.local, home.tls.ca))
    assert "still counts on an earlier connection" in twin


def test_client_without_tls_hears_nothing(superlink, make_silo, run_node):
    home = superlink()
    for route in ("/v1/fleet/get-run", "/v1/control/list-nodes", "/health"):
        connection = http.client.HTTPConnection("127.0.0.1", home.settings.port, timeout=10)
        connection.request("POST", route)
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            connection.getresponse()
        connection.close()
    text = refused(*run_node(make_silo("alpha"), home.settings.local, None, "--insecure"))
    assert "without TLS, which is never used; start it with fondaco-client run" in text


def test_another_authority_is_refused(superlink, make_home, make_silo, run_node):
    home, other = superlink(), make_home("other")
    assert "ask the coordinator for a new kit" in checked(home, other.tls.ca.read_text())
    text = refused(*run_node(make_silo("alpha"), home.settings.local, other.tls.ca))
    assert "was not signed by the authority in the kit" in text
    assert "fondaco-client init --kit KIT" in text


def test_certificate_that_is_over_is_refused(superlink, make_silo, run_node, monkeypatch):
    monkeypatch.setattr(tls, "SERVER_DAYS", 0)
    home = superlink()
    for text in (
        checked(home),
        refused(*run_node(make_silo("alpha"), home.settings.local, home.tls.ca)),
    ):
        assert "certificate that is over" in text
        assert "fondaco-server rotate certificate" in text


def test_certificate_of_another_host_is_refused(superlink, make_silo, run_node, monkeypatch):
    monkeypatch.setattr(tls, "LOCAL", ())
    home = superlink(host="0.0.0.0", public_address="fondaco.example:8443")  # noqa: S104
    assert "does not name 127.0.0.1; use the address in the kit" in checked(home)
    text = refused(*run_node(make_silo("alpha"), home.settings.local, home.tls.ca))
    assert "names other hosts than the address in use" in text


def test_server_without_tls_is_refused(superlink, make_silo, run_node):
    home = superlink(plain=True)
    assert "answers without TLS, which is never used" in checked(home)
    text = refused(*run_node(make_silo("alpha"), home.settings.local, home.tls.ca))
    assert "answers without TLS, which is never used" in text


def test_superexec_without_the_secret_gets_no_task(superlink, programs):
    """Over TLS and with the right authority, but not this coordinator's own program."""
    home = superlink()
    curl = [programs / "python", "-c", ACQUIRE, home.settings.local, home.tls.ca]
    done = subprocess.run(  # noqa: S603
        curl, capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.stdout.strip() == "401", done.stderr


ACQUIRE = """
import sys
import httpx
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.runtime import RuntimeHttpClient

client = RuntimeHttpClient.from_server_address(sys.argv[1], False, sys.argv[2], [])
try:
    client.AcquireTask(AcquireTaskRequest())
    print("taken")
except httpx.HTTPStatusError as error:
    print(error.response.status_code)
"""
