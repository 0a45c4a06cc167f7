"""The command for recommendations."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from fondaco.shared.console import AsJson, out_console

from ..state import open_state


def recommend(
    *,
    state: Annotated[
        Path,
        typer.Option(help="A silo's folder, as `fondaco-simulate run --keep-silos` leaves it."),
    ],
    customer: Annotated[str, typer.Option(help="The customer's id.")],
    n: Annotated[int, typer.Option("-n", help="Items to recommend.", min=1)] = 10,
    as_json: AsJson = False,
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
