"""Is the coordinator there, and is it the one the kit names? Every "no" says what to do.

Flower's SuperNode says as little as "Failed to activate SuperNode", and nothing at all where
nobody answers: `check_tls` finds out before it starts, `explain_exit` afterwards.
"""

import re
import socket
import ssl
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from .address import split_address
from .errors import ConfigError

TIMEOUT_S = 10.0

_ASK_KIT = "ask the coordinator for a new kit and run fondaco-client init --kit KIT"
_PROBE = "/v1/fleet/get-run"
_REFUSES = 401
_PROXY_ERRORS = (502, 503, 504)
_MAX_REPLY = 8192
_NO_TLS = ("wrong_version", "record_layer", "packet_length", "http_request", "unexpected_message")

# numbers of OpenSSL's X509_V_ERR_*
_NOT_YET, _EXPIRED, _WRONG_NAMES = 9, 10, (62, 64)
_VERIFY = {
    _NOT_YET: "shows a certificate that is not valid yet; set this machine's clock",
    _EXPIRED: "shows a certificate that is over; set this machine's clock, or else the coordinator "
    "runs fondaco-server rotate certificate",
}


@dataclass(frozen=True, kw_only=True)
class Contact:
    """What was learnt by asking.

    Attributes:
        tls: version of the protocol.
        expires: when the coordinator's certificate ends [unix s].
        clock_offset_s: this machine's clock minus the coordinator's, whole seconds; None if it
            did not say.
    """

    tls: str
    expires: float
    clock_offset_s: int | None


def check_tls(address: str, ca_pem: str, timeout_s: float = TIMEOUT_S) -> None:
    """Return if a SuperLink answers at `address` with a certificate that `ca_pem` signed.

    Raises:
        ConfigError: it does not; the text says what to do.
    """
    contact(address, ca_pem, timeout_s)


def contact(address: str, ca_pem: str, timeout_s: float = TIMEOUT_S) -> Contact:
    """Return what the SuperLink at `address` says about itself; no key is shown to it.

    Args:
        address: `host:port`.
        ca_pem: certificates (PEM) of whom to trust, as a kit brings them.
        timeout_s: for each step.

    Raises:
        ConfigError: there is none, or it is not to be trusted; the text says what to do.
    """
    host, port = split_address(address)
    context = _context(ca_pem)
    try:
        with socket.create_connection((host, port), timeout_s) as plain:
            try:
                with context.wrap_socket(plain, server_hostname=host) as secure:
                    shown = secure.getpeercert() or {}
                    version = secure.version() or ""
                    reply = _ask(secure, address)
            except (OSError, ValueError) as error:
                raise ConfigError(_tls_problem(address, host, error)) from None
    except OSError as error:
        raise ConfigError(_way_problem(address, host, error)) from None
    status, offset = _read_reply(reply)
    _check_status(address, status)
    expires = ssl.cert_time_to_seconds(str(shown["notAfter"]))
    return Contact(tls=version, expires=expires, clock_offset_s=offset)


def explain_exit(exit_code: int | None, log_tail: str) -> str:
    """Return in one line why a SuperNode or SuperExec ended, and what to do.

    Args:
        exit_code: the process's; Flower ends with 1 whatever happened, and writes its own code.
        log_tail: the last lines that the process wrote.
    """
    for pattern, text in _REASONS:
        if re.search(pattern, log_tail, re.IGNORECASE):
            return text
    codes = re.findall(r"Exit Code: (\d+)", log_tail)
    if codes:
        return f"Flower ended with its exit code {codes[-1]}; its last lines say more"
    if exit_code is not None and exit_code < 0:
        return f"it was ended by signal {-exit_code}; if nobody did, look for a lack of memory"
    return f"it ended with exit code {exit_code}; its last lines say more"


_REASONS = (
    (
        r"code: 2004\]",
        "the coordinator does not know this node key, or still counts on an earlier connection: if "
        "it was connected before, wait a minute; otherwise hand it the registration file again "
        "(fondaco-server register FILE)",
    ),
    (
        r"code: 2001\]",
        "the coordinator takes nodes with a registered key alone, and this one started without; "
        "start it with fondaco-client run",
    ),
    (
        r"401 Unauthorized|Invalid SuperNode authentication",
        "the coordinator no longer takes this node key: it was replaced or removed, or this "
        "machine's clock is off by minutes; see fondaco-client doctor",
    ),
    (r"certificate has expired", f"the coordinator {_VERIFY[_EXPIRED]}"),
    (r"certificate is not yet valid", f"the coordinator {_VERIFY[_NOT_YET]}"),
    (
        r"Hostname mismatch|IP address mismatch",
        f"the coordinator's certificate names other hosts than the address in use; {_ASK_KIT}",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED",
        "the coordinator's certificate was not signed by the authority in the kit: it changed "
        f"its authority, or this is somebody else; {_ASK_KIT}",
    ),
    (
        r"WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE",
        "the coordinator's address answers without TLS, which is never used; ask the coordinator",
    ),
    (
        r"Exit Code: 303",
        "it was to connect without TLS, which is never used; start it with fondaco-client run",
    ),
    (
        r"Exit Code: 302",
        "the node key is damaged; make a new one with fondaco-client keys --rotate-node",
    ),
    (
        r"Exit Code: 401|SuperExec auth(?:entication)? secret",
        "it cannot read the secret that Flower's programs share; run as the user it belongs to",
    ),
    (r"Exit Code: 606", "coordinator and silo run different versions of Flower; update the older"),
    (
        r"address already in use|EADDRINUSE|Errno 98",
        "its port is in use: another copy runs, or choose another port",
    ),
    (
        r"SuperNode terminated gracefully",
        "somebody ended it, or the coordinator took its node key off the list while it was "
        "connected; see fondaco-client doctor",
    ),
    (
        r"Connection attempt failed, retrying",
        "nobody answered at the coordinator's address; see fondaco-client doctor",
    ),
)
"""What a log says -> why, and what to do; the first that fits."""


def _context(ca_pem: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=ca_pem)
    except (ssl.SSLError, ValueError):
        raise ConfigError(f"the authority's certificate cannot be read; {_ASK_KIT}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _ask(secure: ssl.SSLSocket, address: str) -> bytes:
    """Ask without any key: a SuperLink refuses that, and so shows that it is one."""
    head = f"POST {_PROBE} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n"
    body = "Content-Type: application/protobuf\r\nContent-Length: 0\r\n\r\n"
    secure.sendall((head + body).encode())
    reply = b""
    while len(reply) < _MAX_REPLY and (part := secure.recv(_MAX_REPLY)):
        reply += part
    return reply


def _read_reply(reply: bytes) -> tuple[int, int | None]:
    head = reply.partition(b"\r\n\r\n")[0].decode("latin-1")
    status = re.match(r"HTTP/1\.[01] (\d{3})", head)
    dated = re.search(r"^date: *(.+?)\r?$", head, re.IGNORECASE | re.MULTILINE)
    offset = None
    if dated:
        try:
            offset = round(time.time() - parsedate_to_datetime(dated[1]).timestamp())
        except ValueError:
            offset = None
    return (int(status[1]) if status else 0), offset


def _check_status(address: str, status: int) -> None:
    if status in _PROXY_ERRORS:
        raise ConfigError(
            f"{address} answers, but the SuperLink behind it does not ({status}); the coordinator "
            "should look whether fondaco-server start is running"
        )
    if status != _REFUSES:
        said = f"answered {status}" if status else "did not speak HTTP"
        raise ConfigError(
            f"{address} {said} where a SuperLink asks for a node key; ask the coordinator whether "
            "the address is right and its proxy passes /v1/fleet/ on"
        )


def _tls_problem(address: str, host: str, error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _WRONG_NAMES:
            return (
                f"{address} shows a certificate that does not name {host}; use the address in the "
                f"kit, or {_ASK_KIT}"
            )
        if error.verify_code in _VERIFY:
            return f"{address} {_VERIFY[error.verify_code]}"
        return (
            f"{address} shows a certificate that the kit's authority did not sign: the coordinator "
            f"changed its authority, or this is somebody else; {_ASK_KIT}, and compare fingerprints"
        )
    reason = str(getattr(error, "reason", "") or "").lower()
    if isinstance(error, ssl.SSLEOFError) or any(word in reason for word in _NO_TLS):
        return f"{address} answers without TLS, which is never used; ask the coordinator"
    if isinstance(error, TimeoutError):
        return f"{address} did not answer in time; something between may hold it back (firewall)"
    return f"{address} broke the connection off ({error}); ask the coordinator"


def _way_problem(address: str, host: str, error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return f"the name {host} of {address} is unknown here; check the DNS, or the address"
    if isinstance(error, TimeoutError):
        return (
            f"{address} does not answer; allow outgoing connections to it in the firewall, or ask "
            "the coordinator whether it is running"
        )
    if isinstance(error, ConnectionRefusedError):
        return f"nobody listens at {address}; ask the coordinator whether it is running"
    return f"{address} cannot be reached ({error}); check this machine's network"
