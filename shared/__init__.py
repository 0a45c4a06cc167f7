"""What both ends must agree on: records, codec, models, metrics and the trusted privacy core.

Flower reads its switches when it is imported, so they are set here: every room imports this one
first. Whoever sets a switch in the environment keeps it.
"""

import os

FLOWER_SWITCHES = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
"""No telemetry, no update check, no installs at run time."""

for _name, _value in FLOWER_SWITCHES.items():
    os.environ.setdefault(_name, _value)
