"""Canonical text, keys and signed notes, read strictly: one value has one spelling.

Written from the ledger's specification with code of its own, so that two implementations must
agree. Whatever decodes but would be written differently is refused: otherwise one byte could be
changed without changing what it says.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ..errors import LedgerError

DOMAIN = b"fondaco-ledger-v3\x00"
KEYROT_DOMAIN = b"fondaco-keyrot-v1\x00"
ZEROS = bytes(32)
COORDINATOR = "fondaco-coordinator"
SIGNED, COSIGNED = b"\x01", b"\x04"
MAX_INT = 2**53

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
_TIME = re.compile(r"2\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d(\+00:00|Z)")
_NUMBER = re.compile(r"\d{1,9}(/[1-9]\d{0,8}|(\.\d{1,20})?(e-?\d{1,2})?)", re.ASCII)
_SIGNATURE_LINE = re.compile(r"\u2014 (\S+) (\S+)")
_KEY_SIZE, _ID_SIZE, _SIGNATURE_SIZE, _TIME_SIZE = 32, 4, 64, 8


def canonical(value: object) -> str:
    """Return `value` as RFC 8785 writes it (keys by UTF-16 code units)."""
    text = _ENCODER.encode(value)
    if text.isascii():
        return text
    return json.dumps(_by_utf16(value), separators=(",", ":"), ensure_ascii=False)


def _by_utf16(value: object) -> object:
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: key.encode("utf-16-be", "surrogatepass"))
        return {key: _by_utf16(value[key]) for key in keys}
    return [_by_utf16(part) for part in value] if isinstance(value, list) else value


def strangers(value: object) -> Iterator[str]:
    """Yield what is neither text nor an integer that every reader reads alike."""
    if isinstance(value, dict):
        for part in value.values():
            yield from strangers(part)
    elif isinstance(value, list):
        for part in value:
            yield from strangers(part)
    elif type(value) is int:
        if abs(value) > MAX_INT:
            yield "an integer is beyond 2^53"
    elif type(value) is not str:
        yield f"{value!r} is neither text nor an integer"


def is_plain(value: object) -> bool:
    """Return whether `strangers` would find nothing, and quickly."""
    kind = type(value)
    if kind is str:
        return True
    if kind is int:
        return -MAX_INT <= value <= MAX_INT  # type: ignore[operator]
    if kind is dict:
        return all(map(is_plain, value.values()))  # type: ignore[attr-defined]
    return kind is list and all(map(is_plain, value))  # type: ignore[call-overload]


def digest_of(text: str) -> str:
    """Return the SHA-256 of a text as `sha256:...`."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def is_digest(text: object) -> bool:
    """Return whether `text` is `sha256:` and 64 small hex digits."""
    return isinstance(text, str) and _SHA256.fullmatch(text) is not None


def chain_hash(prev: bytes, body: bytes) -> bytes:
    """Return the hash of a record with the canonical `body` after the hash `prev`."""
    return hashlib.sha256(DOMAIN + prev + hashlib.sha256(body).digest()).digest()


def unbase64(text: str, size: int | None = None) -> bytes:
    """Return the bytes behind `text`.

    Raises:
        ValueError: another text means the same bytes, or they are not `size` many.
    """
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"{text[:20]!r} is not base64") from None
    if base64.b64encode(raw).decode() != text or (size is not None and len(raw) != size):
        raise ValueError(f"{text[:20]!r} is not base64 of {size} bytes as one would write it")
    return raw


def read_time(text: object) -> datetime:
    """Return the instant of an ISO text in UTC with seconds.

    Raises:
        ValueError: it is written in any other way.
    """
    if not isinstance(text, str):
        raise ValueError(f"{text!r} is no time")
    return _instant(text)


def read_number(text: str) -> Fraction:
    """Return the number written as a decimal or as "p/q", exactly.

    Raises:
        ValueError: it is no number, or one that nobody needs and few computers can hold.
    """
    if _NUMBER.fullmatch(text) is None:
        raise ValueError(f"{text:.40} is no number of a handy size")
    return Fraction(text)


@lru_cache(maxsize=64)
def _instant(text: str) -> datetime:
    if _TIME.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no time such as 2026-11-22T14:03:11+00:00")
    return datetime.fromisoformat(text).astimezone(UTC)


def origin_of(silo_id: str) -> str:
    """Return the name of a silo's key, which is also the origin of its ledger."""
    return f"fondaco/{quote(silo_id, safe='')}"


@dataclass(frozen=True)
class Key:
    """A public key with the name it was pinned under; `raw` is 32 bytes."""

    name: str
    raw: bytes

    @property
    def text(self) -> str:
        """The key as a C2SP verifier key."""
        material = SIGNED + self.raw
        return f"{self.name}+{self.key_id(SIGNED).hex()}+{base64.b64encode(material).decode()}"

    def key_id(self, algorithm: bytes) -> bytes:
        """Return the 4 bytes before a signature. Source: C2SP signed-note."""
        return _key_id(self.name, algorithm, self.raw)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Return whether `signature` is this key's, over `message`."""
        try:
            _loaded(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


@lru_cache(maxsize=4096)
def _key_id(name: str, algorithm: bytes, raw: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + algorithm + raw).digest()[:_ID_SIZE]


@lru_cache(maxsize=4096)
def _loaded(raw: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(raw)


def read_key(text: object) -> Key:
    """Return the key of a vkey text.

    Raises:
        ValueError: it is no Ed25519 verifier key, or its id belongs to another.
    """
    parts = text.split("+", 2) if isinstance(text, str) else []
    if len(parts) != 3 or not parts[0] or not parts[0].isprintable():  # noqa: PLR2004
        raise ValueError(f"{text!r} is no key such as name+id+base64")
    material = unbase64(parts[2], 1 + _KEY_SIZE)
    key = Key(parts[0], material[1:])
    if material[:1] != SIGNED or key.text != text:
        raise ValueError(f"{text!r} is no Ed25519 key, or its id belongs to another")
    return key


@dataclass(frozen=True)
class NoteLine:
    """One signature of a note: `stamp` is the 8-byte time of a cosignature, else empty."""

    name: str
    key_id: bytes
    stamp: bytes
    signature: bytes

    @property
    def time(self) -> int | None:
        """Unix time of a cosignature, None for a plain signature."""
        return int.from_bytes(self.stamp, "big") if self.stamp else None


@dataclass(frozen=True)
class Note:
    """A checkpoint: `origin` had `size` records, the newest with hash `root`."""

    origin: str
    size: int
    root: bytes
    text: str
    lines: tuple[NoteLine, ...]

    def verdict(self, key: Key, algorithm: bytes) -> bool | None:
        """Return whether `key` signed (or co-signed) this; None where no line claims it did.

        A line in the key's name and id whose signature is wrong makes it False, whatever the
        others say. Source: C2SP signed-note, verification.
        """
        verdicts = [
            key.verifies(line.signature, self._message(line))
            for line in self.lines
            if line.name == key.name
            and bool(line.stamp) == (algorithm == COSIGNED)
            and line.key_id == key.key_id(algorithm)
        ]
        return all(verdicts) if verdicts else None

    def _message(self, line: NoteLine) -> bytes:
        head = f"cosignature/v1\ntime {line.time}\n" if line.stamp else ""
        return (head + self.text).encode()


def read_note(text: str) -> Note:
    """Return the note written as `text`, its signatures not yet checked.

    Raises:
        ValueError: it is no checkpoint of three lines, a blank one and signatures.
    """
    head, blank, tail = text.partition("\n\n")
    lines = head.split("\n")
    if len(lines) != 3 or not blank or not tail.endswith("\n"):  # noqa: PLR2004
        raise ValueError("this is no checkpoint of three lines with signatures below")
    origin, size, root = lines
    if not re.fullmatch(r"0|[1-9]\d{0,15}", size, re.ASCII):
        raise ValueError(f"{size[:20]!r} is no number of records")
    signatures = tuple(_read_line(line) for line in tail[:-1].split("\n"))
    return Note(origin, int(size), unbase64(root, 32), f"{head}\n", signatures)


def _read_line(line: str) -> NoteLine:
    match = _SIGNATURE_LINE.fullmatch(line)
    if match is None:
        raise ValueError(f"{line[:40]!r} is no signature line of a note")
    raw = unbase64(match[2])
    key_id, rest = raw[:_ID_SIZE], raw[_ID_SIZE:]
    if len(rest) not in (_SIGNATURE_SIZE, _TIME_SIZE + _SIGNATURE_SIZE):
        raise ValueError(f"the signature of {match[1]!r} has {len(rest)} bytes")
    return NoteLine(match[1], key_id, rest[:-_SIGNATURE_SIZE], rest[-_SIGNATURE_SIZE:])


def text_of(body: Mapping[str, Any], name: str) -> str:
    """Return the text under `name`, "" for anything else."""
    value = body.get(name)
    return value if isinstance(value, str) else ""


def int_of(body: Mapping[str, Any], name: str) -> int:
    """Return the integer under `name`, -1 for anything else."""
    value = body.get(name)
    return value if type(value) is int else -1


def unreadable(path: object, where: str, why: object) -> LedgerError:
    """Return the one-line error of a file that cannot be read on."""
    return LedgerError(f"{path} cannot be read at {where}: {why}")
