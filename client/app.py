"""Flower ClientApp: a courier between Flower's messages and a silo's agent; sees no data."""

from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fondaco.shared import codec
from fondaco.shared.chain.witness import Call, Testimony

from .agent import SiloAgent, public_reason
from .state import open_agent

Connect = Callable[[Context], SiloAgent]
Act = Callable[[SiloAgent, bytes, Call], bytes | Testimony]


class SiloError(RuntimeError):
    """A failure whose text may leave the silo."""


def make_app(connect: Connect) -> ClientApp:
    """Return a ClientApp that hands every message to the agent found by `connect`."""
    app = ClientApp()

    def answer(message: Message, context: Context, act: Act) -> Message:
        try:
            blob, ledger = codec.from_message(message.content)
            agent, call = connect(context), Call.from_bytes(ledger)
            reply = act(agent, blob, call)
            said = agent.testify(call) if isinstance(reply, bytes) else reply
        except Exception as error:
            # Flower sends exception texts to the server: say only what is public.
            raise SiloError(public_reason(error)) from None
        record = reply if isinstance(reply, bytes) else b""
        return Message(codec.to_message(record, said.to_bytes()), reply_to=message)

    @app.query("status")
    def status(message: Message, context: Context) -> Message:
        return answer(message, context, lambda agent, blob, call: agent.status())

    @app.query("witness")
    def witness(message: Message, context: Context) -> Message:
        return answer(message, context, lambda agent, blob, call: agent.cosign(call))

    @app.train("release")
    def train(message: Message, context: Context) -> Message:
        return answer(message, context, lambda agent, blob, call: agent.run_round(blob, call.note))

    @app.train("publish")
    def publish(message: Message, context: Context) -> Message:
        def receive(agent: SiloAgent, blob: bytes, call: Call) -> bytes:
            del call
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
