"""The rule of a witness, and what travels between coordinator and silos about their ledgers.

A witness remembers the newest head of everybody that it co-signed. It signs a newer one only if
that follows from the old, record by record, so whoever rolled a ledger back, forked or re-keyed
it finds no witness. The first head that a witness sees of somebody is taken as it is.
"""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import CodecError, LedgerError
from .canonical import canonical_json
from .keys import PublicKey
from .notes import Checkpoint, is_signed, parse_note
from .store import NOTHING, Record, check_links

MAX_BYTES = 1 << 26
MAX_LINES = 100_000


@dataclass(frozen=True, kw_only=True)
class Offer:
    """Somebody's newest head, to be co-signed.

    Attributes:
        note: the head, signed by its owner.
        since: number of records that the witness is believed to know.
        lines: the exported records after those.
    """

    note: str
    since: int = 0
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Call:
    """What the coordinator tells a silo about ledgers, beside any request.

    Attributes:
        since: number of the silo's own records that the coordinator has.
        note: the silo's newest known head with its witnesses' signatures, "" if there is none.
        lines: the silo's own records that it seems to have lost.
        offers: heads of others that it is asked to co-sign.
    """

    since: int = 0
    note: str = ""
    lines: tuple[str, ...] = ()
    offers: tuple[Offer, ...] = ()

    def to_bytes(self) -> bytes:
        """Return the call as canonical JSON."""
        return canonical_json(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, blob: bytes) -> "Call":
        """Return the call in `blob`; an empty one asks for nothing.

        Raises:
            CodecError: it is malformed.
        """
        if not blob:
            return cls()
        raw = _checked(blob, {"since": int, "note": str, "lines": list, "offers": list})
        wanted = {"note": str, "since": int, "lines": list}
        offers = [_typed(offer, wanted, "an offer") for offer in raw["offers"]]
        return cls(
            since=raw["since"],
            note=raw["note"],
            lines=_texts(raw["lines"]),
            offers=tuple(Offer(**{**o, "lines": _texts(o["lines"])}) for o in offers),
        )


@dataclass(frozen=True, kw_only=True)
class Testimony:
    """What a silo says about ledgers, beside any answer.

    Attributes:
        note: its own newest head, signed.
        lines: its own records after the call's `since`.
        cosigned: origin -> its signature line under the offered note.
        refused: origin -> size of the head that it knows and that the offered one does not follow.
    """

    note: str
    lines: tuple[str, ...] = ()
    cosigned: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return the testimony as canonical JSON."""
        return canonical_json(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, blob: bytes) -> "Testimony":
        """Return the testimony in `blob`.

        Raises:
            CodecError: it is malformed.
        """
        wanted = {"note": str, "lines": list, "cosigned": dict, "refused": dict}
        raw = _checked(blob, wanted)
        _texts(list(raw["cosigned"].values()))
        if not all(type(size) is int for size in raw["refused"].values()):
            raise CodecError("a refused head must come with the known size")
        return cls(**{**raw, "lines": _texts(raw["lines"])})


def check_offer(offer: Offer, known: Checkpoint | None, owner: PublicKey) -> Checkpoint:
    """Return the offered head if it follows from the `known` one.

    Raises:
        LedgerError: it is not the owner's, is older, or does not follow.
    """
    head, _ = parse_note(offer.note)
    if head.origin != owner.name or not is_signed(offer.note, owner):
        raise LedgerError(f"the head of {owner.name} was not signed by its pinned key")
    if known is None:
        if offer.lines and not offer.since:
            check_extension(offer.lines, Checkpoint(origin=owner.name, size=0, root=NOTHING), head)
        return head
    if head.size < known.size:
        raise LedgerError(f"{owner.name} had {known.size} records and now shows {head.size}")
    if not 0 <= offer.since <= known.size:
        raise LedgerError(f"{owner.name}: records after {known.size} are needed")
    check_extension(offer.lines[known.size - offer.since :], known, head)
    return head


def check_extension(lines: Sequence[str], known: Checkpoint, head: Checkpoint) -> None:
    """Check that `head` follows from `known` by exactly these records.

    Raises:
        LedgerError: it does not: the ledger was forked or edited.
    """
    try:
        records = [Record.from_line(line) for line in lines]
        hashes = check_links(records, known.size, known.root)
    except LedgerError:
        hashes = []
    if [known.root, *hashes][-1] != head.root or known.size + len(hashes) != head.size:
        raise LedgerError(f"{head.origin}: record {head.size} does not follow from {known.size}")


def known_heads(records: Iterable[Mapping[str, Any]]) -> dict[str, Checkpoint]:
    """Return the newest head of everybody that a ledger's COSIGN records name."""
    signed = (head for record in records if record["type"] == "COSIGN" for head in record["heads"])
    return {
        head["origin"]: Checkpoint(
            origin=head["origin"], size=head["size"], root=base64.b64decode(head["root"])
        )
        for head in signed
    }


def _checked(blob: bytes, wanted: Mapping[str, type]) -> dict[str, Any]:
    if len(blob) > MAX_BYTES:
        raise CodecError(f"{len(blob)} bytes about ledgers are more than {MAX_BYTES}")
    try:
        raw = json.loads(blob)
    except (ValueError, RecursionError):
        raise CodecError("what came about ledgers is no JSON") from None
    return _typed(raw, wanted, "what came about ledgers")


def _typed(raw: object, wanted: Mapping[str, type], what: str) -> dict[str, Any]:
    if not isinstance(raw, dict) or {k: type(v) for k, v in raw.items()} != wanted:
        raise CodecError(f"{what} must hold exactly {sorted(wanted)}")
    return raw


def _texts(values: Sequence[object]) -> tuple[str, ...]:
    if len(values) > MAX_LINES or not all(isinstance(value, str) for value in values):
        raise CodecError(f"a list about ledgers must hold texts, at most {MAX_LINES}")
    return tuple(str(value) for value in values)
