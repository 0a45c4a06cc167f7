"""Ed25519 identities of data owners and coordinator, and their public text.

A public key is written as C2SP's verifier key, `name+id+base64`, so that whoever pins it also
pins whose it is. Names are ASCII: a silo's is its id, percent-encoded.
"""

import base64
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..errors import ConfigError

COORDINATOR = "fondaco-coordinator"
NOTE, COSIGNATURE = 0x01, 0x04
"""Algorithm bytes of C2SP signed-note: Ed25519, and a time-stamped cosignature by it."""
_SIZE = 32


def key_name(silo_id: str) -> str:
    """Return the name of a silo's key, which is also the origin of its ledger."""
    return f"fondaco/{quote(silo_id, safe='')}"


@dataclass(frozen=True)
class PublicKey:
    """Somebody's public key and name.

    Attributes:
        name: without spaces and "+".
        raw: 32 bytes.
    """

    name: str
    raw: bytes

    @classmethod
    def from_text(cls, text: str) -> "PublicKey":
        """Return the key in a verifier key's text.

        Raises:
            ConfigError: it is damaged.
        """
        name, _, rest = text.partition("+")
        written_id, _, encoded = rest.partition("+")
        try:
            material = base64.b64decode(encoded, validate=True)
        except ValueError:
            material = b""
        key = cls(name, material[1:])
        sound = len(material) == 1 + _SIZE and material[0] == NOTE and name.isascii()
        sound = sound and name.isprintable() and " " not in name and name != ""
        if not sound or key.key_id().hex() != written_id:
            raise ConfigError(f"{text[:80]!r} is no public key; expected name+id+base64")
        return key

    def text(self) -> str:
        """Return the verifier key's text."""
        encoded = base64.b64encode(bytes([NOTE]) + self.raw).decode()
        return f"{self.name}+{self.key_id().hex()}+{encoded}"

    def key_id(self, algorithm: int = NOTE) -> bytes:
        """Return the 4 bytes that signature lines carry. Source: C2SP signed-note."""
        material = self.name.encode() + b"\n" + bytes([algorithm]) + self.raw
        return hashlib.sha256(material).digest()[:4]

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Return whether `signature` is this key's over `message`."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


class Identity:
    """A private key and its public half."""

    def __init__(self, name: str, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = PublicKey(name, private.public_key().public_bytes_raw())

    @classmethod
    def generate(cls, name: str) -> "Identity":
        """Return a fresh identity; a deployment's only way to make one."""
        return cls(name, Ed25519PrivateKey.generate())

    @classmethod
    def seeded(cls, seed: int, name: str) -> "Identity":
        """Return a repeatable identity: simulations only, everybody can compute it."""
        material = hashlib.sha256(f"fondaco-seeded\x00{seed}\x00{name}".encode()).digest()
        return cls(name, Ed25519PrivateKey.from_private_bytes(material))

    @classmethod
    def load(cls, path: Path, name: str) -> "Identity":
        """Return the identity in a PEM file.

        Raises:
            ConfigError: the file is missing, damaged, no Ed25519 key or readable by others.
        """
        if not path.is_file():
            raise ConfigError(f"{path} does not exist; make a key with fondaco-client keys")
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise ConfigError(f"{path} may be read by others; run chmod 600 {path}")
        try:
            private = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{path} holds no private key: {error}") from error
        if not isinstance(private, Ed25519PrivateKey):
            raise ConfigError(f"{path} holds another kind of key than Ed25519")
        return cls(name, private)

    def save(self, path: Path) -> None:
        """Write the private key to a new file that only its owner may read.

        Raises:
            ConfigError: the file exists; a key is never overwritten.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        pem = self._private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        partial = path.with_name(f"{path.name}.part")
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(partial, path)
        except FileExistsError:
            raise ConfigError(f"{path} exists; a key is never overwritten") from None
        finally:
            partial.unlink()

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature over `message`."""
        return self._private.sign(message)

    def secret(self, purpose: str) -> bytes:
        """Return 32 secret bytes for `purpose`, the same each time. Source: RFC 5869."""
        derive = HKDF(hashes.SHA256(), _SIZE, salt=None, info=f"fondaco-{purpose}".encode())
        return derive.derive(self._private.private_bytes_raw())
