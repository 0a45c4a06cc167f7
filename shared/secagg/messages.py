"""What coordinator and silos say to each other for one masked sum; the big vector aside.

Messages are values. Their bytes are canonical JSON, so equal messages are equal bytes and a
signature is over one spelling only; byte strings are written in base64.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, ClassVar, Self, get_args, get_origin, get_type_hints

from ..chain.canonical import MAX_INT, canonical_json
from ..errors import CodecError

DOMAIN = b"fondaco-masked-sum-v1"
MAX_ENTRIES = 1000
MAX_TEXT = 1024


class Message:
    """Base of all of them: bytes in, checked value out.

    Attributes:
        max_bytes: longer ones are not read.
    """

    max_bytes: ClassVar[int] = 1 << 24

    def to_bytes(self) -> bytes:
        """Return the message's one spelling."""
        return _spelled(_plain(self))

    @classmethod
    def from_bytes(cls, blob: bytes) -> Self:
        """Return the message in `blob`.

        Raises:
            CodecError: it is malformed, too big, or not in the one spelling.
        """
        if len(blob) > cls.max_bytes:
            raise CodecError(
                f"{len(blob)} bytes for one {cls.__name__} are more than {cls.max_bytes}"
            )
        try:
            raw = json.loads(blob)
        except (ValueError, RecursionError):
            raise CodecError(f"a {cls.__name__} must be JSON") from None
        message: Self = _read(raw, cls)
        if message.to_bytes() != blob:
            raise CodecError(f"a {cls.__name__} must be spelled canonically")
        return message


@dataclass(frozen=True, kw_only=True)
class Task(Message):
    """What is summed; part of every key and every signature.

    Attributes:
        run_id: drawn by the coordinator once per run.
        request: SHA-256 of the encoded `RoundRequest`, hence of the model sent to the silos.
        expires: after this nobody answers any more [s since 1970].
    """

    plan_digest: str
    run_id: str
    kind: str
    round_num: int
    attempt: int
    request: str
    expires: int

    @cached_property
    def digest(self) -> str:
        """Hash of all of it."""
        return digest_of("task", self.to_bytes())


@dataclass(frozen=True, kw_only=True)
class Hello(Message):
    """A silo's public keys for one task.

    Attributes:
        mask_key: X25519, for the masks it shares with each neighbour.
        share_key: X25519, for what others send it in secret.
        mask_kem: ML-KEM-768, likewise; empty without the hybrid.
        share_kem: ML-KEM-768, likewise.
        commitment: SHA-256 of the seed of its own mask, under a label.
        signature: of the silo's pinned identity over everything else.
    """

    task: Task
    silo_id: str
    mask_key: bytes
    share_key: bytes
    mask_kem: bytes
    share_kem: bytes
    commitment: bytes
    signature: bytes

    def signed_bytes(self) -> bytes:
        """Return what the signature is over."""
        raw = _plain(self)
        del raw["signature"]
        return signed("hello", _spelled(raw))


@dataclass(frozen=True, kw_only=True)
class Roster(Message):
    """Everybody who said hello, in the order of their ids."""

    hellos: tuple[Hello, ...]

    @cached_property
    def digest(self) -> str:
        """Hash of all of it: what the silos sign."""
        return digest_of("roster", self.to_bytes())

    @cached_property
    def by_silo(self) -> Mapping[str, Hello]:
        """Silo id -> its hello."""
        return {hello.silo_id: hello for hello in self.hellos}


@dataclass(frozen=True, kw_only=True)
class Shares(Message):
    """A silo's agreement to a roster, and its seeds' shares for their holders.

    Attributes:
        roster: digest.
        parcels: receiver -> sealed bytes (`parcels`); see `Terms.receivers`.
        mask_digests: holder, itself included -> SHA-256 of its share of the mask seed, so that
            a wrong one is told.
        self_digests: holder -> the same of the self seed.
        signature: over task, roster and silo.
    """

    silo_id: str
    roster: str
    parcels: Mapping[str, bytes]
    mask_digests: Mapping[str, bytes]
    self_digests: Mapping[str, bytes]
    signature: bytes


@dataclass(frozen=True, kw_only=True)
class Delivery(Message):
    """Who takes part, proved by signatures, and what they sent to the receiver.

    Attributes:
        participants: silo -> its signature over the roster.
        parcels: sender -> sealed bytes for this one receiver.
    """

    participants: Mapping[str, bytes]
    parcels: Mapping[str, bytes]


@dataclass(frozen=True, kw_only=True)
class Released(Message):
    """What goes along with masked numbers: `signature` over the participants' digest."""

    silo_id: str
    signature: bytes


@dataclass(frozen=True, kw_only=True)
class Survivors(Message):
    """Whose masked numbers are in the sum.

    Attributes:
        roster: digest.
        participants: their digest.
        silos: silo -> its signature over the participants among whom it masked its numbers.
    """

    task: Task
    roster: str
    participants: str
    silos: Mapping[str, bytes]

    @cached_property
    def digest(self) -> str:
        """Hash of all of it."""
        return digest_of("survivors", self.to_bytes())


@dataclass(frozen=True, kw_only=True)
class Confirmation(Message):
    """A silo's agreement to the survivors: `signature` over task and survivors."""

    silo_id: str
    signature: bytes


@dataclass(frozen=True, kw_only=True)
class Certificate(Message):
    """Survivors that enough silos have agreed to.

    Attributes:
        confirmations: silo -> its signature over task and survivors.
    """

    survivors: Survivors
    confirmations: Mapping[str, bytes]


@dataclass(frozen=True, kw_only=True)
class Unmasking(Message):
    """A survivor's one contribution to unmasking the sum.

    Attributes:
        self_seed: seed of its own mask.
        self_shares: other survivor -> share of the seed of that one's own mask.
        mask_shares: participant that is no survivor -> share of the seed of its mask key.
        pair_secrets: such a participant -> the post-quantum secret that the lower of the two sent
            the other, as this silo knows it.
    """

    silo_id: str
    self_seed: bytes
    self_shares: Mapping[str, bytes]
    mask_shares: Mapping[str, bytes]
    pair_secrets: Mapping[str, bytes]


def signed(label: str, *parts: bytes) -> bytes:
    """Return the bytes that a signature of this `label` is over: unambiguous in its parts."""
    framed = [len(part).to_bytes(8, "big") + part for part in (label.encode(), *parts)]
    return DOMAIN + b"".join(framed)


def digest_of(label: str, *parts: bytes) -> str:
    """Return the hash of parts under a `label`, as `sha256:...`."""
    return f"sha256:{hashlib.sha256(signed(label, *parts)).hexdigest()}"


def participants_digest(roster: str, silo_ids: tuple[str, ...]) -> str:
    """Return the digest of those of a roster that take part."""
    return digest_of("participants", roster.encode(), *(silo.encode() for silo in silo_ids))


@lru_cache(maxsize=8)
def read_roster(blob: bytes) -> Roster:
    """Return the roster in `blob`; silos of one process read it once.

    Raises:
        CodecError: it is malformed.
    """
    return Roster.from_bytes(blob)


def _spelled(raw: Mapping[str, Any]) -> bytes:
    """Return canonical JSON (RFC 8785); where all is ASCII, Python's order of keys is its order."""
    text = json.dumps(raw, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return (text if text.isascii() else canonical_json(raw)).encode()


def _plain(value: Any) -> Any:  # noqa: ANN401  (whatever JSON can say)
    if isinstance(value, str | int):
        return value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if isinstance(value, Message):
        return {name: _plain(getattr(value, name)) for name in _hints(type(value))}  # type: ignore[arg-type]
    return {name: _plain(part) for name, part in value.items()}


@lru_cache(maxsize=32)
def _hints(kind: type[Message]) -> dict[str, Any]:
    return {name: hint for name, hint in get_type_hints(kind).items() if name != "max_bytes"}


def _read(raw: Any, kind: Any) -> Any:  # noqa: ANN401  (JSON in, any field's type out)
    """Return a JSON value as `kind`: a message, text, number, bytes, or a list or map of those."""
    if get_origin(kind) is not None:
        return _read_many(raw, kind)
    if issubclass(kind, Message):
        hints = _hints(kind)
        if not isinstance(raw, dict) or raw.keys() != hints.keys():
            raise CodecError(f"a {kind.__name__} must hold exactly {sorted(hints)}")
        return kind(**{name: _read(raw[name], hint) for name, hint in hints.items()})
    if kind is bytes:
        return _read_bytes(raw)
    if type(raw) is not kind:
        raise CodecError(f"got a {type(raw).__name__}, expected a {kind.__name__}")
    if isinstance(raw, int) and not 0 <= raw <= MAX_INT:
        raise CodecError(f"{raw} must lie between 0 and {MAX_INT}")
    if isinstance(raw, str) and not (len(raw) <= MAX_TEXT and raw.isprintable()):
        raise CodecError(f"a text is longer than {MAX_TEXT} or holds odd characters")
    return raw


def _read_many(raw: Any, kind: Any) -> Any:  # noqa: ANN401
    if not isinstance(raw, list | dict) or len(raw) > MAX_ENTRIES:
        raise CodecError(f"expected at most {MAX_ENTRIES} entries")
    if get_origin(kind) is tuple and isinstance(raw, list):
        return tuple(_read(part, get_args(kind)[0]) for part in raw)
    if get_origin(kind) is Mapping and isinstance(raw, dict):
        return {_read(name, str): _read(part, get_args(kind)[1]) for name, part in raw.items()}
    raise CodecError(f"got a {type(raw).__name__} where another kind of list belongs")


def _read_bytes(raw: Any) -> bytes:  # noqa: ANN401
    try:
        return base64.b64decode(raw, validate=True)
    except (ValueError, TypeError):
        raise CodecError("expected base64") from None
