"""What Flower's SuperExec starts at the coordinator in place of `flwr-serverapp`.

Whoever reaches the SuperLink's control routes can send it a bundle. This runs the installed
ServerApp, whatever the bundle holds; of its run config it takes two words, which name a run that
this coordinator has prepared. `tests/contracts/test_launchers.py` holds the replaced names
against the installed flwr.
"""

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid
from flwr.superlink.cli import flwr_serverapp

from .home import HOME_VARIABLE


def _run_installed(*, grid: Grid, context: Context, **_: Any) -> Context:  # noqa: ANN401
    # Flower waits half a minute for a first sign of life; this import can take as long.
    from .deployed import run_prepared  # noqa: PLC0415

    config = context.run_config
    home = Path(os.environ[HOME_VARIABLE])
    run_prepared(grid, home, str(config.get("run", "")), str(config.get("task")))
    return context


REPLACED: Mapping[str, Callable[..., Any]] = {
    "run_": _run_installed,
    "install_from_fab": lambda *_, **__: None,
    "get_project_config": lambda *_: {"tool": {"flwr": {"app": {"components": {"serverapp": ""}}}}},
    "get_fused_config_from_dir": lambda _, override: dict(override),
}
"""Names in flwr -> ours: nothing of a bundle is unpacked, read or run."""


def main() -> None:
    """Run the ServerApp once: the arguments are those of `flwr-serverapp`."""
    os.umask(0o077)
    program = import_module("flwr.superlink.runtime.run_serverapp")
    for name, ours in REPLACED.items():
        if not hasattr(program, name):
            raise RuntimeError(f"this flwr has no {name}: bundles cannot be kept out")
        setattr(program, name, ours)
    flwr_serverapp()


if __name__ == "__main__":
    main()
