"""What a coordinator's folder says to a person who looks: services, silos, the newest run."""

import socket
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table

from fondaco.shared.address import split_address
from fondaco.shared.errors import ConfigError

from .deployed import REHEARSAL, STATUS, PreparedRun
from .home import ServerHome
from .nodes import registrations
from .plan_view import plain
from .status import Status, read_status

ANSWERS_S = 1.0
"""A service that does not take a connection within this time counts as down [s]."""


def newest_status(runs: Path) -> Path | None:
    """Return the file of the run, or rehearsal, that told of itself last; None without any."""
    told = [path for name in (STATUS, REHEARSAL) for path in runs.glob(f"*/{name}")]
    return max(told, key=lambda path: path.stat().st_mtime_ns, default=None)


def newest_run(runs: Path) -> Status | None:
    """Return how that run goes.

    Raises:
        ConfigError: its status cannot be read.
    """
    newest = newest_status(runs)
    return None if newest is None else read_status(newest)


def coordinator_facts(folder: Path) -> dict[str, Any]:
    """Return all that can be seen of a coordinator from outside, as plain values.

    Raises:
        ConfigError: the folder is no coordinator's, or a file of it is damaged.
    """
    home = ServerHome.open(folder)
    newest = newest_status(home.runs)
    return {
        "name": home.settings.name,
        "address": home.settings.local,
        "superlink_up": takes_connections(home.settings.local),
        "certificate_until": _certificate_until(home),
        "registered": list(registrations(home)),
        "run": None if newest is None else run_facts(newest),
    }


def run_facts(path: Path) -> dict[str, Any]:
    """Return a run as plain values, with its age, and whether a ServerApp has it in hand.

    Raises:
        ConfigError: its status cannot be read.
    """
    status = read_status(path)
    updated = datetime.fromisoformat(status.updated)
    return {
        **asdict(status),
        "done": len(status.rounds),
        "seconds": {kind: round(spent, 3) for kind, spent in status.seconds.items()},
        "at_work": PreparedRun(path.parent).at_work(),
        "age_s": max(0, round((datetime.now(UTC) - updated).total_seconds())),
    }


def _certificate_until(home: ServerHome) -> str:
    """Return the certificate's last moment, "" if it cannot be read: `status` has more to say."""
    try:
        return home.tls.expires().isoformat()
    except ConfigError:
        return ""


def takes_connections(address: str) -> bool:
    """Return whether anything listens at `host:port`."""
    try:
        with socket.create_connection(split_address(address), timeout=ANSWERS_S):
            return True
    except OSError:
        return False


def facts_in_tables(facts: Mapping[str, Any]) -> Group:
    """Return the facts for a terminal."""
    up = "answers" if facts["superlink_up"] else "does not answer: fondaco-server start"
    registered = plain(", ".join(facts["registered"])) or "none yet"
    until = facts["certificate_until"][:10]
    certificate = f"certificate until {until}" if until else "certificate missing or damaged"
    lines = [
        f"SuperLink at {facts['address']} {up}",
        f"{certificate}; registered silos: {registered}",
    ]
    run = facts["run"]
    if run is None:
        return Group(*lines, "nothing is running, and nothing was run here yet")
    return Group(*lines, *_words(run), _silo_table(run), *_round_table(run))


def _words(run: Mapping[str, Any]) -> list[str]:
    what = "rehearsal" if run["task"] == "preflight" else "run"
    asked = f", {run['heard']} of {run['asked']} silos answered" if run["asked"] else ""
    stage = f"; now {plain(run['stage'])}{asked}" if run["stage"] else ""
    lines = [
        "",
        f"{what} of {plain(run['dataset'] or 'an unnamed federation')}, plan {run['plan'][:19]}: "
        f"[bold]{run['state']}[/bold], {run['done']} of {run['planned']} rounds{stage}",
        f"promises epsilon {run['epsilon']} at delta {run['target_delta']}, until "
        f"{run['expires']}; {run['phases']} phases asked; last news {run['age_s']} s ago",
    ]
    if run["state"] in ("waiting", "running") and not run["at_work"]:
        lines.append(
            "[yellow]no ServerApp works on it now: fondaco-server run (or preflight), while it is "
            "there, has it started again within minutes; else give that command again[/yellow]"
        )
    if run["resumed"]:
        lines.append(f"taken up again {run['resumed']} times")
    if run["error"]:
        lines.append(f"[red]{plain(run['error'])}[/red]")
    if run["refused"]:
        last = run["refusals"][-1]
        lines.append(
            f"{run['refused']} refusals; the last by {plain(last['silo_id'])} at {last['time']}: "
            f"{plain(last['reason'])}"
        )
    return lines


def _silo_table(run: Mapping[str, Any]) -> Table:
    table = Table(box=None)
    for name in ("silo", "present", "last round", "sent", "received"):
        table.add_column(name, justify="left" if name == "silo" else "right")
    table.add_column("was left out because")
    for silo in run["silos"]:
        table.add_row(
            plain(silo["silo_id"]),
            "yes" if silo["present"] else "no",
            str(silo["last_round"] or "-"),
            _size(silo["sent"]),
            _size(silo["received"]),
            plain(silo["dropped"]),
        )
    return table


def _round_table(run: Mapping[str, Any]) -> list[Table]:
    if not run["rounds"]:
        return []
    table = Table("round", "kind", box=None)
    for name in ("silos", "phases", "seconds", "sent by each"):
        table.add_column(name, justify="right")
    for done in run["rounds"]:
        sent = [traffic["sent"] for traffic in done["traffic"]]
        table.add_row(
            str(done["round_num"]),
            plain(done["kind"]),
            str(len(done["present"])),
            str(done["phases"]),
            f"{done['seconds']:.1f}",
            " to ".join(dict.fromkeys([_size(min(sent)), _size(max(sent))])) if sent else "-",
        )
    return [table]


def _size(n_bytes: int) -> str:
    """Return a number of bytes as people read it."""
    size = float(n_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:  # noqa: PLR2004
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
