"""Whether the coordinator knows this silo's node key, asked without starting anything there.

The request to begin a session is sent with a heartbeat that no SuperLink takes (0 s). Flower looks
the key up before it looks at the heartbeat, so the refusal tells which of the two was wrong, no
session begins, and one that is going on is not disturbed. `tests/client/joining` holds this
against the installed Flower.
"""

import base64
import http.client
import re
import ssl
from datetime import UTC, datetime
from typing import Literal

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fondaco.shared.address import split_address
from fondaco.shared.errors import ConfigError

Registration = Literal["registered", "unknown", "refused"]

TIMEOUT_S = 10.0
_PATH = "/v1/fleet/activate-node"
_KEY_FIELD = b"\x0a"
"""Field 1, bytes, of Flower's ActivateNodeRequest; field 2, the heartbeat, is left at 0."""
_ANSWERS: dict[tuple[int, str], Registration] = {
    (400, "2003"): "registered",
    (412, "2004"): "unknown",
    (401, ""): "refused",
}
_MAX_ANSWER = 4096


def ask_registration(
    address: str, ca_pem: str, key: ec.EllipticCurvePrivateKey, timeout_s: float = TIMEOUT_S
) -> Registration:
    """Return whether the SuperLink at `address` knows `key`; nothing changes there.

    `refused` means that it did not take the key's signature of the time, mostly because this
    machine's clock is off by minutes.

    Args:
        address: `host:port`.
        ca_pem: certificates (PEM) of whom to trust.
        key: signs the time of asking; never sent.
        timeout_s: for each step.

    Raises:
        ConfigError: it answers in another way than Flower 1.41 does, or not at all.
    """
    host, port = split_address(address)
    pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    moment = datetime.now(UTC).isoformat()
    signature = key.sign(moment.encode(), ec.ECDSA(hashes.SHA256()))
    headers = {
        "Content-Type": "application/protobuf",
        "flwr-public-key": base64.b64encode(pem).decode(),
        "flwr-timestamp": moment,
        "flwr-signature": base64.b64encode(signature).decode(),
    }
    context = ssl.create_default_context(cadata=ca_pem)
    connection = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
    try:
        connection.request("POST", _PATH, _KEY_FIELD + _varint(len(pem)) + pem, headers)
        response = connection.getresponse()
        body = response.read(_MAX_ANSWER)
    except (OSError, http.client.HTTPException) as error:
        raise ConfigError(f"{address} did not answer: {error}") from None
    finally:
        connection.close()
    code = re.search(rb'"code": ?(\d+)', body)
    answer = _ANSWERS.get((response.status, code[1].decode() if code else ""))
    if answer is None:
        raise ConfigError(f"{address} answered {response.status}, as no SuperLink known here does")
    return answer


def _varint(number: int) -> bytes:
    """Return `number` as protobuf writes lengths."""
    groups = bytearray()
    while number > 0x7F:  # noqa: PLR2004
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])
