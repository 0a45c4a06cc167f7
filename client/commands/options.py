"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Home = Annotated[
    Path,
    typer.Option(help="The owner's folder; a silo of a simulation (DIR/silos/NAME) is one too."),
]
