"""Keys: C2SP's verifier keys, files that only the owner reads, secrets that never change."""

import base64
import hashlib
import os
import stat
from urllib.parse import unquote

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from fondaco.shared.chain.keys import COSIGNATURE, NOTE, Identity, PublicKey, key_name
from fondaco.shared.errors import ConfigError

# Source: documentation of golang.org/x/mod/sumdb/note, and the key that Go pins for its sumdb.
VKEYS = [
    "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop",
    "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
]
NAMES = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1)


@pytest.fixture
def identity():
    return Identity.generate(key_name("north"))


def _pem(key):
    encoding, kind = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, kind, serialization.NoEncryption())


@pytest.mark.parametrize("text", VKEYS, ids=lambda text: text.split("+")[0])
def test_other_peoples_verifier_keys_are_read_and_written_the_same(text):
    key = PublicKey.from_text(text)
    assert key.text() == text
    assert key.key_id().hex() == text.split("+")[1]


def test_key_id_is_the_hash_of_name_algorithm_and_key():
    key = PublicKey("example.com/foo", bytes(range(32)))
    for algorithm in (NOTE, COSIGNATURE):
        material = b"example.com/foo\x0a" + bytes([algorithm]) + bytes(range(32))
        assert key.key_id(algorithm) == hashlib.sha256(material).digest()[:4]
    assert key.key_id() == key.key_id(NOTE) != key.key_id(COSIGNATURE)


def test_signature_is_that_of_rfc8032s_first_vector():
    private = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
    public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    identity = Identity("x", Ed25519PrivateKey.from_private_bytes(bytes.fromhex(private)))
    assert identity.public.raw.hex() == public
    assert identity.sign(b"").hex().startswith("e5564300c360ac729086e2cc806e828a")


@given(NAMES)
def test_key_names_are_ascii_without_spaces_or_plus_and_tell_silos_apart(silo_id):
    name = key_name(silo_id)
    assert name.isascii()
    assert not set(name.removeprefix("fondaco/")) & set(" +\n/")
    assert unquote(name.removeprefix("fondaco/")) == silo_id


@given(st.binary(min_size=32, max_size=32), NAMES)
def test_public_key_survives_its_text(raw, silo_id):
    key = PublicKey(key_name(silo_id), raw)
    assert PublicKey.from_text(key.text()) == key


def _damaged():
    key = PublicKey("fondaco/north", bytes(range(32)))
    name, key_id, encoded = key.text().split("+", 2)
    short = base64.b64encode(bytes([NOTE]) + bytes(31)).decode()
    timed = base64.b64encode(bytes([COSIGNATURE]) + key.raw).decode()
    return [
        "",
        name,
        f"{name}+{key_id}",
        f"{name}+{key_id}+{encoded[:-1]}",
        f"{name}+{key_id}+{encoded}\n",
        f"{name}+{key_id}+{encoded} ",
        f"{name}+{key_id.upper()}+{encoded}",
        f"{name}+00000000+{encoded}",
        f"{name}x+{key_id}+{encoded}",
        f"{name}+{key_id}+{short}",
        f"{name}+{key_id}+{timed}",
        f"{name}+{key_id}+{encoded.replace('A', 'B', 1)}",
        f"{name}+{key_id}+ü",
    ]


@pytest.mark.parametrize("text", _damaged())
def test_damaged_public_key_is_refused(text):
    with pytest.raises(ConfigError, match="is no public key"):
        PublicKey.from_text(text)


def test_signature_holds_for_its_message_and_key_alone(identity):
    signature = identity.sign(b"text")
    other = Identity.generate(identity.public.name)
    assert identity.public.verifies(signature, b"text")
    assert not identity.public.verifies(signature, b"tex")
    assert not other.public.verifies(signature, b"text")
    for damaged in (b"", signature[:-1], signature + b"\x00", bytes(64)):
        assert not identity.public.verifies(damaged, b"text")
    assert not PublicKey("x", bytes(31)).verifies(signature, b"text")


def test_generated_keys_differ_and_seeded_ones_repeat(identity):
    name = identity.public.name
    assert Identity.generate(name).public != identity.public
    assert Identity.seeded(1, name).public == Identity.seeded(1, name).public
    keys = {Identity.seeded(seed, n).public.raw for seed in (1, 2) for n in (name, "other")}
    assert len(keys) == 4


def test_saved_key_is_loaded_again_and_for_its_owner_alone(identity, tmp_path):
    path = tmp_path / "new" / "identity.pem"
    old = os.umask(0)
    try:
        identity.save(path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Identity.load(path, identity.public.name).public == identity.public
    assert b"BEGIN PRIVATE KEY" in path.read_bytes()


def test_key_is_never_overwritten(identity, tmp_path):
    path = tmp_path / "identity.pem"
    identity.save(path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="never overwritten"):
        Identity.generate("x").save(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666, 0o601])
def test_key_that_others_may_touch_is_refused(identity, tmp_path, mode):
    path = tmp_path / "identity.pem"
    identity.save(path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        Identity.load(path, "x")


@pytest.mark.parametrize(
    ("blob", "why"),
    [
        (b"", "no private key"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "no private key"),
        (_pem(generate_private_key(SECP256R1())), "another kind of key"),
        (_pem(X25519PrivateKey.generate()), "another kind of key"),
    ],
    ids=["empty", "damaged", "curve", "exchange"],
)
def test_file_that_holds_no_ed25519_key_is_refused(tmp_path, blob, why):
    path = tmp_path / "identity.pem"
    path.write_bytes(blob)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=why):
        Identity.load(path, "x")


def test_encrypted_key_is_refused_and_a_missing_one_named(tmp_path):
    path = tmp_path / "identity.pem"
    with pytest.raises(ConfigError, match="does not exist"):
        Identity.load(path, "x")
    secret = serialization.BestAvailableEncryption(b"word")
    kinds = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(Ed25519PrivateKey.generate().private_bytes(*kinds, secret))
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="no private key"):
        Identity.load(path, "x")


def test_secrets_follow_from_key_and_purpose_and_tell_neither(identity, tmp_path):
    identity.save(tmp_path / "key")
    again = Identity.load(tmp_path / "key", identity.public.name)
    assert again.secret("erasure") == identity.secret("erasure")
    other = Identity.generate(identity.public.name)
    secrets = {i.secret(purpose) for i in (identity, other) for purpose in ("erasure", "x", "")}
    assert len(secrets) == 6
    assert {len(secret) for secret in secrets} == {32}
    assert identity.public.raw not in secrets
