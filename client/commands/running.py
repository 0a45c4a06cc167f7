"""`run` and `courier`: a silo's two programs."""

from pathlib import Path
from typing import Annotated

import typer

from fondaco.client.service import run as run_both
from fondaco.client.service import serve_agent, serve_courier, socket_path
from fondaco.shared.errors import ConfigError
from fondaco.shared.logs import guard

from .options import AnyonesHome


def run(
    *,
    home: AnyonesHome,
    agent_only: Annotated[
        bool,
        typer.Option("--agent-only", help="Start no courier: systemd or a container does."),
    ] = False,
    socket: Annotated[
        Path | None,
        typer.Option(
            help="Where the agent listens.", show_default="agent.sock in the courier's folder"
        ),
    ] = None,
) -> None:
    """Answer the coordinator until stopped: the agent with the data, and its courier."""
    if socket and not agent_only:
        raise ConfigError("--socket is for --agent-only; else it lies in the courier's folder")
    with guard():
        if agent_only:
            serve_agent(home, socket or socket_path(home))
        else:
            run_both(home)


def courier(
    folder: Annotated[Path, typer.Argument(help="The courier's folder, as init made it.")],
) -> None:
    """Carry messages between the coordinator and the agent's socket; opens no data."""
    with guard():
        serve_courier(folder)
