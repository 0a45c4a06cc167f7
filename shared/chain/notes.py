"""Signed notes and checkpoints of hash chains, as C2SP writes them.

A checkpoint says "the chain `origin` had `size` records and the hash `root`"; its owner signs
it, witnesses co-sign it with the time. `root` is the newest record's hash, not a Merkle root.
"""

import base64
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..errors import LedgerError
from .keys import COSIGNATURE, NOTE, Identity, PublicKey

MAX_NOTE = 64 * 1024
_LINE = re.compile(r"\u2014 (\S+) ([A-Za-z0-9+/]+={0,2})")
_TIMED = struct.Struct(">Q")
_COSIGNATURE_BYTES = 4 + _TIMED.size + 64


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The head of a chain.

    Attributes:
        origin: name of its owner's key.
        size: number of records.
        root: hash of the newest one, 32 bytes.
    """

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """Return what is signed. Source: C2SP tlog-checkpoint."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    def as_text(self) -> dict[str, str | int]:
        """Return the head as a record holds it."""
        root = base64.b64encode(self.root).decode()
        return {"origin": self.origin, "size": self.size, "root": root}

    def signed_by(self, owner: Identity) -> str:
        """Return the note with the owner's signature."""
        signature = owner.sign(self.text().encode())
        line = _line(owner.public.name, owner.public.key_id(NOTE) + signature)
        return f"{self.text()}\n{line}"


def parse_note(note: str) -> tuple[Checkpoint, list[tuple[str, bytes]]]:
    """Return a note's checkpoint and its (name, key id and signature) lines, unchecked.

    Raises:
        LedgerError: it is no checkpoint.
    """
    text, _, tail = note.partition("\n\n")
    try:
        note.encode()
        origin, size, root = text.split("\n")
        matches = [_LINE.fullmatch(line) for line in tail.split("\n") if line]
        lines = [(m[1], base64.b64decode(m[2], validate=True)) for m in matches if m]
        head = Checkpoint(origin=origin, size=int(size), root=base64.b64decode(root, validate=True))
    except ValueError as error:
        raise LedgerError(f"this is no checkpoint: {error}") from None
    sound = len(note) <= MAX_NOTE and len(lines) == len(matches) and len(head.root) == 32  # noqa: PLR2004
    if not sound or head.size < 1 or head.text() != f"{text}\n":
        raise LedgerError("this is no checkpoint of a ledger")
    return head, lines


def is_signed(note: str, owner: PublicKey) -> bool:
    """Return whether `owner` signed the note's checkpoint."""
    head, lines = parse_note(note)
    prefix, message = owner.key_id(NOTE), head.text().encode()
    return any(
        name == owner.name and blob[:4] == prefix and owner.verifies(blob[4:], message)
        for name, blob in lines
    )


def cosign(note: str, witness: Identity, time_s: int) -> str:
    """Return `witness`'s line for the note. Source: C2SP tlog-cosignature, v1.

    Args:
        note: of a checkpoint.
        witness: signs.
        time_s: seconds since 1970.
    """
    head, _ = parse_note(note)
    public, stamp = witness.public, _TIMED.pack(time_s)
    signature = witness.sign(_cosigned(head, time_s))
    return _line(public.name, public.key_id(COSIGNATURE) + stamp + signature)


def cosigners(note: str, keys: Iterable[PublicKey]) -> set[str]:
    """Return the names among `keys` whose cosignature stands under the note, checked."""
    head, lines = parse_note(note)
    known: Mapping[str, PublicKey] = {key.name: key for key in keys}
    return {
        name
        for name, blob in lines
        if (key := known.get(name)) is not None
        and blob[:4] == key.key_id(COSIGNATURE)
        and len(blob) == _COSIGNATURE_BYTES
        and key.verifies(blob[12:], _cosigned(head, _TIMED.unpack(blob[4:12])[0]))
    }


def checked_note(
    note: str, owner: PublicKey, witnesses: Iterable[PublicKey]
) -> tuple[Checkpoint, str, set[str]]:
    """Return a note's head, the note with no other line than good ones, and who co-signed it.

    Raises:
        LedgerError: it is no checkpoint, or its owner did not sign it.
    """
    head, lines = parse_note(note)
    known = {key.name: key for key in witnesses}
    own: list[str] = []
    cosigned: dict[str, str] = {}
    for name, blob in lines:
        one = f"{head.text()}\n{_line(name, blob)}"
        if name == owner.name and is_signed(one, owner):
            own = [_line(name, blob)]
        elif name in known and cosigners(one, [known[name]]):
            cosigned[name] = _line(name, blob)
    if not own:
        raise LedgerError("the head was not signed by its owner")
    return head, f"{head.text()}\n{''.join([*own, *cosigned.values()])}", set(cosigned)


def checked_line(head: Checkpoint, line: str, witness: PublicKey) -> str:
    """Return `witness`'s cosignature line of `head`, written anew, or "" if it is none."""
    try:
        _, lines = parse_note(f"{head.text()}\n{line}")
    except LedgerError:
        return ""
    if len(lines) != 1 or not cosigners(f"{head.text()}\n{line}", [witness]):
        return ""
    return _line(*lines[0])


def _cosigned(head: Checkpoint, time_s: int) -> bytes:
    return f"cosignature/v1\ntime {time_s}\n{head.text()}".encode()


def _line(name: str, blob: bytes) -> str:
    return f"\u2014 {name} {base64.b64encode(blob).decode()}\n"
