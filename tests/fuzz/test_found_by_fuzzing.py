"""Inputs that broke a parser once."""

import base64
import struct

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fondaco.shared.chain.keys import Identity, key_name
from fondaco.shared.errors import ConfigError
from fondaco.shared.kit import Registration


def _compressed_node_key():
    key = ec.derive_private_key(7, ec.SECP384R1()).public_key()
    point = key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    parts = (b"ecdsa-sha2-nistp384", b"nistp384", point)
    blob = b"".join(struct.pack(">I", len(part)) + part for part in parts)
    return f"ecdsa-sha2-nistp384 {base64.b64encode(blob).decode()}"


def test_registration_with_a_compressed_node_key_is_refused_cleanly():
    identity = Identity.seeded(0, key_name("alpha")).public.text()
    with pytest.raises(ConfigError, match="no OpenSSH public key"):
        Registration(silo_id="alpha", identity=identity, node_key=_compressed_node_key())
