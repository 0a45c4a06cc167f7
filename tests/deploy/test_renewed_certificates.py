"""The commands of the coordinator's two containers: silos are shown a certificate's successor."""

import os
import signal
import socket
import ssl
import subprocess
import time

import pytest
from deploy_files import DEPLOY, documents

from fondaco.server.home import ServerHome, ServerSettings


def commands(where):
    """Return what coordinator and proxy run, and where they find home, copies and nginx.conf."""
    if where == "compose":
        (body,) = documents(DEPLOY / "compose.yaml")
        both = [body["services"][name]["command"][2] for name in ("coordinator", "proxy")]
        coordinator, proxy = (text.replace("$$", "$") for text in both)
        return coordinator.replace("/var/lib/fondaco", "@base"), proxy, "/var/lib/fondaco/hub"
    pods = documents(DEPLOY / "kubernetes" / "coordinator.yaml")
    (spec,) = [d["spec"]["template"]["spec"] for d in pods if d["kind"] == "StatefulSet"]
    coordinator, proxy = (container["command"][2] for container in spec["containers"])
    coordinator = coordinator.replace("/var/lib/fondaco/hub/home", "@base/hub")
    return coordinator.replace("/public", "@base/public"), proxy, "/var/lib/fondaco/hub/home"


@pytest.fixture
def start(tmp_path):
    """Run a container's command in a shell whose minutes are short."""
    programs, running = tmp_path / "bin", []
    programs.mkdir()
    (programs / "fondaco-server").write_text("#!/bin/sh\nexec sleep 300\n")
    (programs / "fondaco-server").chmod(0o700)
    path = f"{programs}:{os.environ['PATH']}:/usr/sbin:/usr/local/sbin"

    def run(command, name):
        with (tmp_path / f"{name}.log").open("wb") as log:
            running.append(
                subprocess.Popen(  # noqa: S603  (our own manifests)
                    ["/bin/sh", "-c", command.replace("sleep 60", "sleep 0.2")],
                    env={**os.environ, "PATH": path},
                    stderr=log,
                    start_new_session=True,
                )
            )

    yield run
    for process in running:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def within(seconds, true, what):
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, what
        time.sleep(0.1)


def shown(port):
    try:
        return ssl.get_server_certificate(("127.0.0.1", port), timeout=5)
    except OSError:
        return ""


@pytest.mark.parametrize("where", ["compose", "kubernetes"])
def test_renewed_certificate_reaches_silos_by_itself(tmp_path, start, where):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = ServerSettings(name="hub", port=8000, public_address=f"127.0.0.1:{port}")
    home = ServerHome.make(tmp_path / "hub", settings)
    copies = tmp_path / "public"
    example = home.folder / "proxy" / "nginx.conf"
    example.write_text(example.read_text().replace(str(home.tls.folder), str(copies / "tls")))
    coordinator, proxy, mounted = commands(where)
    main = (DEPLOY / "proxy" / "nginx.conf").read_text()
    main = main.replace("/tmp/", f"{tmp_path}/").replace("/var/lib/fondaco/hub", str(copies))  # noqa: S108
    (tmp_path / "nginx.conf").write_text(main)
    start(coordinator.replace("@base", str(tmp_path)), "coordinator")
    within(10, (copies / "proxy" / "nginx.conf").exists, "the first copies")
    proxy = proxy.replace("/etc/fondaco", str(tmp_path)).replace(mounted, str(copies))
    start(proxy, "proxy")
    within(20, lambda: shown(port) == home.tls.certificate.read_text(), "nginx starts")
    home.tls.renew(settings.hosts)
    within(20, lambda: shown(port) == home.tls.certificate.read_text(), "the new certificate")
