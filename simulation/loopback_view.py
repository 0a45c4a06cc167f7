"""A run of processes -> rich tables for the terminal."""

from rich.markup import escape
from rich.table import Table

from .loopback import Loopback


def loopback_tables(went: Loopback) -> list[Table]:
    """Return what ran how long, what crossed the wire, and whether it all holds."""
    return [_phases(went), _rounds(went), _stages(went)]


def _phases(went: Loopback) -> Table:
    table = Table(title="Questions to all silos, in order", title_justify="left", box=None)
    table.add_column("phase")
    table.add_column("silos", justify="right")
    table.add_column("seconds", justify="right")
    for phase in went.status["timed"]:
        table.add_row(escape(phase["stage"]), str(phase["asked"]), f"{phase['seconds']:.2f}")
    return table


def _rounds(went: Loopback) -> Table:
    table = Table(title="Rounds", title_justify="left", box=None)
    for name in ("round", "release"):
        table.add_column(name)
    for name in ("phases", "seconds", "kB sent by a silo", "kB received"):
        table.add_column(name, justify="right")
    for seen in went.status["rounds"]:
        sent = max(traffic["sent"] for traffic in seen["traffic"])
        received = max(traffic["received"] for traffic in seen["traffic"])
        table.add_row(
            str(seen["round_num"]),
            escape(seen["kind"]),
            str(seen["phases"]),
            f"{seen['seconds']:.1f}",
            f"{sent / 1000:.1f}",
            f"{received / 1000:.1f}",
        )
    return table


def _stages(went: Loopback) -> Table:
    same = "the same to the last bit as" if went.same else "ANOTHER than"
    held = sum(code == 0 for code in went.audited.values())
    table = Table(
        title=f"{went.status['state']}; model {same} in one process; "
        f"{held} of {len(went.audited)} ledgers hold",
        title_justify="left",
        box=None,
    )
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    for stage, seconds in went.seconds.items():
        table.add_row(stage, f"{seconds:.1f}")
    for silo_id, path in went.lists.items():
        table.add_row(f"lists of {escape(silo_id)}", escape(path))
    return table
