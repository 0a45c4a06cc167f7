"""Frames on the agent's socket: one word and three byte strings, each with a limit of its own.

A frame is `FND1`, the word's length (1 byte), three lengths (8 bytes each, big-endian), the word
and the three strings. Lengths are checked before anything is read into memory.
"""

import math
import socket
import struct
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from fondaco.shared.errors import CodecError
from fondaco.shared.parts import Parts

ACTIONS: Mapping[str, str] = {
    "status": "query",
    "preflight": "query",
    "witness": "query",
    "hello": "query",
    "share": "query",
    "release": "train",
    "confirm": "query",
    "unmask": "query",
    "publish": "train",
}
"""What a coordinator may ask of a silo -> the kind of Flower message that asks it."""
MAGIC = b"FND1"
MAX_WORD = 32
MAX_LEDGER, MAX_MASKING = 1 << 26, 1 << 26
MAX_REASON = 4096
CHUNK = 1 << 20
OK, ERROR = "ok", "error"
UNSAID = "it could not answer (details stay at the silo)"
"""All that is said of an error whose text, or kind, may depend on rows."""
_HEAD = struct.Struct(">4sBQQQ")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most bytes that each string of a frame may have."""

    record: int
    ledger: int = MAX_LEDGER
    masking: int = MAX_MASKING


REASON = Limits(record=MAX_REASON, ledger=0, masking=0)


def send_frame(connection: socket.socket, word: str, parts: Parts) -> None:
    """Send one frame.

    Raises:
        OSError: the other side is gone, or does not read.
    """
    name = word.encode("ascii")
    head = _HEAD.pack(MAGIC, len(name), *(len(part) for part in parts))
    connection.sendall(head + name)
    for part in filter(None, parts):  # who has read it all may be gone before an empty part
        connection.sendall(part)


def receive_frame(
    connection: socket.socket,
    words: Collection[str],
    limits: Limits,
    within_s: float,
    silent_s: float = math.inf,
) -> tuple[str, Parts]:
    """Return one frame.

    Args:
        connection: a stream.
        words: those that are expected.
        limits: of the three strings; an `ERROR` holds a reason only, and no more than that.
        within_s: time for the whole frame, however slowly it trickles in [s].
        silent_s: time that the other side may send nothing at all [s].

    Raises:
        CodecError: it is no frame, or larger than allowed; what follows is not read.
        EOFError: the other side closed before its end.
        TimeoutError: it did not arrive in time.
        OSError: the connection broke.
    """
    until = time.monotonic() + within_s

    def read(size: int) -> bytes:
        return _read(connection, size, until, silent_s)

    magic, length, *sizes = _HEAD.unpack(read(_HEAD.size))
    if magic != MAGIC or not 0 < length <= MAX_WORD:
        raise CodecError("not a frame of fondaco")
    word = read(length).decode("ascii", errors="replace")
    if word not in words:
        raise CodecError(f"unexpected word {word!a} on the agent's socket")
    allowed = REASON if word == ERROR else limits
    for name, size in zip(Parts._fields, sizes, strict=True):
        most = getattr(allowed, name)
        if size > most:
            raise CodecError(f"{size} bytes of {name} on the agent's socket, at most {most}")
    return word, Parts(*map(read, sizes))


def _read(connection: socket.socket, size: int, until: float, silent_s: float) -> bytes:
    """Return exactly `size` bytes; memory grows with what came, not with what was announced."""
    blob = bytearray()
    while len(blob) < size:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError("a frame did not arrive in time")
        connection.settimeout(min(left, silent_s))
        chunk = connection.recv(min(CHUNK, size - len(blob)))
        if not chunk:
            raise EOFError("the other side of the agent's socket closed")
        blob += chunk
    return bytes(blob)
