"""Our own loop over Flower's Grid: who is there, ask, collect with a deadline, add up.

Not Flower's `Strategy.start`: one odd reply ends a run there, all replies are held in memory,
and nothing resumes.
"""

import hashlib
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fondaco.shared import codec
from fondaco.shared.chain.keys import PublicKey
from fondaco.shared.codec import Shapes
from fondaco.shared.errors import CodecError, RoundError
from fondaco.shared.parts import to_message
from fondaco.shared.preflight import check, question
from fondaco.shared.privacy.events import PrivacyEvent
from fondaco.shared.privacy.plan import RunPlan
from fondaco.shared.records import (
    GlobalModel,
    PrivateUpdate,
    RoundRequest,
    SiloStatus,
    presence,
)

from .aggregation import AGGREGATORS
from .asking import LOST, POLL_S, Mail
from .checkpoint import Dropped, RoundResult
from .cohort import Cohort, Unheard, name_of
from .replies import Replies, about_ledgers, size_of
from .watch import Watch
from .witness import WitnessBook

MOST_PASSES = 5
LATE_S = 60.0
"""Silos that come late are not waited for any longer at their roll call [s]."""

NOTHING: Mapping[str, bytes] = {}

Progress = Callable[[str, int, int], None]
"""(stage, silos heard, silos asked) -> None."""


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
        watch: told how the run goes.
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
        watch: Watch | None = None,
    ) -> None:
        self._grid = grid
        self._book = book
        self._plan = plan
        self._deadline_s = deadline_s
        self._progress = progress
        self._weights = weights or {}
        self._watch = watch or Watch()
        self._lagging: set[int] = set()
        self._unheard = Unheard()
        self.replies = Replies(shapes, book, deadline_s, self._watch)

    def roll_call(self) -> Cohort:
        """Return the silos that run the agreed plan and code.

        Raises:
            RoundError: fewer than the plan's `n_min` do.
        """
        cohort = self._greet(self._wait_for_nodes(), Cohort(), None)
        self._require_quorum(len(cohort.silos), list(cohort.dropped), "roll call")
        self._watch.present(cohort.silos.values())
        return cohort

    def welcome(self, cohort: Cohort, model: GlobalModel | None) -> Cohort:
        """Return the cohort with those who have come since, told the newest model.

        A silo whose node key was changed comes from another node. Asks nobody where all silos are
        connected, and nodes that did not answer ever more seldom.
        """
        here = {*self._grid.get_node_ids()}
        missing = len(cohort.silos.keys() & here) < self._plan.cohort.n_silos
        late = self._unheard.due(here - cohort.silos.keys())
        if not late or not missing:
            return cohort
        joined = self._greet(late, cohort, LATE_S)
        new = {node: silo for node, silo in joined.silos.items() if node not in cohort.silos}
        if new:
            self._watch.present(joined.silos.values())
            if model is not None:
                self.publish(Cohort(silos=new), model)
        return joined

    def _greet(self, nodes: Sequence[int], known: Cohort, within_s: float | None) -> Cohort:
        """Return the known silos and those of `nodes` that show that they belong to the plan."""
        here = {*self._grid.get_node_ids()}
        nonce = secrets.token_bytes(32)
        asked, masking = dict.fromkeys(nodes, ""), {"": nonce}
        for node, reply in self.ask(
            "query.status", b"", asked, "roll call", masking=masking, within_s=within_s
        ):
            silo_id, why = self._introduced(node, reply, nonce)
            if not why and known.has(silo_id, here):
                silo_id, why = name_of(node), f"{silo_id} answered from two nodes"
            why = why or self.replies.hear(silo_id, reply)
            if why:
                known = known.refused(Dropped(silo_id, 0, why))
                self._watch.dropped(silo_id, why)
            else:
                known = known.joined(node, silo_id)
        return known

    def _introduced(self, node: int, reply: Message | None, nonce: bytes) -> tuple[str, str]:
        """Return whose a node is, if that is signed, and why it cannot take part, or ""."""
        status = self.replies.read(reply, SiloStatus)
        if isinstance(status, str):
            if reply is None or (reply.has_error() and reply.error.code in LOST):
                self._unheard.note(node)
            return name_of(node), status
        signed = self._is_present(status.silo_id, nonce, reply)
        silo_id = status.silo_id if signed else name_of(node)
        says = "" if signed else f"calls itself {status.silo_id!r:.80}, "
        if (status.plan_digest, status.code_digest) != self._agreed:
            return silo_id, f"{says}runs another plan or other code"
        return silo_id, "" if signed else f"{says}did not sign with its pinned key"

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
            update = self.replies.released(reply, PrivateUpdate, request, silo_id)
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
            silo_id = cohort.silos[node]
            status = self.replies.read(reply, SiloStatus, silo_id)
            why = status if isinstance(status, str) else self.replies.hear(silo_id, reply)
            unreached += [Dropped(silo_id, round_num, why)] if why else []
        return tuple(unreached)

    def witness(self, cohort: Cohort) -> None:
        """Have the newest head of every silo co-signed by others, and keep the signatures."""
        if not self._book.needed:
            return
        present, silent = list(cohort.silos.values()), set[str]()
        for _ in range(MOST_PASSES):  # others are asked for whoever is silent or knows less
            calls = self.witness_calls(present, silent)
            if not calls:
                return
            asked = {node: silo for node, silo in cohort.silos.items() if silo in calls}
            for node, reply in self.ask("query.witness", b"", asked, "witness", calls=calls):
                self.replies.collect(asked[node], reply)
                if reply is None:  # a deadline is waited for once, not at every pass
                    silent.add(asked[node])
        self._book.save()

    def witness_calls(
        self, present: Sequence[str], silent: Collection[str] = ()
    ) -> Mapping[str, bytes]:
        """Return what each silo is told that is to co-sign others' heads now."""
        if not self._book.needed:
            return NOTHING
        charges = self._book.charges(present, silent)
        self._book.save()
        return {silo: self._book.call(silo, witness_for=o) for silo, o in charges.items()}

    def rehearse(self, cohort: Cohort) -> None:
        """Send every silo as much as a round would, and have as much sent back; no data.

        Raises:
            RoundError: fewer than the plan's `n_min` came through.
        """
        nonce = secrets.token_bytes(32)
        masking = dict.fromkeys(cohort.silos.values(), question(nonce, self._plan))
        through, dropped = 0, []
        for node, reply in self.ask(
            "query.preflight", b"", cohort.silos, "preflight", masking=masking
        ):
            silo_id = cohort.silos[node]
            try:
                check(nonce, self.replies.masking(reply, silo_id), self._plan)
                through += 1
            except CodecError as error:
                dropped.append(Dropped(silo_id, 0, str(error)))
                self._watch.dropped(silo_id, str(error))
        self._require_quorum(through, dropped, "preflight")

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
            self.replies.masking(reply), message
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
        within_s: float | None = None,
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
            within_s: a shorter deadline than usual [s].
        """

        def compose(node: int) -> Message:
            call = calls.get(nodes[node]) or self._book.call(nodes[node])
            parts = blob, call, masking.get(nodes[node], b"")
            self._count(nodes[node], received=sum(map(len, parts)))
            content = to_message(*parts)
            return Message(content, dst_node_id=node, message_type=message_type, group_id=stage)

        deadline_s = self._deadline_s if within_s is None else min(within_s, self._deadline_s)
        mail = Mail(
            self._grid,
            compose,
            list(nodes),
            deadline_s=deadline_s,
            enough=enough,
            lagging=self._lagging,
        )
        self._tell(stage, 0, len(nodes))
        for heard, (node, reply) in enumerate(mail.replies(), start=1):
            if reply is not None and not reply.has_error():
                self._count(nodes[node], sent=size_of(reply))
            yield node, reply
            self._tell(stage, heard, len(nodes))

    def _count(self, silo_id: str, sent: int = 0, received: int = 0) -> None:
        if silo_id:  # before the roll call nobody knows whose a node is
            self._watch.traffic(silo_id, sent, received)

    def _tell(self, stage: str, heard: int, asked: int) -> None:
        self._progress(stage, heard, asked)
        self._watch.stage(stage, heard, asked)

    def hear(self, silo_id: str, reply: Message | None) -> None:
        """Take in what a silo said of its ledger, if it did.

        Raises:
            CodecError: it cannot be right.
        """
        if reply is None or reply.has_error() or not about_ledgers(reply):
            return
        if why := self.replies.hear(silo_id, reply):
            raise CodecError(why)

    def heard_all(self) -> None:
        """Put what was heard of ledgers on disk: before the round counts as done."""
        self._book.save()

    def _require_quorum(self, present: int, dropped: list[Dropped], stage: str) -> None:
        if present < self._plan.cohort.n_min:
            reasons = "; ".join(f"{d.silo_id}: {d.reason}" for d in dropped[:3])
            raise RoundError(
                f"{stage}: {present} silos answered, the plan needs {self._plan.cohort.n_min}"
                + (f" ({reasons})" if reasons else "")
            )


def sha256(blob: bytes) -> str:
    """Return the hash of `blob`, as `sha256:...`."""
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"
