"""Our own loop over Flower's Grid: who is there, ask, collect with a deadline, add up.

Not Flower's `Strategy.start`: one odd reply ends a run there, all replies are held in memory,
and nothing resumes.
"""

import hashlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fondaco.shared import codec
from fondaco.shared.chain.keys import PublicKey
from fondaco.shared.codec import Shapes
from fondaco.shared.errors import CodecError, LedgerError, RoundError
from fondaco.shared.privacy.events import PrivacyEvent
from fondaco.shared.privacy.plan import RunPlan
from fondaco.shared.records import (
    GlobalModel,
    MaskedUpdate,
    PrivateUpdate,
    RoundRequest,
    SiloStatus,
    presence,
)

from .aggregation import AGGREGATORS
from .checkpoint import Dropped, RoundResult
from .witness import WitnessBook

POLL_S = 0.05
MOST_PASSES = 5

NOTHING: Mapping[str, bytes] = {}
U = TypeVar("U", PrivateUpdate, MaskedUpdate)

Progress = Callable[[str, int, int], None]
"""(stage, silos heard, silos asked) -> None."""


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """Silos that answered the roll call, by Flower node."""

    silos: Mapping[int, str]
    dropped: tuple[Dropped, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class About:
    """What a request carries beside its release.

    Attributes:
        head: (n_head,) items of the Gram.
        parameters: (n_parameters,) of the model that is learned.
        model_digest: the published model that the statistic builds upon.
    """

    head: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    parameters: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, dtype=np.float32))
    model_digest: str = ""


NOTHING_MORE = About()


class Coordinator:
    """Runs the rounds of one plan over a Grid.

    Args:
        grid: Flower's, ours in a simulation.
        plan: what the silos agreed to.
        shapes: array lengths that the plan fixes.
        deadline_s: time after which a round goes on without the missing [s].
        progress: told after every reply.
        weights: public weight of each silo in an average; 1 where none is named.
        book: what is known of the silos' ledgers.
    """

    def __init__(
        self,
        grid: Grid,
        plan: RunPlan,
        shapes: Shapes,
        *,
        deadline_s: float,
        progress: Progress,
        weights: Mapping[str, float] | None = None,
        book: WitnessBook,
    ) -> None:
        self._grid = grid
        self._book = book
        self._plan = plan
        self._shapes = shapes
        self._deadline_s = deadline_s
        self._progress = progress
        self._weights = weights or {}

    def roll_call(self) -> Cohort:
        """Return the silos that run the agreed plan and code.

        Raises:
            RoundError: fewer than the plan's `n_min` do.
        """
        silos: dict[int, str] = {}
        dropped: list[Dropped] = []
        nodes = dict.fromkeys(self._wait_for_nodes(), "")
        nonce = secrets.token_bytes(32)
        for node, reply in self.ask("query.status", b"", nodes, "roll call", masking={"": nonce}):
            status = self._read(reply, SiloStatus)
            if isinstance(status, str):
                dropped.append(Dropped(f"node {node}", 0, status))
            elif (status.plan_digest, status.code_digest) != self._agreed:
                dropped.append(Dropped(status.silo_id, 0, "runs another plan or other code"))
            elif not self._is_present(status.silo_id, nonce, reply):
                dropped.append(Dropped(status.silo_id, 0, "did not sign with its pinned key"))
            elif status.silo_id in silos.values():
                dropped.append(Dropped(status.silo_id, 0, "answered from two nodes"))
            elif why := self._hear(status.silo_id, reply):
                dropped.append(Dropped(status.silo_id, 0, why))
            else:
                silos[node] = status.silo_id
        self._require_quorum(len(silos), dropped, "roll call")
        return Cohort(silos=silos, dropped=tuple(dropped))

    def collect(
        self,
        cohort: Cohort,
        event: PrivacyEvent,
        about: About = NOTHING_MORE,
        *,
        aggregator: str = "sum",
    ) -> RoundResult:
        """Return what every silo releases for `event`, aggregated.

        Args:
            cohort: who is asked.
            event: a release of the plan.
            about: what the request carries.
            aggregator: a name of AGGREGATORS.

        Raises:
            RoundError: fewer than the plan's `n_min` answered in time and in shape.
        """
        request = self.request(event, about)
        kind, round_num = event.kind, event.round_num
        total = AGGREGATORS[aggregator](event.dim)
        present: list[str] = []
        dropped: list[Dropped] = []
        blob = codec.encode(request)
        self.witness(cohort)
        for node, reply in self.ask("train.release", blob, cohort.silos, kind):
            silo_id = cohort.silos[node]
            update = self.released(reply, PrivateUpdate, request, silo_id)
            if isinstance(update, str):
                dropped.append(Dropped(silo_id, round_num, update))
            else:
                total.add(update.values, self._weights.get(silo_id, 1.0))
                present.append(silo_id)
        self.heard_all()
        self._require_quorum(len(present), dropped, kind)
        return RoundResult(
            kind=kind,
            round_num=round_num,
            total=total.result(),
            present=tuple(sorted(present)),
            dropped=tuple(sorted(dropped, key=lambda d: d.silo_id)),
        )

    @property
    def plan(self) -> RunPlan:
        """What the silos agreed to."""
        return self._plan

    def request(self, event: PrivacyEvent, about: About) -> RoundRequest:
        """Return the request for a release of the plan, in its first attempt."""
        return RoundRequest(
            plan_digest=self._plan.digest,
            code_digest=self._plan.code_digest,
            kind=event.kind,
            round_num=event.round_num,
            attempt=1,
            model_digest=about.model_digest,
            head=about.head,
            parameters=about.parameters,
        )

    def publish(self, cohort: Cohort, model: GlobalModel) -> tuple[Dropped, ...]:
        """Send the global model to every silo; return those that did not take it."""
        round_num = model.after_round + 1
        unreached = []
        for node, reply in self.ask("train.publish", codec.encode(model), cohort.silos, "publish"):
            status, silo_id = self._read(reply, SiloStatus), cohort.silos[node]
            why = status if isinstance(status, str) else self._hear(silo_id, reply)
            unreached += [Dropped(silo_id, round_num, why)] if why else []
        return tuple(unreached)

    def witness(self, cohort: Cohort) -> None:
        """Have the newest head of every silo co-signed by others, and keep the signatures."""
        if not self._book.needed:
            return
        present = list(cohort.silos.values())
        for _ in range(MOST_PASSES):  # others are asked for whoever is silent or knows less
            charges = self._book.charges(present)
            self._book.save()
            if not charges:
                return
            calls = {silo: self._book.call(silo, witness_for=o) for silo, o in charges.items()}
            asked = {node: silo for node, silo in cohort.silos.items() if silo in charges}
            for node, reply in self.ask("query.witness", b"", asked, "witness", calls=calls):
                if reply is not None and not reply.has_error():
                    self._collect(asked[node], reply)
        self._book.save()

    @property
    def _agreed(self) -> tuple[str, str]:
        return self._plan.digest, self._plan.code_digest

    def _is_present(self, silo_id: str, nonce: bytes, reply: Message | None) -> bool:
        """Return whether a silo itself answered; anybody may, where the plan pins no keys."""
        if not self._plan.roster:
            return True
        text = self._plan.roster.get(silo_id)
        message = presence(self._plan.digest, silo_id, nonce)
        return text is not None and PublicKey.from_text(text).verifies(
            self.masking_of(reply), message
        )

    def _wait_for_nodes(self) -> list[int]:
        """Return all nodes once the plan's silos are connected, or those there at the deadline."""
        until = time.monotonic() + self._deadline_s
        nodes = sorted(self._grid.get_node_ids())
        while len(nodes) < self._plan.cohort.n_silos and time.monotonic() < until:
            time.sleep(POLL_S)
            nodes = sorted(self._grid.get_node_ids())
        return nodes

    def ask(
        self,
        message_type: str,
        blob: bytes,
        nodes: Mapping[int, str],
        stage: str,
        *,
        calls: Mapping[str, bytes] = NOTHING,
        masking: Mapping[str, bytes] = NOTHING,
        enough: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[int, Message | None]]:
        """Yield every node's reply as it comes; None for those silent at the deadline.

        Args:
            message_type: Flower's.
            blob: an encoded record for everybody.
            nodes: who is asked.
            stage: its name, for progress.
            calls: silo -> what it is told of ledgers, if not the usual.
            masking: silo -> an encoded message of a masked sum.
            enough: asked after every reply; once it holds, a tenth of the time is left.
        """
        messages = [
            Message(
                codec.to_message(
                    blob,
                    calls.get(silo_id) or self._book.call(silo_id),
                    masking.get(silo_id, b""),
                ),
                dst_node_id=node,
                message_type=message_type,
                group_id=stage,
            )
            for node, silo_id in nodes.items()
        ]
        waiting = dict(zip(self._grid.push_messages(messages), nodes, strict=True))
        until = time.monotonic() + self._deadline_s
        self._progress(stage, 0, len(nodes))
        while waiting and time.monotonic() < until:
            heard = len(waiting)
            for reply in self._grid.pull_messages(list(waiting)):
                node = waiting.pop(reply.metadata.reply_to_message_id, None)
                if node is not None:
                    yield node, reply
                    if enough():
                        until = min(until, time.monotonic() + self._deadline_s / 10)
                    self._progress(stage, len(nodes) - len(waiting), len(nodes))
            if len(waiting) == heard:
                time.sleep(POLL_S)
        for node in waiting.values():
            yield node, None

    def released(
        self, reply: Message | None, kind: type[U], request: RoundRequest, silo_id: str
    ) -> "U | str":
        """Return the release in `reply`, or in words why it cannot be used."""
        update = self._read(reply, kind)
        if isinstance(update, str):
            return update
        return self._misfit(update, request, silo_id) or self._in_ledger(silo_id, reply) or update

    def masking_of(self, reply: Message | None) -> bytes:
        """Return what a reply says about a masked sum.

        Raises:
            CodecError: it says nothing, and why.
        """
        why = self._missing(reply)
        if reply is None or why:
            raise CodecError(why)
        return codec.from_message(reply.content).masking

    def hear(self, silo_id: str, reply: Message | None) -> None:
        """Take in what a silo said of its ledger, if it did.

        Raises:
            CodecError: it cannot be right.
        """
        if reply is None or reply.has_error() or not _about_ledgers(reply):
            return
        if why := self._hear(silo_id, reply):
            raise CodecError(why)

    def heard_all(self) -> None:
        """Put what was heard of ledgers on disk: before the round counts as done."""
        self._book.save()

    def _missing(self, reply: Message | None) -> str:
        """Return in words why there is nothing in a reply, "" if there is."""
        if reply is None:
            return f"no answer within {self._deadline_s:g} s"
        if reply.has_error():
            return reply.error.reason or f"Flower error {reply.error.code}"
        return ""

    def _read(self, reply: Message | None, record_type: type[codec.R]) -> "codec.R | str":
        """Return the record in `reply`, or in words why there is none."""
        why = self._missing(reply)
        if reply is None or why:
            return why
        try:
            return codec.decode(codec.from_message(reply.content).record, record_type, self._shapes)
        except CodecError as error:
            return f"CodecError: {error}"

    def _hear(self, silo_id: str, reply: Message | None) -> str:
        """Take in what a silo said of its ledger; return why it cannot be right, or ""."""
        try:
            return self._book.hear(silo_id, _about_ledgers(reply))
        except (CodecError, LedgerError) as error:
            return f"{type(error).__name__}: {error}"

    def _collect(self, silo_id: str, reply: Message) -> None:
        """Take in a witness' signatures; what is malformed counts as none."""
        with suppress(CodecError, LedgerError):
            self._book.collect(silo_id, _about_ledgers(reply))

    def _in_ledger(self, silo_id: str, reply: Message | None) -> str:
        """Return why a release is not in its silo's ledger as it should be, or ""."""
        why = self._hear(silo_id, reply)
        if why or reply is None:
            return why
        shown = self._book.shows_release(silo_id, codec.from_message(reply.content).record)
        return "" if shown else "its ledger does not show this release"

    @staticmethod
    def _misfit(update: PrivateUpdate | MaskedUpdate, request: RoundRequest, silo_id: str) -> str:
        wanted = (silo_id, request.plan_digest, request.kind, request.round_num, request.attempt)
        got = (
            update.silo_id,
            update.plan_digest,
            update.kind,
            update.round_num,
            update.attempt,
        )
        return "" if got == wanted else "answered for another silo, plan or round"

    def _require_quorum(self, present: int, dropped: list[Dropped], stage: str) -> None:
        if present < self._plan.cohort.n_min:
            reasons = "; ".join(f"{d.silo_id}: {d.reason}" for d in dropped[:3])
            raise RoundError(
                f"{stage}: {present} silos answered, the plan needs {self._plan.cohort.n_min}"
                + (f" ({reasons})" if reasons else "")
            )


def _about_ledgers(reply: Message | None) -> bytes:
    return codec.from_message(reply.content).ledger if reply is not None else b""


def sha256(blob: bytes) -> str:
    """Return the hash of `blob`, as `sha256:...`."""
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"
