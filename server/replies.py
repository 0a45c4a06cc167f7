"""What silos reply: read, checked, and held against what is known of their ledgers."""

from contextlib import suppress
from typing import TypeVar

from flwr.app import Message

from fondaco.shared import codec
from fondaco.shared.codec import Shapes
from fondaco.shared.errors import CodecError, LedgerError
from fondaco.shared.parts import from_message
from fondaco.shared.records import MaskedUpdate, PrivateUpdate, RoundRequest

from .watch import Watch
from .witness import WitnessBook

U = TypeVar("U", PrivateUpdate, MaskedUpdate)


class Replies:
    """Reads the replies to one plan's messages.

    Args:
        shapes: array lengths that the plan fixes.
        book: what is known of the silos' ledgers.
        deadline_s: named where somebody was silent [s].
        watch: told of refusals.
    """

    def __init__(self, shapes: Shapes, book: WitnessBook, deadline_s: float, watch: Watch) -> None:
        self._shapes = shapes
        self._book = book
        self._deadline_s = deadline_s
        self._watch = watch

    def read(
        self, reply: Message | None, record_type: type[codec.R], silo_id: str = ""
    ) -> "codec.R | str":
        """Return the record in `reply`, or in words why there is none."""
        why = self._missing(reply, silo_id)
        if reply is None or why:
            return why
        try:
            return codec.decode(from_message(reply.content).record, record_type, self._shapes)
        except CodecError as error:
            return f"CodecError: {error}"

    def released(
        self, reply: Message | None, kind: type[U], request: RoundRequest, silo_id: str
    ) -> "U | str":
        """Return the release in `reply`, or in words why it cannot be used."""
        update = self.read(reply, kind, silo_id)
        if isinstance(update, str):
            return update
        return _misfit(update, request, silo_id) or self._in_ledger(silo_id, reply) or update

    def masking(self, reply: Message | None, silo_id: str = "") -> bytes:
        """Return what a reply says about a masked sum.

        Raises:
            CodecError: it says nothing, and why.
        """
        why = self._missing(reply, silo_id)
        if reply is None or why:
            raise CodecError(why)
        return from_message(reply.content).masking

    def hear(self, silo_id: str, reply: Message | None) -> str:
        """Take in what a silo said of its ledger; return why it cannot be right, or ""."""
        try:
            return self._book.hear(silo_id, about_ledgers(reply))
        except (CodecError, LedgerError) as error:
            return f"{type(error).__name__}: {error}"

    def collect(self, silo_id: str, reply: Message | None) -> None:
        """Take in a witness' signatures; what is malformed counts as none."""
        if reply is not None and not reply.has_error():
            with suppress(CodecError, LedgerError):
                self._book.collect(silo_id, about_ledgers(reply))

    def lost_signatures(self, silo_id: str, reply: Message | None) -> None:
        """Let a witness be asked again whose refusal took its signatures along."""
        if reply is not None and reply.has_error():
            self._book.ask_again(silo_id)

    def _missing(self, reply: Message | None, silo_id: str) -> str:
        """Return in words why there is nothing in a reply, "" if there is."""
        if reply is None:
            return f"no answer within {self._deadline_s:g} s"
        if not reply.has_error():
            return ""
        why = reply.error.reason or f"Flower error {reply.error.code}"
        if silo_id:
            self._watch.refused(silo_id, why)
        return why

    def _in_ledger(self, silo_id: str, reply: Message | None) -> str:
        """Return why a release is not in its silo's ledger as it should be, or ""."""
        why = self.hear(silo_id, reply)
        if why or reply is None:
            return why
        shown = self._book.shows_release(silo_id, from_message(reply.content).record)
        return "" if shown else "its ledger does not show this release"


def about_ledgers(reply: Message | None) -> bytes:
    """Return what a reply says of ledgers, empty if it says nothing.

    Raises:
        CodecError: the reply is none of ours.
    """
    return from_message(reply.content).ledger if reply is not None else b""


def size_of(reply: Message) -> int:
    """Return how many bytes of ours a reply holds; 0 where it is none of ours."""
    with suppress(CodecError):
        return sum(map(len, from_message(reply.content)))
    return 0


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
