"""Flower ClientApp of a simulation: the agents are in its own process."""

from collections.abc import Callable
from pathlib import Path

from flwr.app import Context
from flwr.clientapp import ClientApp

from fondaco.shared.parts import Parts

from .agent import SiloAgent
from .answers import answer, public_reason
from .boundary.app import carrier
from .state import open_agent

Connect = Callable[[Context], SiloAgent]


def make_app(connect: Connect) -> ClientApp:
    """Return a ClientApp that hands every message to the agent found by `connect`."""

    def ask_agent(context: Context, action: str, parts: Parts) -> Parts:
        return answer(connect(context), action, parts)

    return carrier(ask_agent, public_reason)


def connect_from_workspace(context: Context) -> SiloAgent:
    """Return the agent of this node's silo in the workspace that the run config names.

    The workspace holds a simulation's prepared silos; plan and seed are read from it, never
    from a message, and a plan for anything but a simulation is refused.
    """
    folder = Path(str(context.run_config["workspace"]))
    return open_agent(folder, int(context.node_config["partition-id"]))


app = make_app(connect_from_workspace)
