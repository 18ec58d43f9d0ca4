"""TLS of the running server: versions, suites, certificates that change, client certificates."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from tests.server.certificates import Authority, Pair
from tests.server.client import trusting
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.server.conftest import Serve
    from tests.server.proxy_server import ProxyServer

pytestmark = pytest.mark.server

SUBJECT = "cks.kms.us-east-2.amazonaws.com"
PING = b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n"


def connect(server: ProxyServer, context: ssl.SSLContext) -> ssl.SSLSocket:
    sock = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
    try:
        return context.wrap_socket(sock, server_hostname="localhost")
    except BaseException:
        sock.close()
        raise


def context(server: ProxyServer, version: ssl.TLSVersion, ciphers: str = "DEFAULT") -> ssl.SSLContext:
    made = trusting(server.authority.certificate)
    made.minimum_version = made.maximum_version = version
    made.set_ciphers(ciphers)
    return made


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("certificate", ["ecdsa", "rsa"])
def test_tls_1_2_and_1_3_are_spoken_with_both_kinds_of_keys(serve: Serve, certificate: str, version: str) -> None:
    server = serve(certificate=certificate)
    with connect(server, context(server, ssl.TLSVersion[version])) as tls:
        assert tls.version() == version.replace("_", ".")
        assert (tls.cipher() or ("",))[0].endswith(("AES256-GCM-SHA384", "AES_256_GCM_SHA384"))


REFUSED_SUITES = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES256-SHA384",
    "AES256-GCM-SHA384",
    "DHE-RSA-AES256-GCM-SHA384",
)


@pytest.mark.parametrize("suite", REFUSED_SUITES)
def test_of_tls_1_2_only_the_suites_of_the_specification_are_spoken(shared: ProxyServer, suite: str) -> None:
    with pytest.raises(ssl.SSLError, match=r"(?i)handshake.failure|eof occurred|connection has been closed .eof"):
        connect(shared, context(shared, ssl.TLSVersion.TLSv1_2, suite))


def test_tls_1_1_is_refused(shared: ProxyServer) -> None:
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old = context(shared, ssl.TLSVersion.TLSv1_1, "DEFAULT:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        connect(shared, old)


@pytest.mark.parametrize("offered", [["h2", "http/1.1"], ["http/1.1"], []])
def test_http_1_1_is_agreed_on_whatever_else_is_offered(shared: ProxyServer, offered: list[str]) -> None:
    """Spec, "API content type": fall back to HTTP 1.1."""
    client = trusting(shared.authority.certificate)
    if offered:
        client.set_alpn_protocols(offered)
    with connect(shared, client) as tls:
        assert tls.selected_alpn_protocol() == ("http/1.1" if offered else None)
        tls.sendall(PING)
        assert tls.recv(100).startswith(b"HTTP/1.1 200")


def speaks_aes_128(server: ProxyServer) -> bool:
    """Whether a client with this one suite of TLS 1.3 is served; Python's ssl cannot be such a client."""
    suite = ["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"]
    command = ["openssl", "s_client", "-brief", *suite, "-connect", f"127.0.0.1:{server.port}"]
    result = subprocess.run(command, input=b"", capture_output=True, timeout=PATIENCE, check=False)
    return b"CONNECTION ESTABLISHED" in result.stderr


def test_of_tls_1_3_the_operators_openssl_configuration_may_keep_only_the_suites_of_the_specification(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/spec-divergences.md says so: Python's ssl has no call for it before 3.15."""
    assert speaks_aes_128(serve())
    sections = ("openssl_conf = all", "[all]", "ssl_conf = ssl", "[ssl]", "system_default = suites", "[suites]")
    file = tmp_path / "openssl.cnf"
    file.write_text("\n".join((*sections, "Ciphersuites = TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256\n")))
    monkeypatch.setenv("OPENSSL_CONF", str(file))
    restricted = serve()
    assert not speaks_aes_128(restricted)
    restricted.round_trip()


def serial(server: ProxyServer) -> str:
    with connect(server, trusting(server.authority.certificate)) as tls:
        return str((tls.getpeercert() or {})["serialNumber"])


def test_a_new_certificate_is_used_without_a_restart_and_without_a_signal(serve: Serve) -> None:
    server = serve(workers=2)
    before, pids = serial(server), server.worker_pids()
    with connect(server, trusting(server.authority.certificate)) as kept:
        server.authority.issue("localhost", file="server")
        server.eventually(lambda: serial(server) != before, within=5, what="a new certificate")
        kept.sendall(PING)
        assert kept.recv(100).startswith(b"HTTP/1.1 200")
    assert server.worker_pids() == pids


def test_a_key_that_does_not_belong_to_the_certificate_is_refused_loudly_and_the_old_pair_stays(serve: Serve) -> None:
    server = serve()
    before = serial(server)
    other = server.authority.issue("localhost", file="other")
    shutil.copy(other.private_key, server.certificate.private_key)
    server.hangup()
    server.eventually(lambda: "does not belong to the certificate" in server.stderr(), within=5, what="a refusal")
    assert serial(server) == before


def test_without_tls_files_the_server_does_not_start_and_says_why(serve: Serve) -> None:
    server = serve()
    server.stop()
    server.certificate.private_key.write_text("not a key")
    with pytest.raises(AssertionError, match="not a PEM certificate chain and its PEM key"):
        server.start()


VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
REQUEST = b"POST /test/kms/xks/v1/health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"


def handshake_of(server: ProxyServer, pair: Pair | None, version: ssl.TLSVersion) -> str:
    """How the server ends a handshake with this certificate: the alert's name, "" for a close; "HTTP" if it does not.

    The request is sent at once: a client of TLS 1.3 may not know yet that it is refused.
    """
    client = trusting(
        server.authority.certificate, client=None if pair is None else (pair.certificate, pair.private_key)
    )
    client.minimum_version = client.maximum_version = version
    try:
        with connect(server, client) as tls:
            tls.sendall(REQUEST)
            return "HTTP" if tls.recv(100) else ""
    except ssl.SSLError as error:
        return (error.reason or "").rpartition("ALERT_")[2] if "ALERT" in (error.reason or "") else ""
    except ConnectionError:
        return ""


@VERSIONS
def test_with_mutual_tls_only_the_named_subject_of_the_named_authority_reaches_http(
    serve: Serve, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    server = serve(client_subject=SUBJECT)
    right = server.client_certificate(SUBJECT, file="client")
    late = server.client_certificate(SUBJECT, file="late", valid=timedelta(days=-1))
    stranger = Authority(tmp_path, "stranger").issue(SUBJECT, file="stranger-client")
    # RFC 8446, 4.4.2.4 and 6.2; a server of TLS 1.2 has no better word for a certificate that is missing.
    missing = "CERTIFICATE_REQUIRED" if version is ssl.TLSVersion.TLSv1_3 else "HANDSHAKE_FAILURE"
    assert handshake_of(server, None, version) == missing
    assert handshake_of(server, late, version) == "CERTIFICATE_EXPIRED"
    assert handshake_of(server, stranger, version) == "UNKNOWN_CA"
    assert handshake_of(server, right, version) == "HTTP"
    (event,) = server.wait_for_events(1)
    assert event["errorName"] == "AuthenticationFailedException", "what the others sent was never read as HTTP"
    with server.caller(client=right) as caller:
        assert caller.encrypt(b"over mutual TLS").status == 200


def test_a_refused_client_that_stays_after_the_alert_is_cut_off(serve: Serve) -> None:
    server = serve(client_subject=SUBJECT, server={"read_timeout_s": 0.5})
    # Without a certificate. A client of TLS 1.3 hears of its refusal when it reads.
    with connect(server, trusting(server.authority.certificate)) as tls:
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
            tls.recv(1)
        assert socket.socket.recv(tls, 1) == b"", "below TLS: the server has ended the connection"


def test_another_client_authority_is_trusted_without_a_restart(serve: Serve, tmp_path: Path) -> None:
    server = serve(client_subject=SUBJECT)
    successor = Authority(tmp_path, "successor")
    old, new = server.client_certificate(SUBJECT, file="client"), successor.issue(SUBJECT, file="successor-client")
    version, pids = ssl.TLSVersion.TLSv1_3, server.worker_pids()
    assert [handshake_of(server, pair, version) for pair in (old, new)] == ["HTTP", "UNKNOWN_CA"]
    shutil.copy(successor.certificate, server.client_authority.certificate)
    server.eventually(lambda: handshake_of(server, new, version) == "HTTP", within=5, what="the successor's client")
    assert handshake_of(server, old, version) == "UNKNOWN_CA"
    assert server.worker_pids() == pids


@VERSIONS
@pytest.mark.parametrize("name", ["cks.kms.us-west-2.amazonaws.com", f"{SUBJECT}.example.org", SUBJECT.upper()])
def test_with_mutual_tls_the_handshake_ends_for_another_subject_of_the_named_authority(
    serve: Serve, version: ssl.TLSVersion, name: str
) -> None:
    """Spec, "Authentication". A client of TLS 1.3 has finished its own part by then, and is told nothing."""
    server = serve(client_subject=SUBJECT)
    other = server.client_certificate(name, file="other")
    told = handshake_of(server, other, version)
    assert told == ("ACCESS_DENIED" if version is ssl.TLSVersion.TLSv1_2 else "")
    assert handshake_of(server, server.client_certificate(SUBJECT, file="client"), version) == "HTTP"
    assert len(server.wait_for_events(1)) == 1


def test_no_session_is_resumed_in_tls_1_3(serve: Serve) -> None:
    """A ticket's key would live as long as the worker."""
    server = serve()
    context = trusting(server.authority.certificate)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with (
        socket.create_connection(("localhost", server.port), PATIENCE) as sock,
        context.wrap_socket(sock, server_hostname="localhost") as tls,
    ):
        tls.sendall(PING)
        assert tls.recv(100)
        assert tls.session is None or not tls.session.has_ticket


def test_a_resumed_session_does_not_outlive_the_client_certificate(serve: Serve) -> None:
    """Resumption verifies no certificate: it would let an expired one in for as long as the ticket lives."""
    server = serve(client_subject=SUBJECT)
    session: ssl.SSLSession | None = None
    resumed = 0
    tls_1_2 = trusting(server.authority.certificate)

    def reaches() -> bool:
        nonlocal session, resumed
        with (
            socket.create_connection(("localhost", server.port), PATIENCE) as sock,
            tls_1_2.wrap_socket(sock, server_hostname="localhost", session=session) as tls,
        ):
            resumed += bool(tls.session_reused)
            tls.sendall(PING)
            answered = tls.recv(100) != b""
            session = tls.session or session
            return answered

    for seconds in (3, 15, 60):  # a busy machine may need longer for two connections
        began = time.monotonic()
        client = server.client_certificate(SUBJECT, file="short", valid=timedelta(seconds=seconds))
        tls_1_2 = trusting(server.authority.certificate, client=(client.certificate, client.private_key))
        tls_1_2.maximum_version = ssl.TLSVersion.TLSv1_2
        session, resumed = None, 0
        if _quietly(reaches) and _quietly(reaches) and time.monotonic() < began + seconds - 1:
            break
    assert resumed == 1
    server.eventually(lambda: not _quietly(reaches), within=seconds + 6, what="the expired certificate is refused")


def _quietly(reaches: Callable[[], bool]) -> bool:
    try:
        return reaches()
    except (ssl.SSLError, ConnectionError):
        return False


def test_a_connection_that_never_begins_its_handshake_is_ended(serve: Serve) -> None:
    server = serve(server={"read_timeout_s": 0.5})
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as silent:
        assert silent.recv(1) == b""


def test_plain_http_on_the_tls_port_ends_the_connection(shared: ProxyServer) -> None:
    with socket.create_connection(("127.0.0.1", shared.port), PATIENCE) as plain:
        plain.sendall(PING)
        assert not plain.recv(1000).startswith(b"HTTP/1.1 200")
