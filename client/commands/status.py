"""`status` and `history`: what an owner sees of the silo, and who did what."""

import json

import typer

from fondaco.shared.audit_view import show_trail
from fondaco.shared.console import AsJson, out_console

from ..joining import AUDIT
from ..status import facts_in_tables, owner_facts
from .options import Home


def status(*, home: Home, as_json: AsJson = False) -> None:
    """Show plan, budget, contact with the coordinator, refusals and witnesses."""
    facts = owner_facts(home)
    if as_json:
        print(json.dumps(facts))
        return
    out_console.print(facts_in_tables(facts), highlight=False)


def history(*, home: Home, as_json: AsJson = False) -> None:
    """Show who did what here, and check that no line was changed; 1 if one was."""
    if not show_trail(out_console, home / AUDIT, as_json=as_json):
        raise typer.Exit(1)
