"""What a silo answers to each message of the coordinator, wherever it came in."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

from fondaco.shared.chain.witness import Call
from fondaco.shared.errors import CodecError, LedgerError, PrivacyError
from fondaco.shared.parts import Parts
from fondaco.shared.preflight import reply

from .agent import SiloAgent
from .boundary.frames import UNSAID
from .masking import STEPS

Act = Callable[[SiloAgent, Parts, Call], Parts]
"""(agent, what came, what was said of ledgers) -> what is answered."""


def answer(agent: SiloAgent, action: str, parts: Parts) -> Parts:
    """Return the agent's answer to `action`, one of `ACTIONS`.

    Raises:
        CodecError: the message is malformed.
        PrivacyError: the plan, its owner or the budget does not allow it.
    """
    return ACTIONS[action](agent, parts, Call.from_bytes(parts.ledger))


def public_reason(error: Exception) -> str:
    """Return what may be said about a failure outside of the silo: public facts only.

    Other errors, ours included, may quote cells of a table or count customers; which kind of
    error a computation ends with depends on rows as well, so all others read alike.
    """
    quotable = isinstance(error, CodecError | PrivacyError)
    if quotable and not isinstance(error, LedgerError):  # those name paths of the silo
        return f"{type(error).__name__}: {error}"
    return UNSAID


def _status(agent: SiloAgent, parts: Parts, call: Call) -> Parts:
    status, presence = agent.status(), agent.present(parts.masking)
    return Parts(record=status, ledger=_testimony(agent, call), masking=presence)


def _cosign(agent: SiloAgent, parts: Parts, call: Call) -> Parts:
    del parts
    return Parts(ledger=agent.cosign(call).to_bytes())


def _step(step: str, agent: SiloAgent, parts: Parts, call: Call) -> Parts:
    cosigned = _cosigned(agent, call) if call.offers or call.lines else b""
    said = agent.answer(step, parts.masking, call.note)
    # The other steps write nothing of their own down unless they refuse.
    ledger = _testimony(agent, call) if step == "unmask" else cosigned
    return Parts(ledger=ledger, masking=said)


def _cosigned(agent: SiloAgent, call: Call) -> bytes:
    """Return signatures for others' heads; a ledger that does not follow must not end a sum."""
    with suppress(LedgerError):
        return agent.cosign(call).to_bytes()
    return b""


def _release(agent: SiloAgent, parts: Parts, call: Call) -> Parts:
    released = agent.run_round(parts.record, call.note, parts.masking)
    word = agent.vouch(released)
    return Parts(record=released, ledger=_testimony(agent, call), masking=word)


def _receive(agent: SiloAgent, parts: Parts, call: Call) -> Parts:
    agent.receive(parts.record)
    return Parts(record=agent.status(), ledger=_testimony(agent, call))


def _preflight(agent: SiloAgent, parts: Parts, call: Call) -> Parts:
    del call
    return Parts(masking=reply(parts.masking, agent.plan))


def _testimony(agent: SiloAgent, call: Call) -> bytes:
    return agent.testify(call).to_bytes()


ACTIONS: Mapping[str, Act] = {
    "status": _status,
    "witness": _cosign,
    "release": _release,
    "publish": _receive,
    "preflight": _preflight,
    **{step: partial(_step, step) for step in STEPS},
}
"""Action of a message -> what is done."""
