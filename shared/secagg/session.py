"""One silo's side of a masked sum: each step takes a session and gives the next one.

Nothing here reads a clock, a file or a socket; time comes in as `now`, and whoever calls keeps
the session (`Session.to_bytes`) between the steps. What holds for every input:

1. A session has one task, one roster, one set of participants, one of survivors, one answer.
2. It goes on only with at least `n_min` silos, all proved by their pinned identities to have
   agreed to the same roster: the same task, keys and model.
3. Its masks depend on all of that. Silos that were told different things share no mask.
4. It gives either the share of a silo's own mask, if that one survived, or of its mask keys, if
   not; and only for survivors to which at least `threshold` silos have agreed.
5. After its answer its secrets are gone.

Source: Bonawitz et al. 2017, with the consistency check of its active variant.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..chain.keys import Identity
from ..errors import RefusalError
from .checks import (
    Terms,
    agreement,
    check_certificate,
    check_survivors,
    check_task,
    checked_participants,
    checked_roster,
    confirmation,
    require_in_time,
)
from .keys import Secrets, commitment, share_digest
from .messages import (
    Certificate,
    Confirmation,
    Delivery,
    Hello,
    Message,
    Roster,
    Shares,
    Survivors,
    Task,
    Unmasking,
    participants_digest,
)
from .parcels import (
    Route,
    SharePair,
    pack,
    pair_key,
    post_quantum_secret,
    self_key,
    unpack,
    unpack_mask_secret,
)
from .sharing import split


@dataclass(frozen=True, kw_only=True)
class Session(Message):
    """What a silo knows of one masked sum between its steps.

    Attributes:
        hello: what it said; names the task and the silo.
        secrets: what it drew; seeds are empty once they are wiped.
        roster: the bytes of the roster that it agreed to, empty before.
        participants: who takes part, empty before it was told.
        mask_shares: whose seeds this silo holds -> share of that one's mask seed.
        self_shares: likewise -> share of that one's self seed.
        pair_secrets: lower peer -> the post-quantum secret that it sent for the common mask.
        survivors: that it confirmed, empty before.
    """

    hello: Hello
    secrets: Secrets
    roster: bytes = b""
    participants: tuple[str, ...] = ()
    mask_shares: Mapping[str, bytes] = field(default_factory=dict)
    self_shares: Mapping[str, bytes] = field(default_factory=dict)
    pair_secrets: Mapping[str, bytes] = field(default_factory=dict)
    survivors: tuple[str, ...] = ()

    @property
    def task(self) -> Task:
        """What is summed."""
        return self.hello.task

    @property
    def silo_id(self) -> str:
        """Whose session it is."""
        return self.hello.silo_id

    @property
    def wiped(self) -> bool:
        """Whether its secrets are gone."""
        return not self.secrets.mask_seed


@dataclass(frozen=True, kw_only=True)
class Masks:
    """Keystreams that go over a silo's numbers.

    Attributes:
        keys: (key, +1 to add or -1 to subtract), each for this one sum only.
        participants: digest of the silos among whom they cancel.
    """

    keys: tuple[tuple[bytes, int], ...]
    participants: str


def begin(task: Task, terms: Terms, silo_id: str, identity: Identity, now: int) -> Session:
    """Return a session with fresh keys for `task`.

    Raises:
        RefusalError: the task is about another plan, or not of now.
    """
    check_task(task, terms, now)
    secrets = Secrets.fresh(hybrid=terms.hybrid)
    mask_key, mask_kem = secrets.mask_keys.public()
    share_key, share_kem = secrets.share_keys.public()
    hello = Hello(
        task=task,
        silo_id=silo_id,
        mask_key=mask_key,
        share_key=share_key,
        mask_kem=mask_kem,
        share_kem=share_kem,
        commitment=commitment(secrets.self_seed),
        signature=b"",
    )
    signature = identity.sign(hello.signed_bytes())
    hello = replace(hello, signature=signature)
    return Session(hello=hello, secrets=secrets)


def share(
    session: Session, blob: bytes, terms: Terms, identity: Identity, now: int
) -> tuple[Session, Shares]:
    """Agree to the roster in `blob` and share the session's seeds among their holders.

    Raises:
        CodecError: it is malformed.
        RefusalError: it is not sound, names other keys for this silo, or another was agreed to.
    """
    _require(session, now, not session.roster, "a roster was agreed to before", "other-roster")
    roster = checked_roster(blob, session.task, terms)
    if roster.by_silo.get(session.silo_id) != session.hello:
        raise RefusalError("the roster has other keys for this silo", "other-roster")
    me, secrets, threshold = session.silo_id, session.secrets, terms.share_threshold
    holders = sorted({*terms.holders(roster)[me], me})
    of_mask, of_self = (
        split(seed, threshold, len(holders)) for seed in (secrets.mask_seed, secrets.self_seed)
    )
    shares = {
        silo: SharePair(mask_share=mask, self_share=own)
        for silo, mask, own in zip(holders, of_mask, of_self, strict=True)
    }
    parcels = {
        silo: pack(_route(session, roster, silo), secrets, shares.get(silo))
        for silo in terms.receivers(roster, me)
    }
    signature = identity.sign(agreement(session.task, roster.digest, session.silo_id))
    said = Shares(
        silo_id=session.silo_id,
        roster=roster.digest,
        parcels=parcels,
        mask_digests={s: share_digest("mask", s, each.mask_share) for s, each in shares.items()},
        self_digests={s: share_digest("self", s, each.self_share) for s, each in shares.items()},
        signature=signature,
    )
    return replace(session, roster=blob), said


def deliver(session: Session, delivery: Delivery, terms: Terms, now: int) -> tuple[Session, Masks]:
    """Take others' shares and return this silo's masks among the participants.

    Shares that cannot be opened are as good as none: their sender has one holder less. A common
    mask's secret that cannot be opened (hybrid) ends the step: the masks would not cancel.

    Raises:
        RefusalError: somebody has not signed the roster, too few take part, this silo does not,
            it was told of other participants before, or a mask's secret is not sound.
    """
    _require(session, now, bool(session.roster), "no roster was agreed to", "out-of-order")
    roster = checked_roster(session.roster, session.task, terms)
    participants = checked_participants(delivery.participants, session.task, roster, terms)
    if session.silo_id not in participants:
        raise RefusalError("this silo is not among the participants", "not-a-survivor")
    if session.participants not in ((), participants):
        raise RefusalError("there were other participants before", "other-roster")
    session = replace(session, participants=participants)
    keys, told, pair_secrets = session.secrets, {}, {}
    holds, peers = terms.holders(roster)[session.silo_id], _peers(session, roster, terms)
    for silo in set(participants) - {session.silo_id}:
        route = _route(session, roster, silo, back=True)
        parcel = delivery.parcels.get(silo, b"")
        if silo in holds:
            told[silo] = unpack(route, keys.share_keys, parcel)
        if terms.hybrid and silo in peers and silo < session.silo_id:
            pair_secrets[silo] = unpack_mask_secret(route, keys.mask_keys, parcel)
    sound = {silo: shares for silo, shares in told.items() if shares}
    session = replace(
        session,
        mask_shares={silo: shares.mask_share for silo, shares in sound.items()},
        self_shares={silo: shares.self_share for silo, shares in sound.items()},
        pair_secrets=pair_secrets,
    )
    return session, _masks(session, roster, terms)


def confirm(
    session: Session, survivors: Survivors, terms: Terms, identity: Identity, now: int
) -> tuple[Session, Confirmation]:
    """Agree to the survivors.

    Raises:
        RefusalError: they are not of this round, too few, without this silo, or others were
            agreed to before.
    """
    ready = bool(session.participants)
    _require(session, now, ready, "nobody was told to take part", "out-of-order")
    roster = checked_roster(session.roster, session.task, terms)
    check_survivors(survivors, session.task, roster.digest, session.participants, terms)
    if session.silo_id not in survivors.silos:
        raise RefusalError("this silo's numbers are not in the sum", "not-a-survivor")
    silos = tuple(sorted(survivors.silos))
    if session.survivors not in ((), silos):
        raise RefusalError("other survivors were confirmed before", "other-survivors")
    signature = identity.sign(confirmation(survivors))
    said = Confirmation(silo_id=session.silo_id, signature=signature)
    return replace(session, survivors=silos), said


def unmask(
    session: Session, certificate: Certificate, terms: Terms, now: int
) -> tuple[Session, Unmasking]:
    """Give the one answer, and forget all secrets.

    Raises:
        RefusalError: other survivors were confirmed here, too few agreed to these, or this silo
            is none.
    """
    ready = bool(session.participants)
    _require(session, now, ready, "nobody was told to take part", "out-of-order")
    roster = checked_roster(session.roster, session.task, terms)
    check_survivors(certificate.survivors, session.task, roster.digest, session.participants, terms)
    silos = tuple(sorted(certificate.survivors.silos))
    if session.silo_id not in silos:
        raise RefusalError("this silo's numbers are not in the sum", "not-a-survivor")
    if session.survivors not in ((), silos):
        raise RefusalError("other survivors were confirmed before", "other-survivors")
    check_certificate(certificate, terms)
    alive = frozenset(silos)
    said = Unmasking(
        silo_id=session.silo_id,
        self_seed=session.secrets.self_seed,
        self_shares={silo: part for silo, part in session.self_shares.items() if silo in alive},
        mask_shares={silo: part for silo, part in session.mask_shares.items() if silo not in alive},
        pair_secrets=_told_secrets(session, roster, alive, terms),
    )
    return wipe(session), said


def wipe(session: Session) -> Session:
    """Return the session without a secret: what is left only tells which round it was."""
    secrets = replace(session.secrets, mask_seed=b"", self_seed=b"", share_seed=b"")
    return replace(session, secrets=secrets, mask_shares={}, self_shares={}, pair_secrets={})


def _require(session: Session, now: int, holds: bool, otherwise: str, code: str) -> None:
    require_in_time(session.task, now)
    if session.wiped:
        raise RefusalError("this round has been answered and its secrets are gone", "no-session")
    if not holds:
        raise RefusalError(otherwise, code)


def _route(session: Session, roster: Roster, other: str, *, back: bool = False) -> Route:
    sender, receiver = (other, session.silo_id) if back else (session.silo_id, other)
    return Route(task=session.task, roster=roster, sender=sender, receiver=receiver)


def _peers(session: Session, roster: Roster, terms: Terms) -> list[str]:
    """Return the participants with whom this silo shares masks."""
    near = terms.neighbours(roster)[session.silo_id]
    return sorted(near & frozenset(session.participants))


def _told_secrets(
    session: Session, roster: Roster, alive: frozenset[str], terms: Terms
) -> dict[str, bytes]:
    """Return the post-quantum secrets of this silo's masks with silent participants."""
    if not terms.hybrid:
        return {}
    told = {silo: part for silo, part in session.pair_secrets.items() if silo not in alive}
    for silo in _peers(session, roster, terms):
        if silo not in alive and session.silo_id < silo:
            route = _route(session, roster, silo)
            told[silo] = post_quantum_secret(route, session.secrets.mask_seed)
    return told


def _masks(session: Session, roster: Roster, terms: Terms) -> Masks:
    """Return the masks with every peer, and the silo's own."""
    me, task, secrets = session.silo_id, session.task, session.secrets
    digest = participants_digest(roster.digest, session.participants)
    own = self_key(task, roster.digest, me, secrets.self_seed, digest)
    chosen = [(own, 1)]
    for peer in _peers(session, roster, terms):
        route = _route(session, roster, peer, back=peer < me)
        extra = session.pair_secrets.get(peer, b"")
        if terms.hybrid and me < peer:
            extra = post_quantum_secret(route, secrets.mask_seed)
        key = pair_key(route, secrets.mask_keys, peer, digest, extra)
        chosen.append((key, 1 if me < peer else -1))
    return Masks(keys=tuple(chosen), participants=digest)
