"""Messages to nodes and their replies, until a deadline: nodes that Flower loses are asked again.

Flower gives up a message once its node is gone for a minute, and never brings it again. Silos
answer the same question with the same bytes, so asking twice is safe, and a node that comes back
in time costs the round nothing but that time.
"""

import time
from collections.abc import Callable, Iterator, Sequence

from flwr.app import Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

POLL_S = 0.1
PAUSE_S = 3.0
"""Between two attempts to reach a node that is gone [s]."""
RETURN_S = 180.0
"""How long a node may be gone before it counts as silent; one that is back is waited for [s]."""
SILENCE = 4
"""A silent node is asked again at this many parts of the deadline."""
LAG_S = 20.0
"""Once half have answered, one that is silent for so long, and for twice the slowest's time, is
asked again, one time [s]. After a fault a SuperNode of Flower 1.41 may hand over every answer only
when the next message comes; such a node is asked everything twice from then on."""
LOST = {
    ErrorCode.MESSAGE_UNAVAILABLE,
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
    ErrorCode.NODE_UNAVAILABLE,
    ErrorCode.CLIENT_APP_CRASHED,
}
"""Flower's errors that say nothing about what the silo would have answered."""


class Mail:
    """One question to several nodes.

    Args:
        grid: Flower's, ours in a simulation.
        compose: node -> a fresh message to it.
        nodes: who is asked.
        deadline_s: time after which nobody is waited for [s].
        enough: asked after every reply; once it holds, a tenth of the time is left.
        lagging: nodes that answer one message late; those found out are added.
    """

    def __init__(
        self,
        grid: Grid,
        compose: Callable[[int], Message],
        nodes: Sequence[int],
        *,
        deadline_s: float,
        enough: Callable[[], bool] = lambda: False,
        lagging: set[int] | None = None,
    ) -> None:
        self._grid = grid
        self._compose = compose
        self._deadline_s = deadline_s
        self._enough = enough
        self._lagging = set() if lagging is None else lagging
        self._half = len(nodes) / 2
        self._slowest_s = 0.0
        self._hurried: set[int] = set()
        self._open = dict.fromkeys(nodes)
        self._sent: dict[str, int] = {}
        self._asked_at: dict[int, float] = {}
        self._lost: dict[int, tuple[float, Message | None]] = {}

    def replies(self) -> Iterator[tuple[int, Message | None]]:
        """Yield every node's reply as it comes; None for those silent at the deadline."""
        start = time.monotonic()
        until = start + self._deadline_s
        self._push([*self._open, *(node for node in self._open if node in self._lagging)])
        while self._open and time.monotonic() < until:
            heard = False
            for reply in self._grid.pull_messages(list(self._sent)):
                node = self._sent.pop(reply.metadata.reply_to_message_id, None)
                if node is None or node not in self._open or self._is_lost(node, reply):
                    continue
                heard = True
                self._close(node, time.monotonic() - start)
                yield node, reply
                if self._enough():
                    until = min(until, time.monotonic() + self._deadline_s / 10)
            for node, last in self._given_up():
                yield node, last
            if not heard:
                self._ask_again()
                time.sleep(POLL_S)
        for node in self._open:
            yield node, self._lost[node][1] if node in self._lost else None

    def _close(self, node: int, seconds: float) -> None:
        """Wait for this node no more; note whether it lags behind by a message."""
        del self._open[node]
        if node in self._hurried:
            self._lagging.add(node)
        else:
            self._slowest_s = seconds

    def _push(self, nodes: Sequence[int]) -> None:
        now = time.monotonic()
        self._asked_at |= dict.fromkeys(nodes, now)
        ids = self._grid.push_messages([self._compose(node) for node in nodes])
        for message_id, node in zip(ids, nodes, strict=True):
            if message_id:
                self._sent[message_id] = node
            else:  # shut out or gone: asked again if it comes, and not waited for until the end
                self._lost.setdefault(node, (now, None))

    def _is_lost(self, node: int, reply: Message) -> bool:
        """Return whether Flower lost the message, not the silo; such a node is asked again."""
        if not reply.has_error() or reply.error.code not in LOST:
            self._lost.pop(node, None)
            return False
        since, _ = self._lost.get(node, (time.monotonic(), reply))
        self._lost[node] = since, reply
        return True

    def _given_up(self) -> Iterator[tuple[int, Message | None]]:
        """Yield nodes that have been gone for too long, with Flower's own words if it has any."""
        back = set(self._sent.values())
        for node, (since, reply) in list(self._lost.items()):
            gone = node in self._open and node not in back
            if gone and time.monotonic() - since > RETURN_S:
                del self._open[node]
                yield node, reply

    def _patience_s(self, node: int) -> float:
        """Return how long a node may be silent before it is asked again."""
        usual = self._deadline_s / SILENCE
        if node in self._hurried or len(self._open) > self._half:
            return usual
        return min(usual, max(LAG_S, 2 * self._slowest_s))

    def _ask_again(self) -> None:
        """Ask those once more that were lost, or are silent for long."""
        now = time.monotonic()
        waited = {node: now - self._asked_at[node] for node in self._open}
        reachable = set(self._sent.values())
        due = [
            node
            for node, seconds in waited.items()
            if seconds > (self._patience_s(node) if node in reachable else PAUSE_S)
        ]
        if due:
            self._hurried.update(reachable & set(due))
            here = set(self._grid.get_node_ids())
            self._asked_at |= dict.fromkeys(due, now)
            self._push([node for node in due if node in here])
