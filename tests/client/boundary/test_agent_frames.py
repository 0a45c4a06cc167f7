"""Frames on the agent's socket: as they were, or refused before memory is spent on them."""

import socket
import struct
import threading
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fondaco.client.boundary.frames import (
    ACTIONS,
    CHUNK,
    ERROR,
    MAX_REASON,
    OK,
    Limits,
    receive_frame,
    send_frame,
)
from fondaco.shared.errors import CodecError
from fondaco.shared.parts import Parts

LIMITS = Limits(record=4096, ledger=64, masking=4096)
HEAD = struct.Struct(">4sBQQQ")
blobs = st.binary(max_size=64)


def _bytes_of(word, parts):
    left, right = socket.socketpair()
    with left, right:
        send_frame(left, word, parts)
        left.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: right.recv(1 << 16), b""))


def _read(blob, words=ACTIONS, limits=LIMITS, within_s=5.0):
    left, right = socket.socketpair()
    with left, right:
        left.sendall(blob)
        left.shutdown(socket.SHUT_WR)
        return receive_frame(right, words, limits, within_s)


@given(st.sampled_from(sorted(ACTIONS)), st.builds(Parts, blobs, blobs, blobs))
def test_frame_comes_back_as_it_was_sent(word, parts):
    assert _read(_bytes_of(word, parts)) == (word, parts)


def test_frame_cut_anywhere_is_told():
    blob = _bytes_of("release", Parts(b"record", b"ledger", b"masking"))
    for length in range(len(blob)):
        with pytest.raises(EOFError):
            _read(blob[:length])


@given(st.binary(min_size=HEAD.size, max_size=200).filter(lambda blob: blob[:4] != b"FND1"))
@settings(max_examples=50)
def test_frame_of_another_kind_is_refused(blob):
    with pytest.raises(CodecError, match="not a frame"):
        _read(blob)


@pytest.mark.parametrize("length", [0, 33, 255])
def test_word_of_odd_length_is_refused(length):
    with pytest.raises(CodecError, match="not a frame"):
        _read(HEAD.pack(b"FND1", length, 0, 0, 0) + b"w" * length)


@pytest.mark.parametrize("word", ["erase", "Release", "release\x00", "__init__", OK, "\xff\xfe"])
def test_unknown_word_is_refused(word):
    raw = word.encode("latin-1")
    with pytest.raises(CodecError, match="unexpected word"):
        _read(HEAD.pack(b"FND1", len(raw), 0, 0, 0) + raw)


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("size", [2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1])
def test_announced_size_beyond_the_limit_is_refused_without_memory(place, size):
    sizes = [size if num == place else 0 for num in range(3)]
    tracemalloc.start()
    try:
        with pytest.raises(CodecError, match="at most"):
            _read(HEAD.pack(b"FND1", 6, *sizes) + b"status")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_announced_size_within_the_limit_costs_what_came_and_no_more():
    limits = Limits(record=2**40)
    tracemalloc.start()
    try:
        with pytest.raises(EOFError):
            _read(HEAD.pack(b"FND1", 6, 2**40, 0, 0) + b"status" + b"r" * 1000, limits=limits)
        assert tracemalloc.get_traced_memory()[1] < 4 * CHUNK
    finally:
        tracemalloc.stop()


def test_error_may_hold_a_reason_and_nothing_else():
    words = (OK, ERROR)
    huge = Limits(record=1 << 30, ledger=1 << 30, masking=1 << 30)
    reason = Parts(record=b"r" * MAX_REASON)
    assert _read(_bytes_of(ERROR, reason), words, huge) == (ERROR, reason)
    for parts in (Parts(record=b"r" * (MAX_REASON + 1)), Parts(b"", b"l"), Parts(b"", b"", b"m")):
        with pytest.raises(CodecError, match="at most"):
            _read(_bytes_of(ERROR, parts), words, huge)


def test_trickle_ends_at_the_deadline_of_the_whole_frame(pair):
    left, right = pair
    blob = _bytes_of("status", Parts(b"r" * 1000))
    stop = threading.Event()

    def trickle():
        for byte in blob:
            if stop.wait(0.05):
                return
            left.sendall(bytes([byte]))

    sender = threading.Thread(target=trickle)
    sender.start()
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        receive_frame(right, ACTIONS, LIMITS, 1.0)
    assert 0.9 < time.monotonic() - start < 1.5
    stop.set()
    sender.join()


def test_silence_ends_at_the_deadline(pair):
    with pytest.raises(TimeoutError):
        receive_frame(pair[1], ACTIONS, LIMITS, 0.2)


def test_what_follows_a_frame_is_left_alone(pair):
    left, right = pair
    send_frame(left, "status", Parts(b"one"))
    send_frame(left, "share", Parts(b"", b"", b"two"))
    assert receive_frame(right, ACTIONS, LIMITS, 1.0) == ("status", Parts(b"one"))
    assert receive_frame(right, ACTIONS, LIMITS, 1.0) == ("share", Parts(b"", b"", b"two"))
