"""`status`, `metrics` and `history`: what a coordinator looks like from outside."""

import json
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from prometheus_client import generate_latest, start_http_server
from rich.live import Live

from fondaco.shared.address import split_address
from fondaco.shared.audit_view import show_trail
from fondaco.shared.console import AsJson, err_console, out_console
from fondaco.shared.errors import ConfigError

from ..metrics import registry
from ..outside import coordinator_facts, facts_in_tables

AUDIT_LOG = "audit.jsonl"
EVERY_S = 1.0

Home = Annotated[Path, typer.Option(help="The coordinator's folder, as `init` made it.")]


def status(
    *,
    home: Home,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it anew every second until the run ends.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show silos, rounds, stages, bytes and refusals of the newest run; 1 if it failed."""
    facts = coordinator_facts(home)
    drawn = watch and not as_json
    with Live(console=out_console, auto_refresh=False) if drawn else nullcontext() as live:
        while True:
            if as_json:
                print(json.dumps(facts), flush=True)
            elif live is None:
                out_console.print(facts_in_tables(facts), highlight=False)
            else:
                live.update(facts_in_tables(facts), refresh=True)
            if not watch or _is_over(facts["run"]):
                break
            time.sleep(EVERY_S)
            facts = coordinator_facts(home)
    if facts["run"] is not None and facts["run"]["state"] == "failed":
        raise typer.Exit(1)


def metrics(
    *,
    home: Home,
    listen: Annotated[
        str,
        typer.Option(
            help="Where Prometheus asks, HOST:PORT; there is no password, so keep it on the "
            "loopback address."
        ),
    ] = "127.0.0.1:9464",
    once: Annotated[bool, typer.Option("--once", help="Print them and stop.")] = False,
) -> None:
    """Serve public numbers of the coordinator to Prometheus until stopped."""
    found = registry(home)
    if once:
        print(generate_latest(found).decode(), end="")
        return
    host, port = split_address(listen)
    try:
        server, thread = start_http_server(port, host, found)
    except OSError as error:
        raise ConfigError(
            f"cannot listen at {listen} ({error.strerror}); stop whatever does, or choose another "
            "--listen"
        ) from None
    err_console.print(f"metrics at port {server.server_port} of {host}", soft_wrap=True)
    try:
        thread.join()
    finally:
        server.shutdown()


def history(*, home: Home, as_json: AsJson = False) -> None:
    """Show who did what here, and check that no line was changed; 1 if one was."""
    if not show_trail(out_console, home / AUDIT_LOG, as_json=as_json):
        raise typer.Exit(1)


def _is_over(run: dict[str, object] | None) -> bool:
    return run is not None and run["state"] in ("finished", "failed")
