"""What one silo sends another in secret, and the key of their common mask.

A parcel holds a holder's shares of the sender's two seeds. With the hybrid it starts with an
ML-KEM ciphertext, and that of the lower silo ends with a secret for their mask and its digest: the
sender's own, which follows from its mask seed, sealed under the mask keys of both. Whoever gets the
seed of either one back can therefore compute the mask.
"""

from dataclasses import dataclass

from ..errors import RefusalError
from .keys import (
    KEM_TEXT,
    KEY,
    SEALED,
    SEED,
    KeyPair,
    Secrets,
    derive,
    encapsulate,
    seal,
    secret_digest,
    unseal,
)
from .messages import Hello, Roster, Task

SHARES = 2 * SEED
UNSOUND = "sent no sound secret for a common mask"
_MASK_PART = KEM_TEXT + KEY + SEALED + KEY


@dataclass(frozen=True, kw_only=True)
class Route:
    """From whom to whom, in which round; part of every key."""

    task: Task
    roster: Roster
    sender: str
    receiver: str

    @property
    def hellos(self) -> tuple[Hello, Hello]:
        """What sender and receiver said."""
        return self.roster.by_silo[self.sender], self.roster.by_silo[self.receiver]

    @property
    def context(self) -> tuple[bytes, ...]:
        """What a key for this way depends on."""
        return _context(self.task, self.roster.digest, self.sender, self.receiver)


@dataclass(frozen=True, kw_only=True)
class SharePair:
    """Both shares in a parcel."""

    mask_share: bytes
    self_share: bytes


def pack(route: Route, secrets: Secrets, shares: SharePair | None) -> bytes:
    """Return a parcel of the sender, who drew `secrets`.

    Args:
        route: from whom to whom.
        secrets: the sender's.
        shares: None for a receiver that holds none.

    Raises:
        RefusalError: a public key of the receiver is not sound.
    """
    receiver, parcel = route.hellos[1], b""
    if shares is not None:
        secret, parcel = encapsulate(receiver.share_kem)
        agreed = secrets.share_keys.exchange(receiver.share_key) + secret
        key = derive(agreed, "parcel", *route.context)
        parcel += seal(key, shares.mask_share + shares.self_share)
    if not receiver.mask_kem or route.sender > route.receiver:
        return parcel
    secret, text = encapsulate(receiver.mask_kem)
    agreed = secrets.mask_keys.exchange(receiver.mask_key) + secret
    key = derive(agreed, "mask parcel", *route.context)
    own = post_quantum_secret(route, secrets.mask_seed)
    return parcel + text + seal(key, own) + secret_digest(own)


def parcel_size(*, hybrid: bool, upward: bool, holds: bool) -> int:
    """Return the length of a sound parcel [bytes].

    Args:
        hybrid: whether ML-KEM stands beside X25519.
        upward: whether it goes from the lower to the higher silo.
        holds: whether the receiver holds shares.
    """
    shares = hybrid * KEM_TEXT + SHARES + SEALED
    return holds * shares + (hybrid and upward) * _MASK_PART


def unpack(route: Route, keys: KeyPair, parcel: bytes) -> SharePair | None:
    """Return the receiver's shares, None if the sender sent nothing sound.

    Raises:
        RefusalError: a public key of the sender is not sound.
    """
    start = KEM_TEXT if keys.kem else 0
    text, sealed = parcel[:start], parcel[start : start + SHARES + SEALED]
    if len(sealed) != SHARES + SEALED:
        return None
    agreed = keys.exchange(route.hellos[0].share_key) + keys.decapsulate(text)
    told = unseal(derive(agreed, "parcel", *route.context), sealed)
    if told is None:
        return None
    return SharePair(mask_share=told[:SEED], self_share=told[SEED:])


def post_quantum_secret(route: Route, mask_seed: bytes) -> bytes:
    """Return what the lower silo adds to the common mask's key; follows from its mask seed."""
    return derive(mask_seed, "pair secret", *route.context)


def unpack_mask_secret(route: Route, keys: KeyPair, parcel: bytes) -> bytes:
    """Return the same at the receiver.

    Raises:
        RefusalError: the sender sent nothing sound; without it the masks would not cancel.
    """
    rest = parcel[-_MASK_PART:]
    if len(rest) == _MASK_PART:
        sender = route.hellos[0].mask_key
        agreed = keys.exchange(sender) + keys.decapsulate(rest[:KEM_TEXT])
        told = unseal(derive(agreed, "mask parcel", *route.context), rest[KEM_TEXT:-KEY])
        if told is not None and secret_digest(told) == rest[-KEY:]:
            return told
    raise RefusalError(f"{route.sender} {UNSOUND}", "bad-parcel")


def pair_key(
    route: Route, keys: KeyPair, other: str, participants: str, post_quantum: bytes
) -> bytes:
    """Return the key of the mask that a silo shares with `other`, either one's.

    Args:
        route: from the lower to the higher of the two.
        keys: the mask keys of one of them.
        other: the one whose keys these are not.
        participants: digest.
        post_quantum: the lower one's secret, empty without the hybrid.

    Raises:
        RefusalError: the other's public key is not sound.
    """
    agreed = keys.exchange(route.roster.by_silo[other].mask_key) + post_quantum
    return derive(agreed, "pair mask", *route.context, participants.encode())


def self_key(task: Task, roster: str, silo_id: str, self_seed: bytes, participants: str) -> bytes:
    """Return the key of a silo's own mask."""
    context = _context(task, roster, silo_id, silo_id)
    return derive(self_seed, "self mask", *context, participants.encode())


def _context(task: Task, roster: str, *silo_ids: str) -> tuple[bytes, ...]:
    return tuple(part.encode() for part in (task.digest, roster, *silo_ids))
