"""What coordinator and owner hand to each other before the first connection: two signed files.

A kit (coordinator -> owner) says where the coordinator is, how to know it, and what is planned;
a registration (owner -> coordinator) says by which keys to know the silo. Neither holds a secret:
they may travel by mail. Their signatures keep them whole; that they come from whom they name is
checked by comparing fingerprints over another channel.

A file is one line of canonical JSON and one line with the signature over it in base64.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from .address import split_address
from .chain.canonical import MAX_INT, canonical_json
from .chain.keys import COORDINATOR, Identity, PublicKey, key_name
from .errors import ConfigError
from .files import folder_name
from .privacy.plan import MAX_NAME, RunPlan

MAX_KIT = 64 * 2**20
MAX_REGISTRATION = 8 * 1024
MAX_CA = 64 * 1024
MAX_PEERS = 1000
MAX_FILE_NAME = 230
"""Characters of a silo's files before their endings; a file system takes 255."""
NODE_KEY = "ecdsa-sha2-nistp384"
T = TypeVar("T", "Kit", "Registration")


def fingerprint(key: str) -> str:
    """Return what two people compare by phone: 8 groups of 4 hex digits of a key's SHA-256."""
    digits = hashlib.sha256(key.strip().encode()).hexdigest()
    return " ".join(digits[at : at + 4] for at in range(0, 32, 4))


@dataclass(frozen=True, kw_only=True)
class Kit:
    """What a silo needs to join; holds no secret of anybody.

    Attributes:
        silo_id: whom it is for.
        superlink: the coordinator's address, `host:port`.
        ca: the certificates (PEM) that sign the coordinator's; two while it changes them.
        coordinator: the coordinator's public key.
        plan: canonical JSON of the plan, "" before there is one.
        catalogue: what `save_catalogue` writes, "" before there is a plan.
        peers: public keys of all silos of the plan.
        issued: when [unix s].

    Raises:
        ConfigError: a field is not what it should be.
    """

    silo_id: str
    superlink: str
    ca: str
    coordinator: str
    plan: str = ""
    catalogue: str = ""
    peers: tuple[str, ...] = ()
    issued: int

    def __post_init__(self) -> None:
        _require_types(self, {"peers": tuple, "issued": int})
        _check_silo(self.silo_id)
        split_address(self.superlink)
        _check_ca(self.ca)
        if _key(self.coordinator, "coordinator").name != COORDINATOR:
            raise ConfigError(f"coordinator={self.coordinator[:80]!r} is no coordinator's key")
        if len(self.peers) > MAX_PEERS or not 0 <= self.issued <= MAX_INT:
            raise ConfigError(f"{len(self.peers)} peers or issued={self.issued} is out of range")
        names = [_key(peer, "peers").name for peer in self.peers]
        if len(set(names)) != len(names):
            raise ConfigError("the kit names a peer twice")
        together = {bool(self.plan), bool(self.catalogue), bool(self.peers)}
        if len(together) != 1 or (names and key_name(self.silo_id) not in names):
            raise ConfigError("plan, catalogue and peers go together, and name the kit's own silo")

    def to_bytes(self, identity: Identity) -> bytes:
        """Return the file, signed by the coordinator.

        Raises:
            ConfigError: `identity` is not the coordinator that the kit names, or it is too big.
        """
        return _signed("kit", self, self.coordinator, identity, MAX_KIT)

    @classmethod
    def from_bytes(cls, blob: bytes) -> "Kit":
        """Return the kit in a file, which was signed by the coordinator that it names.

        Whether that is the right one, only its fingerprint can tell.

        Raises:
            ConfigError: it is no whole kit.
        """
        return _verified("kit", cls, blob, "coordinator", MAX_KIT)

    def run_plan(self) -> RunPlan | None:
        """Return the plan, if there is one; reading it holds its claims against its releases.

        Raises:
            ConfigError: it is none, or names other silos or another coordinator than the kit.
        """
        if not self.plan:
            return None
        plan = RunPlan.from_json(self.plan)
        if set(plan.roster.values()) != set(self.peers) or plan.coordinator != self.coordinator:
            raise ConfigError("the kit's plan names other silos or another coordinator than it")
        return plan


@dataclass(frozen=True, kw_only=True)
class Registration:
    """Which keys a silo speaks with, signed by the first of them.

    Attributes:
        silo_id: its public name.
        identity: public key that signs its ledger.
        node_key: its SuperNode's public key, OpenSSH text (ECDSA P-384) without a comment.

    Raises:
        ConfigError: a field is not what it should be.
    """

    silo_id: str
    identity: str
    node_key: str

    def __post_init__(self) -> None:
        _require_types(self, {})
        _check_silo(self.silo_id)
        if _key(self.identity, "identity").name != key_name(self.silo_id):
            raise ConfigError(f"identity={self.identity[:80]!r} is no key of {self.silo_id!r}")
        _check_node_key(self.node_key)

    def to_bytes(self, identity: Identity) -> bytes:
        """Return the file, signed by the silo.

        Raises:
            ConfigError: `identity` is not the one that the registration names.
        """
        return _signed("registration", self, self.identity, identity, MAX_REGISTRATION)

    @classmethod
    def from_bytes(cls, blob: bytes) -> "Registration":
        """Return the registration in a file, which was signed by the key that it names.

        Raises:
            ConfigError: it is no whole registration.
        """
        return _verified("registration", cls, blob, "identity", MAX_REGISTRATION)


def _signed(
    what: str, document: Kit | Registration, signer: str, identity: Identity, limit: int
) -> bytes:
    if identity.public.text() != signer:
        raise ConfigError(f"a {what} must be signed by {signer[:80]!r}, the key that it names")
    body = canonical_json({"schema": _schema(what), **asdict(document)}).encode()
    signature = base64.b64encode(identity.sign(_message(what, body)))
    blob = b"%s\n%s\n" % (body, signature)
    if len(blob) > limit:
        raise ConfigError(f"a {what} of {len(blob)} bytes is more than {limit}")
    return blob


def _verified(what: str, kind: type[T], blob: bytes, signer: str, limit: int) -> T:
    if len(blob) > limit:
        raise ConfigError(f"a {what} of {len(blob)} bytes is more than {limit}")
    body, _, signature = blob.rstrip(b"\n").rpartition(b"\n")
    raw = _read(what, body)
    known = {"schema", *(field.name for field in fields(kind))}
    if set(raw) != known or raw.pop("schema") != _schema(what):
        raise ConfigError(f"this is no {what} that this version of fondaco knows")
    if isinstance(raw.get("peers"), list):
        raw["peers"] = tuple(raw["peers"])
    document = kind(**raw)
    try:
        written = base64.b64decode(signature, validate=True)
    except ValueError:
        written = b""
    if not _key(raw[signer], signer).verifies(written, _message(what, body)):
        raise ConfigError(f"this {what} was changed after it was signed; ask for it again")
    return document


def _read(what: str, body: bytes) -> dict[str, Any]:
    try:
        text = body.decode()
        raw = json.loads(text)
        sound = isinstance(raw, dict) and canonical_json(raw) == text
    except (ValueError, RecursionError, ConfigError):
        sound = False
    if not sound:
        raise ConfigError(f"this is no {what}, or not all of it; ask for it again")
    return dict(raw)


def _schema(what: str) -> str:
    return f"fondaco-{what}/1"


def _message(what: str, body: bytes) -> bytes:
    return _schema(what).encode() + b"\n" + body


def _require_types(document: Kit | Registration, others: Mapping[str, type]) -> None:
    for field in fields(document):
        value = getattr(document, field.name)
        kind = others.get(field.name, str)
        if type(value) is not kind:
            raise ConfigError(f"{field.name}={str(value)[:80]!r} must be {kind.__name__}")
        texts = value if isinstance(value, tuple) else (value,)
        if any(not isinstance(text, str) for text in texts) and kind is not int:
            raise ConfigError(f"{field.name} must hold text only")


def _check_silo(silo_id: str) -> None:
    if not (silo_id.strip() and silo_id.isprintable() and len(silo_id) <= MAX_NAME):
        raise ConfigError(f"silo_id={silo_id[:80]!r} is no name for a silo")
    length = len(folder_name(silo_id))
    if length > MAX_FILE_NAME:
        raise ConfigError(
            f"silo_id={silo_id[:80]!r} is too long: its files' names would have {length} characters"
            f" (6 to 12 for one outside of ASCII) and may have {MAX_FILE_NAME}"
        )


def _key(text: str, where: str) -> PublicKey:
    _refuse_private(text, where)
    try:
        return PublicKey.from_text(text)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _check_ca(text: str) -> None:
    _refuse_private(text, "ca")
    if len(text) > MAX_CA:
        raise ConfigError(f"ca of {len(text)} characters is more than {MAX_CA}")
    try:
        x509.load_pem_x509_certificates(text.encode())
    except (ValueError, TypeError, x509.InvalidVersion):
        raise ConfigError("ca holds no certificates (PEM)") from None


def _check_node_key(text: str) -> None:
    _refuse_private(text, "node_key")
    try:
        key = serialization.load_ssh_public_key(text.encode())
    except (ValueError, TypeError, NotImplementedError, UnsupportedAlgorithm):
        raise ConfigError(f"node_key={text[:80]!r} is no OpenSSH public key") from None
    plain = b""
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1):
        plain = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    if plain != text.encode():
        raise ConfigError(f"node_key={text[:40]!r}... must be {NODE_KEY} without a comment")


def _refuse_private(text: str, where: str) -> None:
    if "PRIVATE KEY" in text:
        raise ConfigError(f"{where} holds a private key; hand over the public one alone")
