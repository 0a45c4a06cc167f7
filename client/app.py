"""Flower ClientApp: a courier between Flower's messages and a silo's agent; sees no data."""

from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fondaco.shared import codec

from .agent import SiloAgent, public_reason
from .state import open_agent

Connect = Callable[[Context], SiloAgent]


class SiloError(RuntimeError):
    """A failure whose text may leave the silo."""


def make_app(connect: Connect) -> ClientApp:
    """Return a ClientApp that hands every message to the agent found by `connect`."""
    app = ClientApp()

    def answer(
        message: Message, context: Context, act: Callable[[SiloAgent, bytes], bytes]
    ) -> Message:
        try:
            blob = codec.from_message(message.content)
            reply = act(connect(context), blob)
        except Exception as error:
            # Flower sends exception texts to the server: say only what is public.
            raise SiloError(public_reason(error)) from None
        return Message(codec.to_message(reply), reply_to=message)

    @app.query("status")
    def status(message: Message, context: Context) -> Message:
        return answer(message, context, lambda agent, _: agent.status())

    @app.train("release")
    def train(message: Message, context: Context) -> Message:
        return answer(message, context, lambda agent, blob: agent.run_round(blob))

    @app.train("publish")
    def publish(message: Message, context: Context) -> Message:
        def receive(agent: SiloAgent, blob: bytes) -> bytes:
            agent.receive(blob)
            return agent.status()

        return answer(message, context, receive)

    return app


def connect_from_workspace(context: Context) -> SiloAgent:
    """Return the agent of this node's silo in the workspace that the run config names.

    The workspace holds a simulation's prepared silos; plan and seed are read from it, never
    from a message.
    """
    folder = Path(str(context.run_config["workspace"]))
    return open_agent(folder, int(context.node_config["partition-id"]))


app = make_app(connect_from_workspace)
