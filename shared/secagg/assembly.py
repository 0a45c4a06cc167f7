"""The coordinator's side of a masked sum: who is in it, and the sum without its masks.

Nothing here reads a clock, a file or a socket. The coordinator is trusted with nothing: whatever
it puts together is checked by the silos.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import RefusalError
from .checks import (
    Terms,
    agreement,
    check_certificate,
    check_hello,
    checked_participants,
    confirmation,
    released,
)
from .keys import (
    KEY,
    SEED,
    KeyPair,
    commitment,
    encapsulate,
    mask_keys_of,
    secret_digest,
    share_digest,
)
from .masks import add_masks, from_ring
from .messages import (
    Certificate,
    Confirmation,
    Delivery,
    Hello,
    Released,
    Roster,
    Shares,
    Survivors,
    Task,
    Unmasking,
    participants_digest,
)
from .parcels import Route, pair_key, parcel_size, post_quantum_secret, self_key, unpack_mask_secret
from .sharing import LostSeedError, combine

__all__ = [
    "Agreed",
    "agreed",
    "certificate",
    "check_confirmation",
    "check_greeting",
    "check_released",
    "check_shares",
    "deliveries",
    "make_roster",
    "survivors_of",
    "unmasked",
]

_PROBE = mask_keys_of(bytes(SEED), hybrid=False)
"""Nobody's keys: whatever fails with them fails with everybody's."""


@dataclass(frozen=True, kw_only=True)
class Agreed:
    """A roster, those who signed it and the parcels that they sent.

    Attributes:
        shares: participant -> what it said.
    """

    task: Task
    roster: Roster
    shares: Mapping[str, Shares]

    @property
    def participants(self) -> tuple[str, ...]:
        """Who takes part, in the order of their ids."""
        return tuple(sorted(self.shares))

    @property
    def digest(self) -> str:
        """Of the participants."""
        return participants_digest(self.roster.digest, self.participants)


def check_greeting(hello: Hello, task: Task, terms: Terms) -> None:
    """Refuse a hello that would spoil the roster for everybody else.

    Raises:
        RefusalError: it is for another task, unsigned, or has a key that hides nothing.
    """
    check_hello(hello, task, terms)
    _PROBE.exchange(hello.mask_key)
    _PROBE.exchange(hello.share_key)
    encapsulate(hello.mask_kem)
    encapsulate(hello.share_kem)


def make_roster(hellos: Iterable[Hello]) -> Roster:
    """Return the roster of all who said hello; of two with the same key, neither."""
    known = {hello.silo_id: hello for hello in hellos}
    keys = [key for hello in known.values() for key in (hello.mask_key, hello.share_key)]
    alone = [
        hello
        for _, hello in sorted(known.items())
        if keys.count(hello.mask_key) == keys.count(hello.share_key) == 1
    ]
    return Roster(hellos=tuple(alone))


def check_shares(shares: Shares, task: Task, roster: Roster, terms: Terms) -> None:
    """Refuse shares of another roster, or that are not for exactly those who should get them.

    Raises:
        RefusalError: saying which.
    """
    if shares.roster != roster.digest or shares.silo_id not in roster.by_silo:
        raise RefusalError(f"{shares.silo_id} agreed to another roster", "other-roster")
    message = agreement(task, roster.digest, shares.silo_id)
    terms.require_signed(shares.silo_id, shares.signature, message)
    me, holders = shares.silo_id, terms.holders(roster)[shares.silo_id]
    if shares.parcels.keys() != terms.receivers(roster, me):
        raise RefusalError(f"{me} did not share with all it should", "bad-parcel")
    for silo, parcel in shares.parcels.items():
        size = parcel_size(hybrid=terms.hybrid, upward=me < silo, holds=silo in holders)
        if len(parcel) != size:
            raise RefusalError(f"{me} sent {len(parcel)} bytes to {silo}, not {size}", "bad-parcel")
    digests = [*shares.mask_digests.values(), *shares.self_digests.values()]
    named = shares.mask_digests.keys() == shares.self_digests.keys() == {*holders, me}
    if not named or {len(digest) for digest in digests} != {KEY}:
        raise RefusalError(f"{shares.silo_id} did not publish digests of all shares", "bad-parcel")


def agreed(task: Task, roster: Roster, shares: Iterable[Shares], terms: Terms) -> Agreed:
    """Return the participants: all who agreed to the roster.

    Raises:
        RefusalError: they are too few.
    """
    by_silo = {said.silo_id: said for said in shares}
    signatures = {silo: said.signature for silo, said in by_silo.items()}
    checked_participants(signatures, task, roster, terms)
    return Agreed(task=task, roster=roster, shares=by_silo)


def deliveries(known: Agreed) -> dict[str, Delivery]:
    """Return what each participant is told: who takes part, and the parcels for it."""
    signatures = {silo: said.signature for silo, said in known.shares.items()}
    return {
        silo: Delivery(
            participants=signatures,
            parcels={
                sender: said.parcels[silo]
                for sender, said in known.shares.items()
                if silo in said.parcels
            },
        )
        for silo in known.participants
    }


def check_released(said: Released, known: Agreed, terms: Terms) -> None:
    """Refuse masked numbers whose masks are not among these participants.

    Raises:
        RefusalError: their silo did not sign that.
    """
    terms.require_signed(said.silo_id, said.signature, released(known.digest, said.silo_id))


def survivors_of(known: Agreed, silos: Mapping[str, bytes]) -> Survivors:
    """Return the message that names whose numbers are in the sum.

    Args:
        known: the participants.
        silos: survivor -> the signature that came with its numbers.
    """
    return Survivors(
        task=known.task,
        roster=known.roster.digest,
        participants=known.digest,
        silos=silos,
    )


def check_confirmation(said: Confirmation, survivors: Survivors, terms: Terms) -> None:
    """Refuse a confirmation of anything else.

    Raises:
        RefusalError: it is not signed by its silo, or not over these survivors.
    """
    terms.require_signed(said.silo_id, said.signature, confirmation(survivors))


def certificate(survivors: Survivors, said: Iterable[Confirmation], terms: Terms) -> Certificate:
    """Return the survivors with everybody's signatures.

    Raises:
        RefusalError: they are too few.
    """
    signatures = {each.silo_id: each.signature for each in said}
    made = Certificate(survivors=survivors, confirmations=signatures)
    check_certificate(made, terms)
    return made


def unmasked(
    total: NDArray[np.unsignedinteger],
    known: Agreed,
    survivors: Survivors,
    answers: Mapping[str, Unmasking],
    terms: Terms,
) -> NDArray[np.int64]:
    """Return the sum of the survivors' numbers; `total` is changed in place.

    Args:
        total: (dim,) sum of the survivors' masked numbers, modulo 2^32 or 2^64.
        known: the participants.
        survivors: whose numbers are in the total.
        answers: survivor -> its answer.
        terms: the plan's.

    Raises:
        LostSeedError: too few answered, or somebody had not shared out what it published.
    """
    alive = frozenset(survivors.silos)
    keys = [(_own_key(silo, known, answers, terms), -1) for silo in sorted(alive)]
    for dropped in sorted(set(known.participants) - alive):
        keys += _common_keys(dropped, alive, known, answers, terms)
    add_masks(total, keys)
    return from_ring(total, terms.ring_bits)


def _own_key(silo: str, known: Agreed, answers: Mapping[str, Unmasking], terms: Terms) -> bytes:
    """Return the key of a survivor's own mask: it tells the seed itself, if it is still there."""
    published = known.roster.by_silo[silo].commitment

    def fits(seed: bytes) -> bool:
        return commitment(seed) == published

    seed = answers[silo].self_seed if silo in answers else b""
    if not fits(seed):
        told = {holder: said.self_shares.get(silo, b"") for holder, said in answers.items()}
        shares = _sound("self", told, known.shares[silo].self_digests)
        seed = combine(shares, terms.share_threshold, fits, silo)
    return self_key(known.task, known.roster.digest, silo, seed, known.digest)


def _common_keys(
    dropped: str,
    alive: frozenset[str],
    known: Agreed,
    answers: Mapping[str, Unmasking],
    terms: Terms,
) -> list[tuple[bytes, int]]:
    """Return the keys of a silent participant's masks with the survivors, signs turned around."""
    published = known.roster.by_silo[dropped]

    def fits(seed: bytes) -> bool:
        public = mask_keys_of(seed, hybrid=terms.hybrid).public()
        return public == (published.mask_key, published.mask_kem)

    told = {holder: said.mask_shares.get(dropped, b"") for holder, said in answers.items()}
    shares = _sound("mask", told, known.shares[dropped].mask_digests)
    seed = combine(shares, terms.share_threshold, fits, dropped)
    keys = mask_keys_of(seed, hybrid=terms.hybrid)
    chosen = []
    for peer in sorted(terms.neighbours(known.roster)[dropped] & alive):
        low, high = sorted((dropped, peer))
        route = Route(task=known.task, roster=known.roster, sender=low, receiver=high)
        extra = b""
        if terms.hybrid:
            told_by_peer = answers[peer].pair_secrets.get(dropped, b"") if peer in answers else b""
            own = post_quantum_secret(route, seed) if dropped == low else b""
            extra = _published_secret((told_by_peer, own), route, keys, known)
        key = pair_key(route, keys, peer, known.digest, extra)
        chosen.append((key, 1 if dropped < peer else -1))
    return chosen


def _published_secret(told: Iterable[bytes], route: Route, keys: KeyPair, known: Agreed) -> bytes:
    """Return the secret of a mask that is the published one, whoever tells it.

    Raises:
        LostSeedError: nobody does.
    """
    parcel = known.shares[route.sender].parcels[route.receiver]
    for secret in told:
        if secret_digest(secret) == parcel[-KEY:]:
            return secret
    try:
        return unpack_mask_secret(route, keys, parcel)
    except RefusalError as error:
        text = f"the secret of {route.sender} with {route.receiver} is lost"
        raise LostSeedError(text, route.sender) from error


def _sound(label: str, told: Mapping[str, bytes], digests: Mapping[str, bytes]) -> dict[int, bytes]:
    """Return the shares that are what was published, by their holders' places."""
    places = {holder: place for place, holder in enumerate(sorted(digests))}
    return {
        places[holder]: share
        for holder, share in told.items()
        if digests.get(holder) == share_digest(label, holder, share) and len(share) == SEED
    }
