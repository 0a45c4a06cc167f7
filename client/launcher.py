"""What Flower's SuperExec starts at a silo in place of `flwr-clientapp`: installed code only.

Flower's own program unpacks the bundle that the coordinator sent and runs what it finds there.
This one hands over the courier's ClientApp of the installed package, whatever the bundle holds;
the bundle is never written to disk. It replaces two names inside of flwr, which
`tests/contracts/test_launchers.py` holds against the installed version.
"""

import os
from collections.abc import Callable
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import flwr.supernode
from flwr.clientapp import ClientApp

from .boundary.app import courier_app
from .deployment import FOLDER, read_courier


def install(app: ClientApp) -> None:
    """Make Flower's client program run `app`, and nothing that a bundle holds."""

    def load(*_: Any, **__: Any) -> Callable[[str, str, str], ClientApp]:  # noqa: ANN401
        return lambda fab_id, fab_version, fab_hash: app

    def unpack_nothing(*_: Any, **__: Any) -> None:  # noqa: ANN401  (Flower's own signature)
        return None

    program = import_module("flwr.supernode.runtime.run_clientapp")
    for name, ours in (("install_from_fab", unpack_nothing), ("get_load_client_app_fn", load)):
        if not hasattr(program, name):
            raise RuntimeError(f"this flwr has no {name}: bundles cannot be kept out")
        setattr(program, name, ours)


def flowers_program() -> Callable[[], None]:
    """Return `flwr-clientapp`, read from its file.

    Its package imports the whole SuperNode, half of what starting this program costs; and one is
    started for every message.
    """
    path = Path(flwr.supernode.__path__[0]) / "cli" / "flwr_clientapp.py"
    spec = spec_from_file_location("flwr_clientapp", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise RuntimeError(f"this flwr has no {path.name}")
    program = module_from_spec(spec)
    spec.loader.exec_module(program)
    run: Callable[[], None] = program.flwr_clientapp
    return run


def main() -> None:
    """Answer one message: the arguments are those of `flwr-clientapp`."""
    os.umask(0o077)
    settings = read_courier(Path(os.environ[FOLDER]))
    install(courier_app(Path(settings.socket)))
    flowers_program()()


if __name__ == "__main__":
    main()
