"""What several commands share: options, and a word on the terminal while something takes long."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from fondaco.shared.console import err_console

Home = Annotated[
    Path,
    typer.Option(help="The owner's folder; a silo of a simulation (DIR/silos/NAME) is one too."),
]


def busy(text: str) -> AbstractContextManager[object]:
    """Show `text` on a terminal until the body is done; nothing in a file or a pipe."""
    return err_console.status(text) if err_console.is_terminal else nullcontext()
