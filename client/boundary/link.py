"""The courier's end of the agent's socket: asks, and asks again while the agent is restarted."""

import socket
import time
from contextlib import suppress
from pathlib import Path

from fondaco.shared.errors import CodecError, FondacoError
from fondaco.shared.parts import Parts

from .frames import ERROR, OK, Limits, receive_frame, send_frame

ANYTHING = Limits(record=1 << 34, ledger=1 << 30, masking=1 << 30)
"""The courier trusts its agent; Flower's own limit is lower."""
PATIENCE_S = 120.0
ANSWER_S = 3600.0
PAUSE_S = 0.25
MOST_DEATHS = 5
"""An agent that dies so often of one request is not asked again."""


class AgentError(FondacoError):
    """What the agent answered instead, in words that may leave the silo."""


class AgentAwayError(FondacoError):
    """Nobody listens on the agent's socket."""


def ask(path: Path, action: str, parts: Parts, *, patience_s: float = PATIENCE_S) -> Parts:
    """Return the agent's answer.

    An agent that is not there, or dies on the way, is asked again: it gives the same request the
    same bytes.

    Args:
        path: the agent's socket.
        action: what is asked.
        parts: what came from the coordinator.
        patience_s: how long an agent may be away, anew each time that it dies [s].

    Raises:
        AgentError: the agent refused.
        AgentAwayError: it stayed away, or died of this request as often as MOST_DEATHS.
    """
    until, deaths = time.monotonic() + patience_s, 0
    while True:
        try:
            return _ask(path, action, parts)
        except (OSError, EOFError, CodecError) as error:
            if isinstance(error, EOFError | ConnectionResetError):
                until, deaths = time.monotonic() + patience_s, deaths + 1
            if time.monotonic() > until or deaths == MOST_DEATHS:
                raise AgentAwayError("the silo's agent does not answer") from error
            time.sleep(PAUSE_S)


def _ask(path: Path, action: str, parts: Parts) -> Parts:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_S)  # it may be busy with an earlier request
        connection.connect(str(path))
        with suppress(BrokenPipeError, ConnectionResetError):  # it may have said why
            send_frame(connection, action, parts)
        word, answer = receive_frame(connection, (OK, ERROR), ANYTHING, ANSWER_S)
    if word == ERROR:
        raise AgentError(answer.record.decode("utf-8", errors="replace"))
    return answer
