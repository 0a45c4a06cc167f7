"""Keys of one masked sum: made, agreed on and derived; every primitive is `cryptography`'s.

A silo's secrets follow from four seeds. Two of them are shared out by Shamir's scheme and are 16
bytes for it: that of its mask keys and that of its own mask. With the hybrid, a secret that goes
through ML-KEM-768 enters each derived key beside that of X25519, so both must be broken.
"""

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property, lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..chain.keys import PublicKey
from ..errors import RefusalError
from .messages import DOMAIN, Message, signed

SEED = 16
KEY = 32
KEM_KEY, KEM_TEXT, KEM_SEED = 1184, 1088, 64
NONCE, TAG = 12, 16
SEALED = NONCE + TAG
"""By how much a sealed text is longer."""


@dataclass(frozen=True, kw_only=True)
class Secrets(Message):
    """What a silo draws for one task.

    Attributes:
        mask_seed: of its mask keys (16 bytes).
        self_seed: of its own mask (16 bytes).
        share_seed: of the keys under which others send it their shares (32 bytes).
        hybrid: "yes" if there are ML-KEM keys too.
    """

    mask_seed: bytes
    self_seed: bytes
    share_seed: bytes
    hybrid: str

    @classmethod
    def fresh(cls, *, hybrid: bool) -> "Secrets":
        """Return new ones from the operating system, the only source there is."""
        return cls(
            mask_seed=os.urandom(SEED),
            self_seed=os.urandom(SEED),
            share_seed=os.urandom(KEY),
            hybrid="yes" if hybrid else "",
        )

    @cached_property
    def mask_keys(self) -> "KeyPair":
        """The keys from which the masks with its neighbours follow."""
        return mask_keys_of(self.mask_seed, hybrid=bool(self.hybrid))

    @cached_property
    def share_keys(self) -> "KeyPair":
        """The keys under which others send their shares."""
        return KeyPair.of(self.share_seed, "share keys", hybrid=bool(self.hybrid))


@dataclass(frozen=True)
class KeyPair:
    """X25519, and ML-KEM-768 with the hybrid; both follow from a seed."""

    x25519: X25519PrivateKey
    kem: MLKEM768PrivateKey | None

    @classmethod
    def of(cls, seed: bytes, label: str, *, hybrid: bool) -> "KeyPair":
        """Return the pair that `seed` gives under `label`."""
        private = X25519PrivateKey.from_private_bytes(derive(seed, label, b"x25519"))
        if not hybrid:
            return cls(private, None)
        kem_seed = derive(seed, label, b"ml-kem-768", size=KEM_SEED)
        return cls(private, MLKEM768PrivateKey.from_seed_bytes(kem_seed))

    def public(self) -> tuple[bytes, bytes]:
        """Return the public keys; the second is empty without the hybrid."""
        raw = self.kem.public_key().public_bytes_raw() if self.kem else b""
        return self.x25519.public_key().public_bytes_raw(), raw

    def exchange(self, other: bytes) -> bytes:
        """Return the X25519 secret with another's public key.

        Raises:
            RefusalError: the key is of low order or malformed: everybody would know the secret.
        """
        try:
            return self.x25519.exchange(X25519PublicKey.from_public_bytes(other))
        except ValueError:
            raise RefusalError(
                "a public key of the roster is no sound X25519 key", "bad-key"
            ) from None

    def decapsulate(self, text: bytes) -> bytes:
        """Return the secret in an ML-KEM ciphertext; one that was tampered with gives another."""
        return self.kem.decapsulate(text) if self.kem else b""


def mask_keys_of(mask_seed: bytes, *, hybrid: bool) -> KeyPair:
    """Return the keys from which a silo's masks with its neighbours follow."""
    return KeyPair.of(mask_seed, "mask keys", hybrid=hybrid)


def encapsulate(kem_key: bytes) -> tuple[bytes, bytes]:
    """Return a secret for the holder of an ML-KEM key, and its ciphertext; both empty without one.

    Raises:
        RefusalError: the key is malformed.
    """
    if not kem_key:
        return b"", b""
    try:
        return MLKEM768PublicKey.from_public_bytes(kem_key).encapsulate()
    except ValueError:
        raise RefusalError("a public key of the roster is no sound ML-KEM key", "bad-key") from None


def derive(secret: bytes, label: str, *context: bytes, size: int = KEY) -> bytes:
    """Return `size` bytes that follow from `secret` for one purpose. Source: RFC 5869."""
    info = signed(label, *context)
    return HKDF(hashes.SHA256(), size, salt=DOMAIN, info=info).derive(secret)


def seal(key: bytes, text: bytes) -> bytes:
    """Return `text` encrypted and authenticated, after a nonce of its own."""
    nonce = os.urandom(NONCE)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, text, None)


def unseal(key: bytes, sealed: bytes) -> bytes | None:
    """Return the text, None if it was not sealed under this key."""
    try:
        return ChaCha20Poly1305(key).decrypt(sealed[:NONCE], sealed[NONCE:], None)
    except (InvalidTag, ValueError):
        return None


def share_digest(label: str, holder: str, share: bytes) -> bytes:
    """Return what is published of a holder's share."""
    return hashlib.sha256(signed(label, holder.encode(), share)).digest()


def secret_digest(secret: bytes) -> bytes:
    """Return what is published of the secret that goes into a common mask."""
    return hashlib.sha256(signed("pair secret", secret)).digest()


def commitment(self_seed: bytes) -> bytes:
    """Return what fixes the seed of a silo's own mask without telling it."""
    return hashlib.sha256(signed("self seed", self_seed)).digest()


@lru_cache(maxsize=8192)
def verified(key: PublicKey, signature: bytes, message: bytes) -> bool:
    """Return whether the signature is good; silos of one process check each once."""
    return key.verifies(signature, message)
