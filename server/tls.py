"""The coordinator's own certificate authority, and the certificate that its SuperLink shows.

`tls/ca.pem` is what silos trust: the authority's certificate, and behind it the next authority's
while one replaces the other. `ca.key` signs; `server.pem` and `server.key` are what is shown.
Built so that a strict reader (RFC 5280, Python 3.13's defaults) accepts them.
"""

import ipaddress
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fondaco.shared.address import is_ip
from fondaco.shared.errors import ConfigError
from fondaco.shared.files import write_durably

CA_DAYS, SERVER_DAYS, RENEW_DAYS = 3650, 90, 30
LOCAL = ("localhost", "127.0.0.1", "::1")
_BACKDATED = timedelta(hours=1)
_CURVE = ec.SECP256R1
_NO_USE = {
    "digital_signature": False,
    "content_commitment": False,
    "key_encipherment": False,
    "data_encipherment": False,
    "key_agreement": False,
    "key_cert_sign": False,
    "crl_sign": False,
    "encipher_only": False,
    "decipher_only": False,
}


@dataclass(frozen=True)
class TlsFiles:
    """The files of a coordinator's TLS, in one folder."""

    folder: Path

    @property
    def ca(self) -> Path:
        """What silos trust: one certificate, two while the authority changes."""
        return self.folder / "ca.pem"

    @property
    def ca_key(self) -> Path:
        """The authority's private key."""
        return self.folder / "ca.key"

    @property
    def certificate(self) -> Path:
        """What the SuperLink shows."""
        return self.folder / "server.pem"

    @property
    def key(self) -> Path:
        """The private key of what the SuperLink shows."""
        return self.folder / "server.key"

    @property
    def next_key(self) -> Path:
        """The private key of the authority that is to follow."""
        return self.folder / "ca-next.key"

    @property
    def all(self) -> tuple[Path, ...]:
        """What must be there before a SuperLink can start."""
        return self.ca, self.ca_key, self.certificate, self.key

    def make(self, name: str, hosts: Sequence[str]) -> None:
        """Make an authority and a certificate for `hosts`.

        Raises:
            ConfigError: there is an authority already.
        """
        if self.ca_key.exists() or self.ca.exists():
            raise ConfigError(f"{self.folder} holds an authority; silos trust it, so it stays")
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder.chmod(0o700)
        key = ec.generate_private_key(_CURVE())
        write_durably(self.ca_key, _pem_of(key))
        write_durably(self.ca, _pem(_authority(name, key)))
        self.renew(hosts)

    def renew(self, hosts: Sequence[str]) -> datetime:
        """Write a new server key and certificate; return the last moment at which it is good.

        Raises:
            ConfigError: the authority's files are missing, damaged or readable by others.
        """
        signer, authority = self._signer(), self.authorities()[0]
        key = ec.generate_private_key(_CURVE())
        certificate = _leaf(list(dict.fromkeys([*hosts, *LOCAL])), key, signer, authority)
        # Whoever starts between the two sees a key that does not fit, and says so.
        write_durably(self.key, _pem_of(key))
        write_durably(self.certificate, _pem(certificate))
        return certificate.not_valid_after_utc

    def announce_next(self, name: str) -> None:
        """Make the authority that is to follow, and trust both; the present one still signs.

        Raises:
            ConfigError: one was announced already.
        """
        if self.next_key.exists() and len(self.authorities()) > 1:
            raise ConfigError(
                "a next authority was announced already; once every silo has a kit that holds "
                "both, run fondaco-server rotate ca --finish"
            )
        present = self.authorities()[0]
        key = ec.generate_private_key(_CURVE())
        write_durably(self.next_key, _pem_of(key))
        write_durably(self.ca, _pem(present) + _pem(_authority(name, key)))

    def finish_next(self, hosts: Sequence[str]) -> None:
        """Let the announced authority take over, and trust no other.

        Raises:
            ConfigError: none was announced.
        """
        if not self.next_key.exists():
            raise ConfigError("no next authority was announced; run fondaco-server rotate ca")
        following = self.authorities()[-1]
        if not _belong(_load_key(self.next_key), following):
            raise ConfigError(f"{self.ca} and {self.next_key} do not belong together")
        write_durably(self.ca, _pem(following))
        self.next_key.replace(self.ca_key)
        self.renew(hosts)

    def authorities(self) -> list[x509.Certificate]:
        """Return the certificates that silos trust, the signing one first.

        Raises:
            ConfigError: there are none, or the file is damaged.
        """
        return _load_certificates(self.ca)

    def expires(self) -> datetime:
        """Return the last moment at which the certificate is good.

        Raises:
            ConfigError: there is none, or the file is damaged.
        """
        return _load_certificates(self.certificate)[0].not_valid_after_utc

    def check(self, hosts: Sequence[str]) -> datetime:
        """Return until when the certificate is good.

        Raises:
            ConfigError: a file is missing, damaged, readable by others or does not fit the
                others, or the certificate is over or names other hosts; the text says what to do.
        """
        fix = "run fondaco-server rotate certificate"
        certificate, authority = _load_certificates(self.certificate)[0], self.authorities()[0]
        if not _belong(self._signer(), authority):
            raise ConfigError(f"{self.ca} and {self.ca_key} do not belong together; restore them")
        try:
            certificate.verify_directly_issued_by(authority)
        except (InvalidSignature, ValueError, TypeError):
            raise ConfigError(f"{self.certificate} was not signed by {self.ca}; {fix}") from None
        if not _belong(_load_key(self.key), certificate):
            raise ConfigError(f"{self.certificate} and {self.key} do not belong together; {fix}")
        missing = set(hosts) - set(names_of(certificate))
        if missing:
            raise ConfigError(f"{self.certificate} does not name {sorted(missing)}; {fix}")
        if certificate.not_valid_after_utc <= datetime.now(UTC):
            raise ConfigError(f"{self.certificate} is over; {fix}")
        return certificate.not_valid_after_utc

    def _signer(self) -> ec.EllipticCurvePrivateKey:
        return _load_key(self.ca_key)


def names_of(certificate: x509.Certificate) -> list[str]:
    """Return the host names and addresses that a certificate is for."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    hosts = names.get_values_for_type(x509.DNSName)
    return [*hosts, *map(str, names.get_values_for_type(x509.IPAddress))]


def _authority(name: str, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    now = datetime.now(UTC)
    # The serial number keeps the names of two authorities of one coordinator apart.
    serial = x509.random_serial_number()
    title = _name(_cut(f"fondaco {name}", 46) + f" CA {serial & 0xFFFFFFFF:08x}")
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    usage = x509.KeyUsage(**{**_NO_USE, "key_cert_sign": True, "crl_sign": True})
    return (
        x509.CertificateBuilder(title, title, key.public_key(), serial)
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now - _BACKDATED + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(own, critical=False)
        .sign(key, hashes.SHA256())
    )


def _leaf(
    hosts: Sequence[str],
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate,
) -> x509.Certificate:
    now = datetime.now(UTC)
    above = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    identifier = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(above)
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    usage = x509.KeyUsage(**{**_NO_USE, "digital_signature": True})
    purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    ends = min(now - _BACKDATED + timedelta(days=SERVER_DAYS), authority.not_valid_after_utc)
    return (
        x509.CertificateBuilder(
            authority.subject, _name(hosts[0]), key.public_key(), x509.random_serial_number()
        )
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(purpose, critical=False)
        .add_extension(x509.SubjectAlternativeName(list(map(_general_name, hosts))), critical=False)
        .add_extension(own, critical=False)
        .add_extension(identifier, critical=False)
        .sign(signer, hashes.SHA256())
    )


def _general_name(host: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(host)) if is_ip(host) else x509.DNSName(host)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _cut(text, 64))])


def _cut(text: str, n_bytes: int) -> str:
    return text.encode()[:n_bytes].decode(errors="ignore")


def _belong(key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> bool:
    return key.public_key() == certificate.public_key()


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    form, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, none)


def _load_certificates(path: Path) -> list[x509.Certificate]:
    fix = "restore it, or make a new home with fondaco-server init"
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; {fix}") from None
    except ValueError:
        raise ConfigError(f"{path} holds no certificate; {fix}") from None


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    private_file(path)
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError):
        raise ConfigError(f"{path} holds no private key; restore it from a backup") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{path} holds another kind of key than fondaco-server made")
    return key


def private_file(path: Path) -> Path:
    """Return `path` if it is a file that nobody but its owner may read.

    Raises:
        ConfigError: it is missing, another user's, or others may read it.
    """
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; restore it from a backup")
    found = path.stat()
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise ConfigError(f"{path} may be read by others; run chmod 600 {path}")
    if found.st_uid not in (os.geteuid(), 0):
        raise ConfigError(f"{path} belongs to another user; run as that user, or chown it")
    return path
