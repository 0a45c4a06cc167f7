"""Frames on the agent's socket, through a real one."""

import socket

from fuzzing import Choices, bent

from fondaco.client.boundary.frames import (
    ACTIONS,
    ERROR,
    OK,
    Limits,
    receive_frame,
    send_frame,
)
from fondaco.shared.errors import CodecError
from fondaco.shared.parts import Parts

MOST = 50_000
"""Less than a socket's buffer: nobody reads while we write."""
LIMITS = Limits(record=4096, ledger=1024, masking=1 << 62)
FITTING = (
    ("status", Parts()),
    ("release", Parts(b"r" * 4096, b"l" * 1024, b"m" * 3000)),
    ("preflight", Parts(masking=b"m" * 9000)),
    (OK, Parts(b"answer", b"", b"words")),
    (ERROR, Parts(record=b"PrivacyError: no")),
)


def _bytes_of(word, parts):
    left, right = socket.socketpair()
    with left, right:
        send_frame(left, word, parts)
        left.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: right.recv(MOST), b""))


SAMPLES = tuple(_bytes_of(word, parts) for word, parts in FITTING)


def target(data):
    choices = Choices(data)
    words = choices.pick((ACTIONS, (OK, ERROR)))
    if choices.number(4) == 0:
        blob = choices.rest()
    else:
        blob = bent(choices.pick(SAMPLES), choices, *SAMPLES)
    blob = blob[:MOST]
    left, right = socket.socketpair()
    with left, right:
        left.sendall(blob)
        left.shutdown(socket.SHUT_WR)
        try:
            word, parts = receive_frame(right, words, LIMITS, 5.0)
        except (CodecError, EOFError):
            return
    assert word in words
    assert blob.startswith(_bytes_of(word, parts))
    assert len(parts.record) <= LIMITS.record or word == ERROR
    assert len(parts.ledger) <= LIMITS.ledger
