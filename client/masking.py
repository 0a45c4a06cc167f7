"""A silo's masked sums: where `shared/secagg`'s session is kept, and what the ledger says of it.

One sum at a time: a hello for another round ends the one before. A session's file is its owner's
alone and sealed under a key of its own, in another file, which is overwritten when the session is
over; on disks that move what they write, and for what Python leaves in memory, that is as much as
can be done.
"""

import hashlib
import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from fondaco.shared.chain.keys import Identity
from fondaco.shared.errors import NEW_ATTEMPT, CodecError, RefusalError
from fondaco.shared.files import write_durably
from fondaco.shared.privacy.ledger import Ledger
from fondaco.shared.privacy.plan import MASKED, RunPlan
from fondaco.shared.privacy.release import PrivateUpdate
from fondaco.shared.records import MaskedUpdate
from fondaco.shared.secagg.checks import Terms, released
from fondaco.shared.secagg.keys import KEY, seal, unseal
from fondaco.shared.secagg.masks import add_masks, to_ring
from fondaco.shared.secagg.messages import (
    Certificate,
    Delivery,
    Message,
    Released,
    Roster,
    Survivors,
    Task,
    read_roster,
)
from fondaco.shared.secagg.session import Masks, Session, begin, confirm, deliver, share, unmask

Key = tuple[str, int, int]
"""(kind, round_num, attempt)."""


@dataclass(frozen=True, kw_only=True)
class _Kept(Message):
    """A session between its steps, with what was answered to what.

    Attributes:
        asked: step -> SHA-256 of the request.
        answers: step -> the answer.
    """

    session: Session
    asked: Mapping[str, str] = field(default_factory=dict)
    answers: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """Which sum it is."""
        return key_of(self.session.task)

    def after(self, step: str, blob: bytes, session: Session, answer: bytes = b"") -> "_Kept":
        """Return what is kept once `step` has been answered."""
        return _Kept(
            session=session,
            asked={**self.asked, step: _sha256(blob)},
            answers={**self.answers, step: answer},
        )


class MaskedSums:
    """One silo's part in the masked sums of a plan.

    Args:
        path: the file in which a session is kept between its steps.
        plan: what the owner agreed to.
        silo_id: whose sums.
        identity: the owner's key.
    """

    def __init__(self, path: Path, plan: RunPlan, silo_id: str, identity: Identity) -> None:
        self._path = path
        self._plan = plan
        self._silo_id = silo_id
        self._identity = identity
        self._last: tuple[tuple[bytes, bytes], _Kept] | None = None

    @property
    def needed(self) -> bool:
        """Whether the plan masks its sums."""
        return self._plan.secure_aggregation == MASKED

    def answer(self, step: str, blob: bytes, ledger: Ledger) -> bytes:
        """Return the answer to one step; the same request again gets the same bytes.

        Args:
            step: one of STEPS.
            blob: the request.
            ledger: open; says what was released, and is told what is refused.

        Raises:
            CodecError: the request is malformed; the ledger says so.
            RefusalError: it is not allowed; the ledger says so.
        """
        key: Key = ("masked-sum", 0, 0)  # of a request that does not tell which
        read, act = STEPS[step]
        try:
            if not self.needed:
                raise RefusalError("this plan masks nothing", "unmasked")
            task, message = read(blob)
            key = self._known_key(task)
            return act(self, blob, task, message, ledger)
        except CodecError as error:
            ledger.refuse(*key, RefusalError(str(error), "malformed"))
            raise
        except RefusalError as error:
            ledger.refuse(*key, error)
            self.sweep()
            raise

    def masks(self, request: bytes, delivery: bytes, key: Key) -> Masks:
        """Return the masks that go over the answer to `request`.

        Args:
            request: the encoded `RoundRequest`.
            delivery: who takes part, and what they sent.
            key: which release is requested.

        Raises:
            RefusalError: the request is not the one that was agreed to, somebody did not agree,
                or the delivery is malformed.
        """
        kept = self._load()
        if kept is None or kept.key != key:
            raise RefusalError("this round has not begun here", "no-session")
        if kept.session.task.request != _sha256(request):
            raise RefusalError("this is not the request that was agreed to", "other-request")
        self._require_same(kept, "release", delivery)
        try:
            message = Delivery.from_bytes(delivery)
        except CodecError as error:
            raise RefusalError(str(error), "malformed") from None
        session, masks = deliver(kept.session, message, self._terms, _now())
        self._save(kept.after("release", delivery, session))
        return masks

    def forget(self) -> None:
        """Let go of whatever is kept: all of it is sealed under a key that is overwritten."""
        for path in (self._key, self._key.with_name(f"{self._key.name}.part")):
            _shred(path)
        self._path.unlink(missing_ok=True)
        self._last = None

    def sweep(self) -> None:
        """Let go of a session whose time is over."""
        kept = self._load()
        if kept is not None and kept.session.task.expires < _now():
            self.forget()

    def greet(self, blob: bytes, task: Task, message: Task, ledger: Ledger) -> bytes:
        """Begin a session, or return what it began with.

        Raises:
            RefusalError: another task was given for this release, it has been sent already and its
                secrets are gone, the task is not of now, or the plan is not in force.
        """
        del blob, message
        ledger.check_in_force()
        kept = self._load()
        if kept is not None and kept.key == key_of(task):
            if kept.session.task != task:
                raise RefusalError("another task was given for this round", "other-request")
            return kept.session.hello.to_bytes()
        if sent(ledger, self._plan, key_of(task)):
            raise RefusalError(f"this round's secrets are gone; {NEW_ATTEMPT}", "no-session")
        session = begin(task, self._terms, self._silo_id, self._identity, _now())
        self.forget()
        _write(self._key, secrets.token_bytes(KEY))
        self._save(_Kept(session=session))
        return session.hello.to_bytes()

    def share(self, blob: bytes, task: Task, roster: Roster, ledger: Ledger) -> bytes:
        """Agree to a roster and share out this silo's seeds."""
        del roster, ledger  # the bytes themselves are checked, once for all silos of a process
        kept = self._kept(task, "share", blob)
        if known := kept.answers.get("share"):
            return known
        session, said = share(kept.session, blob, self._terms, self._identity, _now())
        return self._answered(kept, "share", blob, session, said)

    def confirm(self, blob: bytes, task: Task, survivors: Survivors, ledger: Ledger) -> bytes:
        """Agree to the survivors.

        Raises:
            RefusalError: nothing was released here, or the survivors do not hold.
        """
        kept = self._kept(task, "confirm", blob)
        if known := kept.answers.get("confirm"):
            return known
        if not sent(ledger, self._plan, kept.key):
            raise RefusalError("nothing was released in this round", "out-of-order")
        session, said = confirm(kept.session, survivors, self._terms, self._identity, _now())
        return self._answered(kept, "confirm", blob, session, said)

    def unmask(self, blob: bytes, task: Task, certificate: Certificate, ledger: Ledger) -> bytes:
        """Help to unmask the sum, once; the ledger says so before the answer leaves."""
        kept = self._kept(task, "unmask", blob)
        if known := kept.answers.get("unmask"):
            return known
        session, said = unmask(kept.session, certificate, self._terms, _now())
        digest = certificate.survivors.digest
        ledger.record_unmask(*kept.key, survivors=digest, answer=said.to_bytes())
        return self._answered(kept, "unmask", blob, session, said)

    def _known_key(self, task: Task) -> Key:
        """Return what a refusal is written down under: a few words, whatever is asked.

        Raises:
            RefusalError: the task is none of the plan's.
        """
        if task.plan_digest != self._plan.digest:
            raise RefusalError("the task is about another plan", "other-plan")
        self._plan.event_for(task.kind, task.round_num)
        kept = self._load()
        same = kept is not None and kept.session.task == task
        return key_of(task) if same else (task.kind, task.round_num, 0)

    def _answered(
        self, kept: _Kept, step: str, blob: bytes, session: Session, said: Message
    ) -> bytes:
        answer = said.to_bytes()
        self._save(kept.after(step, blob, session, answer))
        return answer

    def _kept(self, task: Task, step: str, blob: bytes) -> _Kept:
        """Return the session of `task`, if it was not asked something else at this step.

        Raises:
            RefusalError: there is none, or it was.
        """
        kept = self._load()
        if kept is None or kept.session.task != task:
            raise RefusalError("this round has not begun here, or is over", "no-session")
        self._require_same(kept, step, blob)
        return kept

    @staticmethod
    def _require_same(kept: _Kept, step: str, blob: bytes) -> None:
        if kept.asked.get(step, _sha256(blob)) != _sha256(blob):
            code = {"share": "other-roster", "release": "other-request"}.get(
                step, "other-survivors"
            )
            raise RefusalError(f"another request was answered at this step ({step})", code)

    @cached_property
    def _terms(self) -> Terms:
        return Terms.of_plan(self._plan)

    def _load(self) -> _Kept | None:
        """Return what is kept; None if it is nothing, or its key is gone."""
        try:
            sealed = self._key.read_bytes(), self._path.read_bytes()
        except FileNotFoundError:
            return None
        if self._last is None or self._last[0] != sealed:
            kept = _unsealed(*sealed)
            self._last = (sealed, kept) if kept else None
        return self._last and self._last[1]

    def _save(self, kept: _Kept) -> None:
        """Put the session in its file, sealed under a key that lives as long as it does."""
        key = self._key.read_bytes()
        sealed = seal(key, kept.to_bytes())
        # What was signed must outlast a power cut: nobody may sign two of a kind in one round.
        signed = {"share", "confirm"} >= {list(kept.asked or ["hello"])[-1]}
        (write_durably if signed else _write)(self._path, sealed)
        self._last = (key, sealed), kept

    @property
    def _key(self) -> Path:
        return self._path.with_suffix(".key")


Reader = Callable[[bytes], tuple[Task, Message]]
Act = Callable[[MaskedSums, bytes, Task, Any, Ledger], bytes]


def signed_release(update: MaskedUpdate, identity: Identity) -> Released:
    """Return the owner's word for whom the masks of an update cancel among."""
    signature = identity.sign(released(update.participants, update.silo_id))
    return Released(silo_id=update.silo_id, signature=signature)


def masked(update: PrivateUpdate, masks: Masks, ring_bits: int) -> MaskedUpdate:
    """Return a release under its masks: without the other silos' it says nothing."""
    words = to_ring(update.values, ring_bits)
    add_masks(words, masks.keys)
    return MaskedUpdate(
        silo_id=update.silo_id,
        plan_digest=update.plan_digest,
        kind=update.kind,
        round_num=update.round_num,
        attempt=update.attempt,
        debit_seq=update.debit_seq,
        participants=masks.participants,
        values=words,
    )


def key_of(task: Task) -> Key:
    """Return which release a task is about."""
    return task.kind, task.round_num, task.attempt


def sent(ledger: Ledger, plan: RunPlan, key: Key) -> bool:
    """Return whether a ledger holds the RELEASE of `key` under `plan`."""
    wanted = (plan.digest, *key)
    names = ("plan_digest", "kind", "round_num", "attempt")
    return any(tuple(r[n] for n in names) == wanted for r in ledger.chain.of_type("RELEASE"))


def _unsealed(key: bytes, sealed: bytes) -> _Kept | None:
    """Return a session as it was kept, None if it was cut off or its key is another's."""
    blob = unseal(key, sealed)
    try:
        return None if blob is None else _Kept.from_bytes(blob)
    except CodecError:
        return None


def _read_task(blob: bytes) -> tuple[Task, Message]:
    task = Task.from_bytes(blob)
    return task, task


def _read_roster(blob: bytes) -> tuple[Task, Message]:
    roster = read_roster(blob)
    if not roster.hellos:
        raise CodecError("a roster must name somebody")
    return roster.hellos[0].task, roster


def _read_survivors(blob: bytes) -> tuple[Task, Message]:
    survivors = Survivors.from_bytes(blob)
    return survivors.task, survivors


def _read_certificate(blob: bytes) -> tuple[Task, Message]:
    certificate = Certificate.from_bytes(blob)
    return certificate.survivors.task, certificate


STEPS: Mapping[str, tuple[Reader, Act]] = {
    "hello": (_read_task, MaskedSums.greet),
    "share": (_read_roster, MaskedSums.share),
    "confirm": (_read_survivors, MaskedSums.confirm),
    "unmask": (_read_certificate, MaskedSums.unmask),
}
"""Step of a masked sum -> how its request is read and answered."""


def _write(path: Path, blob: bytes) -> None:
    """Write a file for its owner's eyes that is there, whole, unless the power is cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.part")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(blob)
    partial.replace(path)


def _shred(path: Path) -> None:
    """Overwrite a file and remove it."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return
    with path.open("r+b") as file:
        file.write(bytes(size))
        file.flush()
        os.fsync(file.fileno())
    path.unlink()


def _now() -> int:
    return int(time.time())


def _sha256(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"
