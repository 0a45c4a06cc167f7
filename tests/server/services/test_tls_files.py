import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fondaco.server import tls
from fondaco.server.tls import TlsFiles, names_of
from fondaco.shared.errors import ConfigError


@pytest.fixture
def files(tmp_path):
    made = TlsFiles(tmp_path / "tls")
    made.make("market", ["fondaco.example", "10.1.2.3"])
    return made


def certificate_of(files):
    return x509.load_pem_x509_certificate(files.certificate.read_bytes())


def extension(certificate, kind):
    return certificate.extensions.get_extension_for_class(kind)


def handshake(files, host, trusted=None):
    """Shake hands as Python 3.13 does by default, without a network."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.certificate, files.key)
    client = ssl.create_default_context(cadata=trusted or files.ca.read_text())
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[0].version()


@pytest.mark.parametrize("name", ["Объединение магазинов города Москвы и области", "市" * 99])
def test_long_name_in_any_alphabet_is_cut_to_what_a_certificate_holds(tmp_path, name):
    made = TlsFiles(tmp_path / "tls")
    made.make(name, ["fondaco.example"])
    (title,) = made.authorities()[0].subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert title.value.startswith(f"fondaco {name[:10]}")
    assert handshake(made, "fondaco.example") == "TLSv1.3"


@pytest.mark.parametrize("host", ["fondaco.example", "10.1.2.3", "localhost", "127.0.0.1", "::1"])
def test_strict_reader_accepts_the_certificate_for_every_host(files, host):
    assert handshake(files, host) == "TLSv1.3"


def test_strict_reader_refuses_other_hosts_and_other_authorities(files, tmp_path):
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(files, "other.example")
    other = TlsFiles(tmp_path / "other")
    other.make("market", ["fondaco.example"])
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
        handshake(files, "fondaco.example", other.ca.read_text())


def test_authority_signs_certificates_alone_and_no_further_authority(files):
    (authority,) = files.authorities()
    limits, usage = (extension(authority, k) for k in (x509.BasicConstraints, x509.KeyUsage))
    assert (limits.critical, limits.value.ca, limits.value.path_length) == (True, True, 0)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert not usage.value.digital_signature
    assert (authority.not_valid_after_utc - authority.not_valid_before_utc).days == tls.CA_DAYS


def test_certificate_shows_a_server_for_ninety_days_at_most(files):
    certificate = certificate_of(files)
    assert not extension(certificate, x509.BasicConstraints).value.ca
    purposes = list(extension(certificate, x509.ExtendedKeyUsage).value)
    assert purposes == [ExtendedKeyUsageOID.SERVER_AUTH]
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert life <= timedelta(days=90)
    assert certificate.not_valid_before_utc < datetime.now(UTC) - timedelta(minutes=50)


def test_secrets_are_for_their_owner_alone(files):
    for path in (files.ca_key, files.key):
        assert path.stat().st_mode & 0o777 == 0o600
    assert files.folder.stat().st_mode & 0o777 == 0o700


def test_renewal_keeps_the_authority_and_changes_the_key(files):
    old, trusted = files.key.read_bytes(), files.ca.read_bytes()
    ends = files.renew(["new.example"])
    assert files.key.read_bytes() != old
    assert files.ca.read_bytes() == trusted
    assert ends == files.check(["new.example"])
    assert "fondaco.example" not in names_of(certificate_of(files))
    assert handshake(files, "new.example")


def test_authority_is_never_made_twice(files):
    with pytest.raises(ConfigError, match="silos trust it, so it stays"):
        files.make("market", ["fondaco.example"])


def test_silos_with_the_new_kit_never_notice_a_change_of_authority(files):
    before = files.ca.read_text()
    files.announce_next("market")
    both = files.ca.read_text()
    assert len(files.authorities()) == 2
    assert handshake(files, "localhost", before)
    assert handshake(files, "localhost", both)
    files.finish_next(["fondaco.example"])
    after = files.ca.read_text()
    assert len(files.authorities()) == 1
    assert handshake(files, "localhost", both)
    assert handshake(files, "localhost", after)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(files, "localhost", before)
    assert files.check(["fondaco.example"]) > datetime.now(UTC)


def test_change_of_authority_goes_step_by_step(files):
    with pytest.raises(ConfigError, match="run fondaco-server rotate ca"):
        files.finish_next(["fondaco.example"])
    files.announce_next("market")
    with pytest.raises(ConfigError, match="rotate ca --finish"):
        files.announce_next("market")


def test_change_of_authority_survives_a_kill_after_every_file(files, monkeypatch):
    """Each write that is cut off leaves files that the same command mends."""

    def interrupted(stop_after):
        real, done = tls.write_durably, []

        def write(path, blob):
            if len(done) == stop_after:
                raise KeyboardInterrupt
            done.append(path)
            real(path, blob)

        return write

    with monkeypatch.context() as patch:
        patch.setattr(tls, "write_durably", interrupted(1))
        with pytest.raises(KeyboardInterrupt):
            files.announce_next("market")
    files.announce_next("market")
    with monkeypatch.context() as patch:
        patch.setattr(tls, "write_durably", interrupted(1))
        with pytest.raises(KeyboardInterrupt):
            files.finish_next(["fondaco.example"])
    with pytest.raises(ConfigError, match="run fondaco-server rotate certificate"):
        files.check(["fondaco.example"])
    files.renew(["fondaco.example"])
    assert handshake(files, "fondaco.example", files.ca.read_text())


def expired(files, monkeypatch):
    monkeypatch.setattr(tls, "SERVER_DAYS", 0)
    files.renew(["fondaco.example"])


def foreign(files, tmp_path):
    other = TlsFiles(tmp_path / "other")
    other.make("market", ["fondaco.example"])
    return other


def test_certificate_that_is_over_is_named_with_its_fix(files, monkeypatch):
    expired(files, monkeypatch)
    with pytest.raises(ConfigError, match="is over; run fondaco-server rotate certificate"):
        files.check(["fondaco.example"])


def test_certificate_for_other_hosts_is_named_with_its_fix(files):
    with pytest.raises(ConfigError, match=r"does not name \['b.example'\]; run fondaco-server rot"):
        files.check(["fondaco.example", "b.example"])


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("ca.pem", "do not belong together; restore them"),
        ("ca.key", "do not belong together; restore them"),
        ("server.pem", "was not signed by .* rotate certificate"),
        ("server.key", "do not belong together; .* rotate certificate"),
    ],
)
def test_files_of_another_coordinator_are_noticed(files, tmp_path, name, problem):
    (files.folder / name).write_bytes((foreign(files, tmp_path).folder / name).read_bytes())
    with pytest.raises(ConfigError, match=problem):
        files.check(["fondaco.example"])


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("ca.pem", "holds no certificate"),
        ("ca.key", "holds no private key"),
        ("server.pem", "holds no certificate"),
        ("server.key", "holds no private key"),
    ],
)
def test_damaged_and_missing_files_are_named(files, name, problem):
    (files.folder / name).write_text("hello")
    with pytest.raises(ConfigError, match=problem):
        files.check(["fondaco.example"])
    (files.folder / name).unlink()
    with pytest.raises(ConfigError, match="does not exist"):
        files.check(["fondaco.example"])


@pytest.mark.parametrize("name", ["ca.key", "server.key"])
def test_private_keys_that_others_may_read_are_refused(files, name):
    (files.folder / name).chmod(0o640)
    with pytest.raises(ConfigError, match=rf"may be read by others; run chmod 600 .*{name}"):
        files.check(["fondaco.example"])
