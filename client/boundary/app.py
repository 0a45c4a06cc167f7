"""Flower ClientApp: carries messages between a coordinator and a silo's agent; sees no data."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fondaco.shared.errors import CodecError
from fondaco.shared.parts import Parts, from_message, to_message

from .frames import ACTIONS, UNSAID
from .link import AgentAwayError, AgentError, ask

Ask = Callable[[Context, str, Parts], Parts]
"""(context, action, what came) -> what the silo's agent answers."""


class SiloError(RuntimeError):
    """A failure whose text may leave the silo."""


def carrier(ask_agent: Ask, reason: Callable[[Exception], str]) -> ClientApp:
    """Return a ClientApp that hands every message to an agent.

    Args:
        ask_agent: how to reach it.
        reason: an error -> words that may leave the silo.
    """
    app = ClientApp()
    for action, kind in ACTIONS.items():
        register = app.train if kind == "train" else app.query
        register(action)(_handler(partial(_asked, ask_agent, action), reason))
    return app


def courier_app(socket: Path) -> ClientApp:
    """Return the ClientApp of a courier whose agent listens at `socket`.

    It takes nothing from Flower's context: neither its run config nor its node config.
    """

    def ask_agent(context: Context, action: str, parts: Parts) -> Parts:
        del context
        return ask(socket, action, parts)

    return carrier(ask_agent, _couriers_reason)


def _asked(ask_agent: Ask, action: str, message: Message, context: Context) -> Parts:
    return ask_agent(context, action, from_message(message.content))


def _handler(
    act: Callable[[Message, Context], Parts], reason: Callable[[Exception], str]
) -> Callable[[Message, Context], Message]:
    def handle(message: Message, context: Context) -> Message:
        try:
            said = act(message, context)
        except Exception as error:
            # Flower sends exception texts to the server: say only what is public.
            raise SiloError(reason(error)) from None
        return Message(to_message(*said), reply_to=message)

    return handle


def _couriers_reason(error: Exception) -> str:
    """Return what a courier says: the agent's own words, and nothing of this machine."""
    if isinstance(error, AgentError | AgentAwayError | CodecError):
        return str(error)
    return UNSAID
