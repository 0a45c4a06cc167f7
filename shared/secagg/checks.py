"""What both ends hold every message against: the plan's terms and the pinned identities.

A refusal names what was wrong in one word (`RefusalError.code`), as the ledger writes it down.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

from ..chain.keys import PublicKey
from ..errors import RefusalError
from ..privacy.plan import Cohort, RunPlan
from .graph import holders, neighbours, share_threshold
from .keys import KEM_KEY, KEY, verified
from .messages import (
    Certificate,
    Hello,
    Roster,
    Survivors,
    Task,
    participants_digest,
    read_roster,
    signed,
)

LIFETIME_S = 24 * 3600
"""A task lives for a day at most: then its secrets are of no use to anybody."""
PRIME = 2**255 - 19
"""X25519 reads larger numbers as smaller ones: one key would have two spellings."""
SLACK_S = 300
"""How far clocks may be apart."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a plan says about its masked sums.

    Attributes:
        cohort: how many silos there are, must stay and may collude.
        identities: (silo id, pinned public key) of all silos.
        hybrid: whether ML-KEM-768 stands beside X25519.
        ring_bits: masked numbers are added modulo 2 to this.
    """

    plan_digest: str
    cohort: Cohort
    identities: tuple[tuple[str, PublicKey], ...]
    hybrid: bool
    ring_bits: int

    @classmethod
    def of_plan(cls, plan: RunPlan) -> "Terms":
        """Return the terms of a plan with masked sums."""
        keys = ((silo, PublicKey.from_text(text)) for silo, text in sorted(plan.roster.items()))
        return cls(
            plan_digest=plan.digest,
            cohort=plan.cohort,
            identities=tuple(keys),
            hybrid=plan.key_agreement == "x25519-mlkem768",
            ring_bits=plan.ring_bits,
        )

    @cached_property
    def by_silo(self) -> Mapping[str, PublicKey]:
        """Silo id -> pinned public key."""
        return dict(self.identities)

    @cached_property
    def share_threshold(self) -> int:
        """Shares that give a seed back."""
        return share_threshold(self.cohort)

    def neighbours(self, roster: Roster) -> Mapping[str, frozenset[str]]:
        """Return with whom everybody shares masks."""
        return neighbours(tuple(roster.by_silo), self.cohort, roster.digest)

    def holders(self, roster: Roster) -> Mapping[str, frozenset[str]]:
        """Return who holds shares of everybody's seeds, beside itself."""
        return holders(tuple(roster.by_silo), self.cohort, roster.digest)

    def receivers(self, roster: Roster, silo_id: str) -> frozenset[str]:
        """Return to whom a silo sends a parcel: who holds its seeds or needs a secret of it."""
        higher = {s for s in self.neighbours(roster)[silo_id] if s > silo_id}
        return self.holders(roster)[silo_id] | (higher if self.hybrid else set())

    def require_signed(self, silo_id: str, signature: bytes, message: bytes) -> None:
        """Refuse what the pinned identity of `silo_id` has not signed.

        Raises:
            RefusalError: the silo is not in the plan, or the signature is another's.
        """
        key = self.by_silo.get(silo_id)
        if key is None:
            raise RefusalError(f"{silo_id!r:.80} is not in the plan's roster", "unknown-silo")
        if not verified(key, signature, message):
            raise RefusalError(f"{silo_id} did not sign this with its pinned key", "bad-signature")


def check_task(task: Task, terms: Terms, now: int) -> None:
    """Refuse a task of another plan, or out of its time.

    Raises:
        RefusalError: saying which.
    """
    if task.plan_digest != terms.plan_digest:
        raise RefusalError("the task is about another plan", "other-plan")
    require_in_time(task, now)
    if task.expires > now + LIFETIME_S + SLACK_S:
        left = task.expires - now
        raise RefusalError(f"the task ends in {left} s, {LIFETIME_S} s are the most", "late")


def require_in_time(task: Task, now: int) -> None:
    """Refuse whatever comes after the task has ended.

    Raises:
        RefusalError: it has.
    """
    if now > task.expires:
        ago = now - task.expires
        text = f"{task.kind} of round {task.round_num} ended {ago} s ago; try a new attempt"
        raise RefusalError(text, "late")


def check_hello(hello: Hello, task: Task, terms: Terms) -> None:
    """Refuse a hello for another task, unsigned, or with keys of the wrong make.

    Raises:
        RefusalError: saying which.
    """
    if hello.task != task:
        raise RefusalError(f"{hello.silo_id} said hello for another task", "other-request")
    terms.require_signed(hello.silo_id, hello.signature, hello.signed_bytes())
    kem = KEM_KEY if terms.hybrid else 0
    sizes = [len(part) for part in (hello.mask_key, hello.share_key, hello.commitment)]
    if sizes != [KEY, KEY, KEY] or [len(hello.mask_kem), len(hello.share_kem)] != [kem, kem]:
        text = f"keys of {hello.silo_id} have not the lengths of the plan's key agreement"
        raise RefusalError(text, "bad-key")
    if any(int.from_bytes(key, "little") >= PRIME for key in (hello.mask_key, hello.share_key)):
        text = f"a key of {hello.silo_id} is not below 2^255 - 19, so it has another spelling"
        raise RefusalError(text, "bad-key")


@lru_cache(maxsize=8)
def checked_roster(blob: bytes, task: Task, terms: Terms) -> Roster:
    """Return the roster in `blob`; silos of one process check it once.

    Raises:
        CodecError: it is malformed.
        RefusalError: a hello does not hold, two are alike, or they are too few.
    """
    roster = read_roster(blob)
    for hello in roster.hellos:
        check_hello(hello, task, terms)
    silos = [hello.silo_id for hello in roster.hellos]
    if silos != sorted(set(silos)):
        raise RefusalError("the roster names a silo twice or is out of order", "other-roster")
    require_quorum(len(silos), terms)
    keys = [key for h in roster.hellos for key in (h.mask_key, h.share_key)]
    if len(set(keys)) < len(keys):
        raise RefusalError("two public keys of the roster are the same", "duplicate-key")
    return roster


def require_quorum(n: int, terms: Terms) -> None:
    """Refuse to go on with fewer silos than the plan's noise and threshold need.

    Raises:
        RefusalError: they are too few.
    """
    least = max(terms.cohort.n_min, terms.cohort.threshold)
    if n < least:
        raise RefusalError(f"{n} silos are too few, the plan needs {least}", "too-few")


def agreement(task: Task, roster: str, silo_id: str) -> bytes:
    """Return what a silo signs to agree to a roster's digest."""
    return signed("agree", task.digest.encode(), roster.encode(), silo_id.encode())


def checked_participants(
    signatures: Mapping[str, bytes], task: Task, roster: Roster, terms: Terms
) -> tuple[str, ...]:
    """Return who takes part, proved by signatures over this very roster.

    Raises:
        RefusalError: somebody is not in it or did not sign it, or they are too few.
    """
    for silo_id, signature in signatures.items():
        if silo_id not in roster.by_silo:
            raise RefusalError(f"{silo_id!r:.80} is not in the roster", "unknown-silo")
        terms.require_signed(silo_id, signature, agreement(task, roster.digest, silo_id))
    require_quorum(len(signatures), terms)
    return tuple(sorted(signatures))


def check_survivors(
    survivors: Survivors,
    task: Task,
    roster: str,
    participants: tuple[str, ...],
    terms: Terms,
) -> None:
    """Refuse survivors of another roster, too few, or who masked among other participants.

    Without the last, a coordinator could name others to one silo, and unmask it alone.

    Raises:
        RefusalError: saying which.
    """
    wanted = task, roster, participants_digest(roster, participants)
    if (survivors.task, survivors.roster, survivors.participants) != wanted:
        raise RefusalError("these are survivors of another round", "other-roster")
    if not survivors.silos.keys() <= set(participants):
        raise RefusalError("survivors must be participants", "unknown-silo")
    for silo_id, signature in survivors.silos.items():
        message = released(survivors.participants, silo_id)
        terms.require_signed(silo_id, signature, message)
    require_quorum(len(survivors.silos), terms)


def released(participants: str, silo_id: str) -> bytes:
    """Return what a silo signs with its masked numbers: among whom their masks cancel."""
    return signed("released", participants.encode(), silo_id.encode())


def confirmation(survivors: Survivors) -> bytes:
    """Return what a silo signs to agree to survivors."""
    return signed("confirm", survivors.digest.encode())


def check_certificate(certificate: Certificate, terms: Terms) -> None:
    """Refuse survivors that too few of them have agreed to.

    Two different certificates would need a silo that signed both: more than may collude.

    Raises:
        RefusalError: a signature is not a survivor's, or they are too few.
    """
    survivors, signatures = certificate.survivors, certificate.confirmations
    message = confirmation(survivors)
    for silo_id, signature in signatures.items():
        if silo_id not in survivors.silos:
            raise RefusalError(f"{silo_id!r:.80} is no survivor", "unknown-silo")
        terms.require_signed(silo_id, signature, message)
    if len(signatures) < terms.cohort.threshold:
        raise RefusalError(
            f"{len(signatures)} silos confirmed the survivors, {terms.cohort.threshold} must",
            "too-few",
        )
