"""The files of deploy/, read as tools read them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SWITCHES = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "OMP_NUM_THREADS": "1",
}
NOT_KEPT = {"secrets", "__pycache__"}
FILES = sorted(p for p in DEPLOY.rglob("*") if p.is_file() and not NOT_KEPT & {*p.parts})
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
DOCKERFILES = sorted(DEPLOY.glob("Dockerfile.*"))


def tool(name, *words, **options):
    """Run a program of the test environment; return how it ended."""
    path = Path(sys.executable).with_name(name)
    command = [str(path if path.exists() else name), *map(str, words)]
    return subprocess.run(  # noqa: S603  (words of ours)
        command, capture_output=True, text=True, check=False, **options
    )


def options_of(program, command):
    """Return the options of a command of ours, such as ("fondaco-server", "plan new")."""
    from typer.main import get_command  # noqa: PLC0415  (Flower: after pytest's own set-up)

    from fondaco.client import cli as client  # noqa: PLC0415
    from fondaco.server import cli as server  # noqa: PLC0415

    found = get_command({"fondaco-client": client.app, "fondaco-server": server.app}[program])
    for word in command.split():
        found = found.commands[word]
    return {option for parameter in found.params for option in parameter.opts}


def documents(path):
    return [body for body in yaml.safe_load_all(path.read_text(encoding="utf-8")) if body]


def every_document():
    return [(path, body) for path in MANIFESTS for body in documents(path)]


def compose_config(folder):
    """Return compose.yaml as `docker compose` understands it, with every profile."""
    done = tool(
        "docker-compose",
        *("-f", DEPLOY / "compose.yaml", "--profile", "*", "config", "--format", "json"),
        env={**os.environ, "HOME": str(folder), "DOCKER_CONFIG": str(folder)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)
