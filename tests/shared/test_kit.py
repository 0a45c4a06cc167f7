import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from fondaco.shared.chain.canonical import canonical_json
from fondaco.shared.chain.keys import COORDINATOR, Identity, key_name
from fondaco.shared.errors import ConfigError
from fondaco.shared.kit import MAX_KIT, MAX_REGISTRATION, Kit, Registration, fingerprint

CENTRE = Identity.seeded(1, COORDINATOR)
ALPHA, BETA = (Identity.seeded(1, key_name(silo)) for silo in ("alpha", "beta"))


def self_signed():
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(1))
    pem = serialization.Encoding.PEM
    return builder.sign(key, hashes.SHA256()).public_bytes(pem).decode()


def node_key(curve=ec.SECP384R1, private=False):
    key = ec.generate_private_key(curve())
    if private:
        form, none = serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        return key.private_bytes(serialization.Encoding.PEM, form, none).decode()
    ssh = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    return key.public_key().public_bytes(*ssh).decode()


CA, NODE, OTHER_NODE = self_signed(), node_key(), node_key()


def kit(**changes):
    plain = Kit(
        silo_id="alpha",
        superlink="fondaco.example:8443",
        ca=CA,
        coordinator=CENTRE.public.text(),
        issued=1_800_000_000,
    )
    return replace(plain, **changes)


def planned(plan="{}"):
    keys = (ALPHA.public.text(), BETA.public.text())
    return kit(plan=plan, catalogue='{"ids": ["ü"], "prices": [1.5]}', peers=keys)


def registration(**changes):
    plain = Registration(silo_id="alpha", identity=ALPHA.public.text(), node_key=NODE)
    return replace(plain, **changes)


def test_kit_comes_back_as_it_was_signed():
    for given_kit in (kit(), planned()):
        assert Kit.from_bytes(given_kit.to_bytes(CENTRE)) == given_kit


def test_registration_comes_back_as_it_was_signed():
    blob = registration().to_bytes(ALPHA)
    assert Registration.from_bytes(blob) == registration()
    assert Registration.from_bytes(blob.rstrip()) == registration()


def test_kit_gives_the_plan_of_its_peers_alone(make_plan):
    silos = {name: Identity.seeded(1, key_name(name)).public.text() for name in "abc"}
    roster = {"n_silos": 3, "roster": silos, "coordinator": CENTRE.public.text()}
    text = make_plan(**roster).to_json()
    whole = kit(silo_id="a", plan=text, catalogue="{}", peers=tuple(silos.values()))
    assert whole.run_plan().roster == silos
    assert kit().run_plan() is None
    with pytest.raises(ConfigError, match="names other silos"):
        replace(whole, peers=whole.peers[:2]).run_plan()
    with pytest.raises(ConfigError, match="this is no plan"):
        planned().run_plan()


def test_files_are_signed_by_the_key_that_they_name_alone():
    with pytest.raises(ConfigError, match="must be signed by 'fondaco-coordinator"):
        kit().to_bytes(Identity.seeded(2, COORDINATOR))
    with pytest.raises(ConfigError, match="must be signed by 'fondaco/alpha"):
        registration().to_bytes(BETA)


@pytest.mark.parametrize(
    ("document", "signer", "kind"),
    [(planned(), CENTRE, Kit), (registration(), ALPHA, Registration)],
)
def test_no_byte_of_a_file_can_be_changed(document, signer, kind):
    blob = document.to_bytes(signer)
    for at in range(0, len(blob) - 1, 7):
        with pytest.raises(ConfigError):
            kind.from_bytes(blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :])
    for end in range(0, len(blob) - 1, 13):
        with pytest.raises(ConfigError):
            kind.from_bytes(blob[:end])


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_in_one_line(blob):
    for kind in (Kit, Registration):
        with pytest.raises(ConfigError) as caught:
            kind.from_bytes(blob)
        assert "\n" not in str(caught.value)


def test_oversize_files_are_refused_before_they_are_read():
    with pytest.raises(ConfigError, match=f"bytes is more than {MAX_KIT}"):
        Kit.from_bytes(b"x" * (MAX_KIT + 1))
    with pytest.raises(ConfigError, match=f"bytes is more than {MAX_REGISTRATION}"):
        Registration.from_bytes(b"x" * (MAX_REGISTRATION + 1))
    with pytest.raises(ConfigError, match=r"a kit of .* bytes is more than"):
        planned(plan="x" * MAX_KIT).to_bytes(CENTRE)


def resigned(blob, signer, **changes):
    """The file with other values, as somebody with the key could write it."""
    body = json.loads(blob.split(b"\n")[0])
    schema = body["schema"].encode()
    text = canonical_json({**body, **changes}).encode()
    return text + b"\n" + base64.b64encode(signer.sign(schema + b"\n" + text)) + b"\n"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"silo_id": 7}, "silo_id='7' must be str"),
        ({"silo_id": " "}, "is no name for a silo"),
        ({"silo_id": "東" * 26}, "names would have 234 characters .* may have 230"),
        ({"superlink": "https://fondaco.example"}, "expected HOST:PORT"),
        ({"superlink": "fondaco.example:0"}, "expected HOST:PORT"),
        ({"ca": "hello"}, "ca holds no certificates"),
        ({"ca": "-----BEGIN PRIVATE KEY-----"}, "ca holds a private key"),
        ({"coordinator": ALPHA.public.text()}, "is no coordinator's key"),
        ({"coordinator": "-----BEGIN PRIVATE KEY-----"}, "coordinator holds a private key"),
        ({"issued": "now"}, "issued='now' must be int"),
        ({"issued": True}, "issued='True' must be int"),
        ({"issued": -1}, "issued=-1 is out of range"),
        ({"peers": "alpha"}, "peers='alpha' must be tuple"),
        ({"peers": [7]}, "peers must hold text only"),
        ({"peers": [ALPHA.public.text()] * 2}, "names a peer twice"),
        ({"peers": [BETA.public.text()]}, "name the kit's own silo"),
        ({"catalogue": ""}, "plan, catalogue and peers go together"),
        ({"more": ""}, "this is no kit that this version"),
        ({"schema": "fondaco-kit/2"}, "this is no kit that this version"),
    ],
)
def test_signed_kit_of_wrong_types_is_refused(changes, problem):
    blob = resigned(planned().to_bytes(CENTRE), CENTRE, **changes)
    with pytest.raises(ConfigError, match=problem) as caught:
        Kit.from_bytes(blob)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"identity": BETA.public.text()}, "is no key of 'alpha'"),
        ({"identity": "-----BEGIN PRIVATE KEY-----"}, "identity holds a private key"),
        ({"node_key": node_key(private=True)}, "node_key holds a private key"),
        ({"node_key": node_key(ec.SECP256R1)}, "must be ecdsa-sha2-nistp384"),
        ({"node_key": f"{NODE} alpha@host"}, "without a comment"),
        ({"node_key": "ssh-rsa AAAA"}, "is no OpenSSH public key"),
        ({"node_key": None}, "node_key='None' must be str"),
    ],
)
def test_signed_registration_of_wrong_types_is_refused(changes, problem):
    blob = resigned(registration().to_bytes(ALPHA), ALPHA, **changes)
    with pytest.raises(ConfigError, match=problem) as caught:
        Registration.from_bytes(blob)
    assert "\n" not in str(caught.value)


def test_foreign_signature_is_refused():
    for blob in (
        resigned(kit().to_bytes(CENTRE), Identity.seeded(2, COORDINATOR)),
        kit().to_bytes(CENTRE).split(b"\n")[0] + b"\n" + b"A" * 86 + b"==\n",
        kit().to_bytes(CENTRE).split(b"\n")[0] + b"\nnot base64\n",
    ):
        with pytest.raises(ConfigError, match="changed after it was signed"):
            Kit.from_bytes(blob)


def test_kit_is_no_registration_and_the_other_way_round():
    with pytest.raises(ConfigError, match="no registration that this version"):
        Registration.from_bytes(kit().to_bytes(CENTRE))
    with pytest.raises(ConfigError, match="no kit that this version"):
        Kit.from_bytes(registration().to_bytes(ALPHA))


def test_fingerprint_can_be_read_aloud_and_tells_keys_apart():
    text = fingerprint(NODE)
    assert [len(group) for group in text.split(" ")] == [4] * 8
    assert text == fingerprint(f" {NODE}\n") != fingerprint(OTHER_NODE)
