"""Flower ClientApp: a courier between Flower's messages and a silo's agent; sees no data."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fondaco.shared import codec
from fondaco.shared.chain.witness import Call
from fondaco.shared.codec import Parts
from fondaco.shared.errors import CodecError, LedgerError, PrivacyError

from .agent import SiloAgent
from .masking import STEPS
from .state import open_agent

Connect = Callable[[Context], SiloAgent]
Act = Callable[[SiloAgent, Parts, Call], Parts]
"""(agent, what came, what was said of ledgers) -> what is answered."""


class SiloError(RuntimeError):
    """A failure whose text may leave the silo."""


def make_app(connect: Connect) -> ClientApp:
    """Return a ClientApp that hands every message to the agent found by `connect`."""
    app = ClientApp()
    actions = {"status": _status, "witness": _cosign, "release": _release, "publish": _receive}
    actions |= {step: partial(_step, step) for step in STEPS}
    for name, act in actions.items():
        kind = app.train if name in ("release", "publish") else app.query
        kind(name)(_handler(connect, act))
    return app


def _handler(connect: Connect, act: Act) -> Callable[[Message, Context], Message]:
    def handle(message: Message, context: Context) -> Message:
        try:
            parts = codec.from_message(message.content)
            agent, call = connect(context), Call.from_bytes(parts.ledger)
            said = act(agent, parts, call)
        except Exception as error:
            # Flower sends exception texts to the server: say only what is public.
            raise SiloError(public_reason(error)) from None
        return Message(codec.to_message(*said), reply_to=message)

    return handle


def _status(agent: SiloAgent, parts: Parts, call: Call) -> Parts:
    status, presence = agent.status(), agent.present(parts.masking)
    return Parts(record=status, ledger=_testimony(agent, call), masking=presence)


def _cosign(agent: SiloAgent, parts: Parts, call: Call) -> Parts:
    del parts
    return Parts(ledger=agent.cosign(call).to_bytes())


def _step(step: str, agent: SiloAgent, parts: Parts, call: Call) -> Parts:
    answer = agent.answer(step, parts.masking, call.note)
    # The other steps write nothing down unless they refuse.
    ledger = _testimony(agent, call) if step == "unmask" else b""
    return Parts(ledger=ledger, masking=answer)


def _release(agent: SiloAgent, parts: Parts, call: Call) -> Parts:
    released = agent.run_round(parts.record, call.note, parts.masking)
    word = agent.vouch(released)
    return Parts(record=released, ledger=_testimony(agent, call), masking=word)


def _receive(agent: SiloAgent, parts: Parts, call: Call) -> Parts:
    agent.receive(parts.record)
    return Parts(record=agent.status(), ledger=_testimony(agent, call))


def _testimony(agent: SiloAgent, call: Call) -> bytes:
    return agent.testify(call).to_bytes()


def public_reason(error: Exception) -> str:
    """Return what may be said about a failure outside of the silo: public facts only.

    Other errors, ours included, may quote cells of a table or count customers.
    """
    quotable = isinstance(error, CodecError | PrivacyError)
    if quotable and not isinstance(error, LedgerError):  # those name paths of the silo
        return f"{type(error).__name__}: {error}"
    return f"{type(error).__name__} (details stay at the silo)"


def connect_from_workspace(context: Context) -> SiloAgent:
    """Return the agent of this node's silo in the workspace that the run config names.

    The workspace holds a simulation's prepared silos; plan and seed are read from it, never
    from a message.
    """
    folder = Path(str(context.run_config["workspace"]))
    return open_agent(folder, int(context.node_config["partition-id"]))


app = make_app(connect_from_workspace)
