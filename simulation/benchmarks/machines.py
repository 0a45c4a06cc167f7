"""What does a masked round between machines cost, next to Flower doing nothing as often?

`python -m fondaco.simulation.benchmarks.machines`: the scenario runs as real processes; then the
same SuperLink and SuperNodes, with Flower's own launchers, run an app that only echoes 10 kB. Both
are of one machine and one moment, so the ratio means something where the seconds do not.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tomli_w
import typer

from fondaco.server.home import CONNECTION, ServerHome
from fondaco.shared.console import Bars
from fondaco.shared.errors import RoundError

from ..library import load_scenario
from ..loopback import Site, environment, site
from ..run import prepare
from . import floor_app
from .common import Row, record

UNITS = {"round": "s", "per_phase": "s", "floor": "s", "sent": "kB", "received": "kB"}
PATIENCE_S = 600.0


def measure(scenario: str, settings: Sequence[str]) -> list[Row]:
    """Return a row per round, with Flower's floor for as many questions.

    Raises:
        RoundError: a run did not end as it should.
    """
    prepared = prepare(load_scenario(scenario, settings))
    with (
        tempfile.TemporaryDirectory(prefix="fondaco-") as folder,
        site(prepared, Path(folder) / "site") as made,
    ):
        made.start()
        arguments = ("run", str(made.plan), "--home", str(made.coordinator), "--json")
        status = json.loads(made.say("fondaco-server", *arguments))
        phases = max(seen["phases"] for seen in status["rounds"])
        floor = _floor(made, phases)
    return [_row(seen, floor) for seen in status["rounds"]]


def _row(seen: dict[str, Any], floor: Sequence[float]) -> Row:
    lowest = sum(floor[: seen["phases"]])
    return {
        "release": seen["kind"],
        "silos": len(seen["present"]),
        "phases": seen["phases"],
        "round": seen["seconds"],
        "per_phase": round(seen["seconds"] / seen["phases"], 2),
        "floor": round(lowest, 2),
        "ratio": round(seen["seconds"] / lowest, 2),
        "sent": max(traffic["sent"] for traffic in seen["traffic"]) / 1000,
        "received": max(traffic["received"] for traffic in seen["traffic"]) / 1000,
    }


def _floor(made: Site, phases: int) -> list[float]:
    """Return how long Flower alone takes for each of so many questions [s].

    Raises:
        RoundError: it did not finish.
    """
    home = ServerHome.open(made.coordinator)
    couriers = [made.courier(silo_id) for silo_id in made.prepared.silo_ids]
    _launch_flowers_own(home.bin / "flwr-serverapp")
    for courier in couriers:
        _launch_flowers_own(courier / "bin" / "flwr-clientapp")
    out = made.out / "floor.json"
    bundle = _bundle(made.out / "floor", out, phases)
    flwr = Path(sys.executable).with_name("flwr")
    subprocess.run(  # noqa: S603  (Flower's program, our own words)
        [str(flwr), "run", str(bundle), CONNECTION],
        cwd=made.out,
        env={**environment(), **home.environment()},
        capture_output=True,
        check=True,
    )
    until = time.monotonic() + PATIENCE_S
    while not out.is_file():
        if time.monotonic() > until:
            raise RoundError("Flower's own app did not finish")
        time.sleep(1.0)
    return [float(seconds) for seconds in json.loads(out.read_text(encoding="utf-8"))]


def _launch_flowers_own(path: Path) -> None:
    """Let SuperExec start Flower's program instead of our launcher."""
    program = Path(sys.executable).with_name(path.name)
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {program} "$@"\n', encoding="utf-8")


def _bundle(folder: Path, out: Path, phases: int) -> Path:
    folder.mkdir()
    shutil.copy(str(floor_app.__file__), folder / "floor_app.py")
    apps = {"serverapp": "floor_app:server_app", "clientapp": "floor_app:client_app"}
    config = {"phases": phases, "out": os.fspath(out)}
    flower = {"publisher": "fondaco", "components": apps, "config": config}
    project = {"name": "floor", "version": "1.0.0", "license": "Apache-2.0"}
    text = tomli_w.dumps({"project": project, "tool": {"flwr": {"app": flower}}})
    (folder / "pyproject.toml").write_text(text, encoding="utf-8")
    return folder


def main(
    *,
    scenario: Annotated[str, typer.Option(help="Scenario that is run.")] = "three-stores",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Knob of the scenario, a.b=value.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
) -> None:
    """Time masked rounds between processes, and Flower alone on the same ones."""
    with Bars() as progress:
        progress("site", 0, 1)
        rows = measure(scenario, settings or [])
        progress("site", 1, 1)
    record("machines", rows, out, seed=0, units=UNITS)


if __name__ == "__main__":
    typer.run(main)
