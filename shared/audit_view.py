"""Who did what, for a person or a machine."""

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .audit_log import verify


def show_trail(console: Console, path: Path, *, as_json: bool) -> bool:
    """Print the audit log at `path`; return whether all of its lines are as they were written.

    Raises:
        DataError: there is none.
    """
    trail = verify(path)
    if as_json:
        console.file.write(json.dumps({**asdict(trail), "whole": not trail.findings}) + "\n")
        return not trail.findings
    table = Table("", "time", "user", "action", "what", box=None)
    for entry in trail.entries:
        what = ", ".join(
            f"{name.replace('_', ' ')} {value}" for name, value in entry.fields.items()
        )
        words = entry.time, entry.user, entry.action, what
        table.add_row(str(entry.num), *map(escape, words))
    console.print(table)
    for finding in trail.findings:
        console.print(f"[red]{escape(finding)}[/red]")
    console.print(f"head {trail.head}", highlight=False, soft_wrap=True)
    return not trail.findings
