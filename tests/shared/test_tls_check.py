import socket
import ssl
import threading
import time
from contextlib import contextmanager, suppress
from email.utils import formatdate

import pytest

from fondaco.server import tls
from fondaco.server.tls import TlsFiles
from fondaco.shared.errors import ConfigError
from fondaco.shared.tls_check import check_tls, contact, explain_exit

REFUSAL = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    made = TlsFiles(tmp_path_factory.mktemp("coordinator") / "tls")
    made.make("market", ["fondaco.example"])
    return made


@contextmanager
def server(files=None, reply=REFUSAL, speaks=True):
    """Answer each caller with `reply`, in TLS if there are files, and yield the address."""
    context = None
    if files is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.certificate, files.key)
    listener = socket.create_server(("127.0.0.1", 0))
    answer = (reply + b"\r\n") if speaks else b""
    thread = threading.Thread(target=serve, args=(listener, context, answer), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def serve(listener, context, answer):
    while True:
        try:
            plain, _ = listener.accept()
        except OSError:
            return
        with plain, suppress(OSError):
            end = context.wrap_socket(plain, server_side=True) if context else plain
            if end.recv(4096) and answer:
                end.sendall(answer)
            elif not answer:
                time.sleep(0.7)
            end.close()


def refusal(address, files, timeout_s=5.0):
    with pytest.raises(ConfigError) as caught:
        check_tls(address, files.ca.read_text(), timeout_s)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_superlink_that_refuses_strangers_is_the_right_one(files):
    with server(files) as address:
        check_tls(address, files.ca.read_text())


def test_contact_tells_when_the_certificate_ends_and_how_the_clocks_differ(files):
    dated = REFUSAL + f"Date: {formatdate(time.time() - 100, usegmt=True)}\r\n".encode()
    with server(files, dated) as address:
        found = contact(address, files.ca.read_text())
    assert found.tls == "TLSv1.3"
    assert found.clock_offset_s in range(98, 104)
    ends = files.check(["fondaco.example"]).timestamp()
    assert abs(found.expires - ends) < 2
    with server(files) as address:
        assert contact(address, files.ca.read_text()).clock_offset_s is None


def test_both_authorities_of_a_change_are_trusted(files, tmp_path):
    other = TlsFiles(tmp_path / "tls")
    other.make("market", ["fondaco.example"])
    with server(files) as address:
        check_tls(address, other.ca.read_text() + files.ca.read_text())


def test_wrong_authority_asks_for_a_new_kit(files, tmp_path):
    other = TlsFiles(tmp_path / "tls")
    other.make("market", ["fondaco.example"])
    with server(other) as address:
        text = refusal(address, files)
    assert "authority did not sign" in text
    assert "ask the coordinator for a new kit" in text


def test_expired_certificate_names_clock_and_renewal(tmp_path, monkeypatch):
    monkeypatch.setattr(tls, "SERVER_DAYS", 0)
    old = TlsFiles(tmp_path / "tls")
    old.make("market", ["fondaco.example"])
    with server(old) as address:
        text = refusal(address, old)
    assert "certificate that is over; set this machine's clock" in text
    assert "fondaco-server rotate certificate" in text


def test_certificate_of_the_future_names_the_clock(tmp_path, monkeypatch):
    monkeypatch.setattr(tls, "_BACKDATED", -tls.timedelta(hours=1))
    new = TlsFiles(tmp_path / "tls")
    new.make("market", ["fondaco.example"])
    with server(new) as address:
        text = refusal(address, new)
    assert "set this machine's clock" in text


def test_wrong_host_names_it(tmp_path, monkeypatch):
    monkeypatch.setattr(tls, "LOCAL", ())
    elsewhere = TlsFiles(tmp_path / "tls")
    elsewhere.make("market", ["fondaco.example"])
    with server(elsewhere) as address:
        text = refusal(address, elsewhere)
        assert "does not name 127.0.0.1; use the address in the kit" in text
        port = address.partition(":")[2]
        assert "does not name localhost" in refusal(f"localhost:{port}", elsewhere)


def test_plaintext_server_is_never_used(files):
    with server(None, b"HTTP/1.1 400 Bad Request\r\n") as address:
        assert "answers without TLS, which is never used" in refusal(address, files)


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (b"HTTP/1.1 502 Bad Gateway\r\n", "the SuperLink behind it does not"),
        (b"HTTP/1.1 404 Not Found\r\n", "answered 404 where a SuperLink asks for a node key"),
        (b"SSH-2.0-OpenSSH\r\n", "did not speak HTTP"),
        (REFUSAL + b"date: tomorrow\r\n", ""),
    ],
)
def test_whatever_else_answers_is_told_apart(files, reply, problem):
    with server(files, reply) as address:
        if problem:
            assert problem in refusal(address, files)
        else:
            assert contact(address, files.ca.read_text()).clock_offset_s is None


def test_silence_is_noticed_in_time(files):
    with server(None, speaks=False) as address:
        assert "did not answer in time" in refusal(address, files, timeout_s=0.3)


def test_nobody_and_nowhere_are_named(files):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert f"nobody listens at 127.0.0.1:{port}" in refusal(f"127.0.0.1:{port}", files)
    assert "is unknown here; check the DNS" in refusal("nowhere.invalid:8443", files)


def test_kit_without_certificates_asks_for_another():
    with pytest.raises(ConfigError, match="cannot be read; ask the coordinator for a new kit"):
        check_tls("127.0.0.1:1", "hello")


FLOWER = "ERROR : Exit Code: 305\nFailed to initialize the connection to the SuperLink.\n"


@pytest.mark.parametrize(
    ("tail", "fix"),
    [
        (FLOWER + "[code: 2004] Failed to activate SuperNode.", "fondaco-server register FILE"),
        (FLOWER + "[code: 2001] SuperNode authentication is enabled.", "fondaco-client run"),
        (FLOWER + "certificate verify failed: unable to get local issuer", "exit code 305"),
        (FLOWER + "[SSL: CERTIFICATE_VERIFY_FAILED] unable to get", "init --kit KIT"),
        (FLOWER + "CERTIFICATE_VERIFY_FAILED: certificate has expired", "rotate certificate"),
        (FLOWER + "IP address mismatch, certificate is not valid for", "names other hosts"),
        (FLOWER + "[SSL: WRONG_VERSION_NUMBER] wrong version", "without TLS"),
        ("ERROR: Exit Code: 303\nInsecure connection", "fondaco-client run"),
        ("Connection attempt failed, retrying in 0.96 seconds", "nobody answered"),
        ("INFO : SuperNode terminated gracefully.", "took its node key off the list"),
        ("Exit Code: 999", "Flower ended with its exit code 999"),
    ],
)
def test_exit_of_flower_is_explained_with_a_fix(tail, fix):
    assert fix in explain_exit(1, tail)


def test_exit_without_words_names_signal_or_code():
    assert "signal 9" in explain_exit(-9, "")
    assert "exit code 3" in explain_exit(3, "")
