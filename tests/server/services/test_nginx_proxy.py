"""The example configuration in a real nginx, in front of a real coordinator."""

import http.client
import os
import shutil
import socket
import ssl
import subprocess

import pytest

from fondaco.server.nodes import flwr, keep
from fondaco.server.tls import TlsFiles
from fondaco.shared.errors import ConfigError
from fondaco.shared.tls_check import check_tls

NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.slow

MAIN = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
{user}
events {{ worker_connections 64; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxied;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {example};
}}
"""
CLOSED = [
    "/",
    "/health",
    "/docs",
    "/openapi.json",
    "/v1/control/list-nodes",
    "/v1/control/start-run",
    "/v1/control/register-node",
    "/v1/runtime/acquire-task",
    "/v1/responses",
    "/v1/fleet",
    "/v1/fleet/",
    "/v1/fleet/register-node",
    "/v1/fleet/unregister-node",
    "/v1/fleet/get-run/x",
    "/v1/fleet/../control/list-nodes",
    "/v1/fleet/get-run/../../control/list-nodes",
    "/v1/fleet/%2e%2e/control/list-nodes",
    "/v1/fleet/get-run%2f..%2f..%2fcontrol%2flist-nodes",
    "//v1//control//list-nodes",
]


@pytest.fixture
def run_nginx(tmp_path, processes, waiting):
    """Run nginx with an example configuration, as a plain process."""

    def run(home, example):
        folder = tmp_path / "nginx"
        folder.mkdir()
        user = "user root;" if os.geteuid() == 0 else ""
        main = folder / "nginx.conf"
        main.write_text(MAIN.format(folder=folder, example=example, user=user))
        command = [NGINX, "-e", folder / "first.log", "-p", folder, "-c", main]
        subprocess.run([*map(str, command), "-t"], check=True)  # noqa: S603
        process, log = processes.start(*command, environment=dict(os.environ), name="nginx")
        waiting(lambda: process.poll() is not None or listens(home), 20, "nginx starts")
        assert process.poll() is None, log.read_text() + (folder / "error.log").read_text()
        return folder

    return run


@pytest.fixture
def house(make_home, port, run_house):
    """A coordinator that listens on one port and is seen on another."""
    home = make_home(public_address=f"127.0.0.1:{port()}")
    return home, lambda: run_house(home)


def port_of(home):
    return int(home.settings.public_address.rpartition(":")[2])


def listens(home):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port_of(home))) == 0


def ask(home, path, method="POST", body=b"", **headers):
    context = ssl.create_default_context(cafile=str(home.tls.ca))
    connection = http.client.HTTPSConnection(
        "127.0.0.1", port_of(home), timeout=20, context=context
    )
    try:
        connection.request(method, path, body, headers)
        return connection.getresponse().status
    finally:
        connection.close()


def test_silos_reach_the_fleet_and_nobody_reaches_more(
    house, run_nginx, make_silo, run_node, waiting
):
    home, start = house
    alpha = make_silo("alpha")
    keep(home, alpha.file)
    start()
    folder = run_nginx(home, home.folder / "proxy" / "nginx.conf")
    check_tls(home.settings.public_address, home.tls.ca.read_text())
    run_node(alpha, home.settings.public_address, home.tls.ca)
    asked = folder / "access.log"
    waiting(lambda: "/v1/fleet/pull-messages" in asked.read_text(), 150, "the silo asks for work")
    assert '"POST /v1/fleet/pull-messages HTTP/1.1" 200' in asked.read_text()

    assert {path: ask(home, path) for path in CLOSED} == dict.fromkeys(CLOSED, 403)
    assert ask(home, "/v1/fleet/get-run", method="GET") == 403
    assert ask(home, "/v1/fleet/get-run", **{"content-type": "application/protobuf"}) == 401
    whole = {"body": bytes(5_300_000), "content-type": "application/protobuf"}
    assert ask(home, "/v1/fleet/push-object", **whole) in (400, 401)
    assert ask(home, "/v1/fleet/push-object", body=b"x", **{"content-length": "17000000"}) == 413

    config = home.flwr / "config.toml"
    config.write_text(config.read_text().replace(home.settings.local, home.settings.public_address))
    assert not flwr(home, "supernode", "ls", "fondaco")["success"]


def test_flood_is_held_back(house, run_nginx):
    home, _ = house
    run_nginx(home, home.folder / "proxy" / "nginx.conf")
    context = ssl.create_default_context(cafile=str(home.tls.ca))
    connection = http.client.HTTPSConnection(
        "127.0.0.1", port_of(home), timeout=20, context=context
    )
    statuses = set()
    for _ in range(900):
        connection.request("POST", "/v1/fleet/get-run")
        answer = connection.getresponse()
        answer.read()
        statuses.add(answer.status)
    connection.close()
    assert statuses == {502, 429}
    with pytest.raises(ConfigError, match=r"SuperLink behind it does not|answered 429"):
        check_tls(home.settings.public_address, home.tls.ca.read_text())


def test_certificates_of_silos_can_be_asked_for(house, run_nginx, tmp_path):
    home, _ = house
    silos = TlsFiles(tmp_path / "silos")
    silos.make("silos", ["alpha"])
    example = home.folder / "proxy" / "nginx.conf"
    text = example.read_text().replace("# ssl_", "ssl_")
    changed = tmp_path / "mtls.conf"
    changed.write_text(text.replace("/etc/fondaco/silos-ca.pem", str(silos.ca)))
    run_nginx(home, changed)
    assert ask(home, "/v1/fleet/get-run") == 400
    with pytest.raises(ConfigError, match="answered 400 where a SuperLink asks for a node key"):
        check_tls(home.settings.public_address, home.tls.ca.read_text())
