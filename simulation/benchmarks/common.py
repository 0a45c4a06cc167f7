"""What every benchmark leaves behind: one JSON file, and the same rows as a table."""

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fondaco.shared.provenance import code_digest

WIDTH = 160
"""Columns of a printed table, whatever the terminal says."""
SCHEMA = 1
_VERSIONS = ("fondaco", "flwr", "numpy", "scipy")

Row = Mapping[str, str | int | float | bool]


def record(
    name: str, rows: Sequence[Row], out: Path | None, *, seed: int, units: Mapping[str, str]
) -> dict[str, Any]:
    """Print `rows` as a table, write them to `out` with where they come from, and return that.

    Args:
        name: of the benchmark.
        rows: all with the same columns.
        out: JSON file, written whole or not at all; None writes nothing.
        seed: of everything drawn.
        units: column -> unit, for each column that is a measurement.
    """
    result = {
        "schema": SCHEMA,
        "benchmark": name,
        "seed": seed,
        "code_digest": code_digest(),
        "machine": machine(),
        "versions": {"python": platform.python_version()} | {n: version(n) for n in _VERSIONS},
        "units": dict(units),
        "rows": [dict(row) for row in rows],
    }
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = out.with_name(f"{out.name}.part")
        partial.write_text(json.dumps(result, indent=1, ensure_ascii=False), encoding="utf-8")
        partial.replace(out)
    Console(width=WIDTH).print(as_table(rows, units))
    return result


def as_table(rows: Sequence[Row], units: Mapping[str, str]) -> Table:
    """Return `rows` with a heading of names and units."""
    names = list(rows[0]) if rows else []
    headings = (f"{name} [{units[name]}]" if name in units else name for name in names)
    table = Table(*map(escape, headings), box=None)
    for row in rows:
        table.add_row(*(escape(_cell(row[name])) for name in names))
    return table


def machine() -> dict[str, Any]:
    """Return what the figures depend on besides the code, the load at this moment included."""
    return {
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cores": cores(),
        "load": round(os.getloadavg()[0], 2),
    }


def cores() -> int:
    """Return how many cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cell(value: str | float | bool) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
