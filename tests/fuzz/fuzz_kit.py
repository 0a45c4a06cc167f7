"""Kits and registrations: signed by whoever makes them, so a good signature proves no sense."""

import base64
import json
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fuzz_plan import samples as plans
from fuzzing import Choices, as_bytes, bent, bent_tree

from fondaco.shared.chain.canonical import canonical_json
from fondaco.shared.chain.keys import COORDINATOR, Identity, key_name
from fondaco.shared.errors import ConfigError
from fondaco.shared.kit import Kit, Registration, fingerprint

CENTRE, SILO = (Identity.seeded(0, name) for name in (COORDINATOR, key_name("silo-0")))


@cache
def samples():
    """Return the bytes of two kits and a registration, each with its signer and label."""
    plain = {"silo_id": "silo-0", "superlink": "fondaco.example:8443", "ca": _ca(), "issued": 1}
    first = Kit(**plain, coordinator=CENTRE.public.text())
    plan = plans()[0]
    planned = Kit(
        **plain,
        coordinator=CENTRE.public.text(),
        plan=plan.to_json(),
        catalogue="{}",
        peers=tuple(plan.roster.values()),
    )
    registered = Registration(silo_id="silo-0", identity=SILO.public.text(), node_key=_node_key())
    return (
        (Kit, first.to_bytes(CENTRE), CENTRE, b"fondaco-kit/1\n"),
        (Kit, planned.to_bytes(CENTRE), CENTRE, b"fondaco-kit/1\n"),
        (Registration, registered.to_bytes(SILO), SILO, b"fondaco-registration/1\n"),
    )


def _ca():
    key = ec.derive_private_key(7, ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(1))
    pem = serialization.Encoding.PEM
    return builder.sign(key, hashes.SHA256()).public_bytes(pem).decode()


def _node_key():
    key = ec.derive_private_key(7, ec.SECP384R1()).public_key()
    ssh = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    return key.public_bytes(*ssh).decode()


def target(data):
    choices = Choices(data)
    kind, blob, signer, label = choices.pick(samples())
    others = [other for _, other, _, _ in samples()]
    if choices.number(3):
        blob = _signed_anew(blob, signer, label, choices)
    else:
        blob = bent(blob, choices, *others)
    try:
        document = kind.from_bytes(blob)
        plan = document.run_plan() if kind is Kit else None
    except ConfigError:
        return
    key = document.coordinator if kind is Kit else document.identity
    assert key == signer.public.text()
    assert len(fingerprint(key)) == len("0123 ") * 8 - 1
    assert kind.from_bytes(document.to_bytes(signer)) == document
    assert plan is None or set(plan.roster.values()) == set(document.peers)


def _signed_anew(blob, signer, label, choices):
    """Return a document that its rightful signer made, and that makes no sense."""
    tree = bent_tree(json.loads(blob.split(b"\n")[0]), choices)
    try:
        body = as_bytes(canonical_json(tree))
    except ConfigError:
        body = as_bytes(json.dumps(tree, ensure_ascii=False))
    return body + b"\n" + base64.b64encode(signer.sign(label + body)) + b"\n"
