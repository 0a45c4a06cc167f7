"""A rehearsal of a round without data: as many bytes as a real one sends, made from nothing.

The coordinator sends what is as long as its largest message; the silo answers what is as long as
its largest release. Both follow from a nonce, so nothing of anybody is in them, and each end can
tell that all of it arrived.
"""

import hashlib

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from .codec import Shapes
from .errors import CodecError, RefusalError
from .models.gram import RANK
from .privacy.plan import RunPlan

NONCE = 32
_UP, _DOWN = b"fondaco-preflight-up", b"fondaco-preflight-down"


def question(nonce: bytes, plan: RunPlan) -> bytes:
    """Return what the coordinator sends."""
    return nonce + _filler(nonce, _DOWN, question_bytes(plan) - NONCE)


def question_bytes(plan: RunPlan) -> int:
    """Return how long a question about a plan is."""
    return NONCE + Shapes.of_plan(plan).most_bytes(RANK)


def reply(asked: bytes, plan: RunPlan) -> bytes:
    """Return what a silo answers to `question`.

    Raises:
        RefusalError: it is no question about this plan, or did not arrive whole.
    """
    nonce = asked[:NONCE]
    if len(nonce) != NONCE or asked != question(nonce, plan):
        raise RefusalError("the rehearsal's bytes are not those of this plan", "malformed")
    return _answer(nonce, plan)


def check(nonce: bytes, said: bytes, plan: RunPlan) -> None:
    """Hold a silo's answer against what it must be.

    Raises:
        CodecError: it is anything else.
    """
    if said != _answer(nonce, plan):
        raise CodecError(f"{len(said)} bytes came back, not those that were asked for")


def _answer(nonce: bytes, plan: RunPlan) -> bytes:
    largest = max(event.dim for event in plan.releases)
    return _filler(nonce, _UP, largest * (plan.ring_bits or 64) // 8)


def _filler(nonce: bytes, label: bytes, size: int) -> bytes:
    key = hashlib.sha256(label + nonce).digest()
    return Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor().update(bytes(size))
