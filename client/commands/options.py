"""What several commands share: options, and a word on the terminal while something takes long."""

import os
import shlex
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from fondaco.shared.console import err_console
from fondaco.shared.errors import ConfigError

from ..courier_folder import account_of

HOME_HELP = "The owner's folder; a silo of a simulation (DIR/silos/NAME) is one too."


def as_its_user(home: Path) -> Path:
    """Refuse root in a folder of another OS user: what root writes there, its agent cannot read.

    Raises:
        ConfigError: it is root, or a user whom the folder is not for.
    """
    if os.geteuid() == 0 and home.is_dir() and (keeper := account_of(home.resolve())).uid:
        raise ConfigError(
            f"{home} belongs to OS user {keeper.name!r}, and files of root would be in the way of "
            f"its agent; run this with sudo -u {shlex.quote(keeper.name)}"
        )
    return home


Home = Annotated[Path, typer.Option(help=HOME_HELP, callback=as_its_user)]
AnyonesHome = Annotated[Path, typer.Option(help=HOME_HELP)]
"""Of commands that, as root, do the folder's part as the folder's user."""


def busy(text: str) -> AbstractContextManager[object]:
    """Show `text` on a terminal until the body is done; nothing in a file or a pipe."""
    return err_console.status(text) if err_console.is_terminal else nullcontext()
