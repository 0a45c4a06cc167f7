"""The command that reads the owner's rows."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fondaco.shared.console import AsJson, Bars, out_console
from fondaco.shared.errors import ConfigError, DataError
from fondaco.shared.privacy.plan import RunPlan

from ..joining import audit
from ..kit_files import find_catalogue, plan_for_rows
from ..loading import Loaded, read_settings
from ..loading import load as load_rows
from ..owner import Owner
from .options import Home

_WORDS = {
    "trained": "rows that releases may read",
    "quarantined": "bad rows, put aside",
    "unknown_items": "rows of items that the catalogue does not list, or not sold here",
    "outside": "rows of another time or silo, or rated too low",
    "erased": "rows of customers who were erased",
}


def load(
    *,
    home: Home,
    source: Annotated[
        Path | None, typer.Option(help="Instead of the source.toml in the owner's folder.")
    ] = None,
    accept_schema: Annotated[
        bool, typer.Option(help="Take the source's columns as they are now, if they changed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read the owner's rows from where they lie, and keep a checked snapshot of them.

    The source is only ever read. All counts stay on this machine.
    """
    owner = Owner.open(home)
    settings = read_settings(owner.folder, source)
    plan = _plan(owner)
    kind = settings.source.kind
    try:
        with Bars() as tell:
            loaded = load_rows(
                owner,
                settings,
                plan,
                find_catalogue(owner, plan),
                tell=tell,
                accept_schema=accept_schema,
            )
    except DataError:
        audit(owner, "load", source=kind, outcome="refused")
        raise
    audit(owner, "load", source=kind, outcome="done")
    if as_json:
        print(json.dumps({"silo_id": owner.silo_id, "local_only": True, **asdict(loaded)}))
        return
    _show(loaded)


def _plan(owner: Owner) -> RunPlan:
    """Return the plan by which rows are read now."""
    plan = plan_for_rows(owner.folder, owner.approved())
    if plan is None:
        raise ConfigError(
            "there is no plan yet, which says how rows are divided; bring one with "
            "fondaco-client init --kit KIT"
        )
    return plan


def _show(loaded: Loaded) -> None:
    counts = f"{loaded.rows} rows of {loaded.customers} customers and {loaded.items} items"
    out_console.print(f"{counts} (these counts stay on this machine)", highlight=False)
    for name, words in _WORDS.items():
        count = getattr(loaded, name)
        if count or name == "trained":
            out_console.print(f"  {count} {words}", highlight=False)
    if loaded.quarantine:
        out_console.print(f"bad rows: {loaded.quarantine}", markup=False, soft_wrap=True)
