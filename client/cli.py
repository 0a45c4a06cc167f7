"""fondaco-client: a data owner's command line.

Exit codes: 0 done, 1 the answer is no, 2 could not do it.
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fondaco.shared.errors import FondacoError

from .state import open_state

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Recommend to a silo's own customers from what the federation learned.",
)
out_console = Console()
err_console = Console(stderr=True)


@app.callback()
def client() -> None:
    """Keep `recommend` a sub-command although it is the only one so far."""


@app.command()
def recommend(
    *,
    state: Annotated[
        Path,
        typer.Option(help="A silo's folder, as `fondaco-simulate run --keep-silos` leaves it."),
    ],
    customer: Annotated[str, typer.Option(help="The customer's id.")],
    n: Annotated[int, typer.Option("-n", help="Items to recommend.", min=1)] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print machine-readable JSON.")] = False,
) -> None:
    """Recommend items that CUSTOMER does not have yet, and say which part argued for each."""
    silo = open_state(state)
    rows = silo.recommend(customer, n)
    if as_json:
        print(json.dumps({"silo_id": silo.silo_id, "customer": customer, "items": rows}))
        return
    title = escape(f"{silo.silo_id}: for customer {customer}")
    table = Table("", "item", "text", "score", "global", "own", "content", title=title, box=None)
    for rank, row in enumerate(rows, start=1):
        parts = [f"{row[part]:+.2f}" for part in ("score", "global", "own", "content")]
        table.add_row(str(rank), escape(row["item_id"]), escape(row["text"]), *parts)
    out_console.print(table)


def main() -> None:
    """Run the command line; every error of ours, and of the file system, is one line."""
    try:
        app()
    except (FondacoError, OSError) as error:
        line = escape(str(error))
        err_console.print(f"[red]error:[/red] {line}", highlight=False, soft_wrap=True)
        sys.exit(2)
