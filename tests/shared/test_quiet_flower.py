import os
import subprocess
import sys
from pathlib import Path

import pytest

from fondaco.shared import FLOWER_SWITCHES

MODULES = ("client.app", "client.agent", "server.app", "shared.codec", "simulation.cli")


def _told(module, expression, **switches):
    """What a fresh process says after it has imported `module` first."""
    environment = {k: v for k, v in os.environ.items() if k not in FLOWER_SWITCHES} | switches
    root = Path(sys.modules["fondaco.shared"].__file__).parents[2]
    code = f"import fondaco.{module}, os; from flwr.supercore import telemetry; print({expression})"
    done = subprocess.run(  # noqa: S603  (our own words)
        [sys.executable, "-W", "ignore", "-c", code],
        env=environment | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize("module", MODULES)
def test_flowers_telemetry_is_off_whichever_room_is_imported_first(module):
    assert _told(module, "telemetry.FLWR_TELEMETRY_ENABLED") == "0"


def test_every_switch_of_flower_is_set_on_import():
    names = sorted(FLOWER_SWITCHES)
    assert _told("shared", f"[os.environ[n] for n in {names}]") == str(
        [FLOWER_SWITCHES[name] for name in names]
    )


def test_a_switch_that_somebody_set_is_kept():
    told = _told("client.app", "os.environ['FLWR_TELEMETRY_ENABLED']", FLWR_TELEMETRY_ENABLED="1")
    assert told == "1"
