"""Inputs that broke a parser once."""

import base64
import struct
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from fondaco.shared.chain.keys import COORDINATOR, Identity, key_name
from fondaco.shared.errors import ConfigError
from fondaco.shared.kit import Kit, Registration


def _compressed_node_key():
    key = ec.derive_private_key(7, ec.SECP384R1()).public_key()
    point = key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    parts = (b"ecdsa-sha2-nistp384", b"nistp384", point)
    blob = b"".join(struct.pack(">I", len(part)) + part for part in parts)
    return f"ecdsa-sha2-nistp384 {base64.b64encode(blob).decode()}"


def _ca_of_an_odd_version():
    key = ec.derive_private_key(7, ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(1))
    blob = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    version = b"\xa0\x03\x02\x01\x02"
    assert version in blob
    blob = blob.replace(version, version[:-1] + b"\x01")
    text = base64.b64encode(blob).decode()
    return f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n"


def test_kit_with_a_certificate_of_an_odd_version_is_refused_cleanly():
    with pytest.raises(ConfigError, match="no certificates"):
        Kit(
            silo_id="alpha",
            superlink="fondaco.example:8443",
            ca=_ca_of_an_odd_version(),
            coordinator=Identity.seeded(0, COORDINATOR).public.text(),
            issued=1,
        )


def test_registration_with_a_compressed_node_key_is_refused_cleanly():
    identity = Identity.seeded(0, key_name("alpha")).public.text()
    with pytest.raises(ConfigError, match="no OpenSSH public key"):
        Registration(silo_id="alpha", identity=identity, node_key=_compressed_node_key())
