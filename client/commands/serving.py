"""The command for recommendations."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from fondaco.shared.console import AsJson, Bars, err_console, out_console
from fondaco.shared.errors import ConfigError

from ..joining import audit
from ..owner import FACTS, Owner
from ..serving import PARTS
from ..serving.files import write_lists, writer_for
from ..serving.lists import ABOUT_PARTS, SiloState
from ..state import open_serving
from .options import HOME_HELP, as_its_user, busy


def recommend(
    *,
    home: Annotated[
        Path,
        typer.Option(
            "--home",
            "--state",
            help=HOME_HELP,
            callback=as_its_user,
        ),
    ],
    customer: Annotated[str, typer.Option(help="The customer's id: a list for this one.")] = "",
    everybody: Annotated[bool, typer.Option("--all", help="A list for every customer.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="With --all: the file, ending in .csv, .jsonl or .parquet."),
    ] = None,
    n: Annotated[int, typer.Option("-n", help="Items to recommend.", min=1)] = 10,
    as_json: AsJson = False,
) -> None:
    """Recommend items that customers do not have yet, and say what argued for each.

    A score is the sum of three parts: GLOBAL is everybody's model, learned under differential
    privacy; OWN is learned from your own rows, which never leave; CONTENT compares public facts
    about items with the customer's own. Nothing is sent anywhere, and no budget is spent.
    """
    if everybody == bool(customer) or everybody != (out is not None):
        raise ConfigError("give either --customer ID, or --all and --out FILE")
    if out is not None:
        writer_for(out)
        _recommend_all(home, out, n, as_json=as_json)
        return
    with busy("fitting on your rows"):
        state = open_serving(home)
        items = state.recommend(customer, n)
    _write_down(home, 1)
    if as_json:
        facts = {"silo_id": state.silo_id, "customer": customer, "items": items}
        print(json.dumps(facts | {"parts": ABOUT_PARTS}))
        return
    _show(state, customer, items)


def _recommend_all(home: Path, out: Path, n: int, *, as_json: bool) -> None:
    with busy("fitting on your rows"):
        state = open_serving(home)
    with Bars() as tell:
        count = write_lists(state, out, n, lambda done, of: tell("recommending", done, of))
    _write_down(home, count)
    if as_json:
        facts = {"silo_id": state.silo_id, "customers": count, "file": str(out)}
        print(json.dumps(facts | {"parts": ABOUT_PARTS}))
        return
    out_console.print(f"{out}: lists for {count} customers", markup=False, soft_wrap=True)
    _explain()


def _write_down(home: Path, count: int) -> None:
    """Note in an owner's audit log for how many customers; a simulated silo has none."""
    if (home / FACTS).is_file():
        audit(Owner.open(home), "recommend", count=count)


def _show(state: SiloState, customer: str, items: list[dict[str, Any]]) -> None:
    title = escape(f"{state.silo_id}: for customer {customer}")
    table = Table("", "item", "text", "score", *PARTS, title=title, box=None)
    for rank, row in enumerate(items, start=1):
        scores = [f"{row[part]:+.2f}" for part in ("score", *PARTS)]
        table.add_row(str(rank), escape(row["item_id"]), escape(row["text"]), *scores)
    out_console.print(table)
    if not items:
        err_console.print("nothing is left to recommend: this customer has every item you sell")
    _explain()


def _explain() -> None:
    out_console.print("score = global + own + content", highlight=False)
    for part in PARTS:
        out_console.print(f"  {part}: {ABOUT_PARTS[part]}", highlight=False)
