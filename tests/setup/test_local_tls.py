"""The certificate for localhost: accepted by a strict TLS client, made anew only when it must be."""

import socket
import ssl
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from tests.server.certificates import Authority
from tests.waiting import PATIENCE

from holdfast import trust
from holdfast.setup.local_tls import LIFETIME, LocalTls, ensure_local_tls

NOW = datetime.now(UTC)


@pytest.fixture
def files(tmp_path: Path) -> LocalTls:
    made = LocalTls.below(tmp_path)
    assert ensure_local_tls(made, now=NOW)
    return made


def handshake(files: LocalTls, host: str) -> None:
    """Connects a verifying client to a server with these files; raises what the client's handshake raises."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(files.certificate, files.private_key)
    client_context = trust.client_context(files.authority)
    client_context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENCE)
    theirs.settimeout(PATIENCE)

    def serve() -> None:
        try:
            server_context.wrap_socket(theirs, server_side=True).close()
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client_context.wrap_socket(ours, server_hostname=host).close()
    finally:
        ours.close()
        thread.join(PATIENCE)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_strict_client_accepts_every_local_name(files: LocalTls, host: str) -> None:
    handshake(files, host)


def test_client_refuses_another_name(files: LocalTls) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(files, "xks.example.com")


def test_only_the_owner_reads_the_private_key(files: LocalTls) -> None:
    assert stat.S_IMODE(files.private_key.stat().st_mode) == 0o600


def test_authority_key_is_kept_nowhere(files: LocalTls) -> None:
    """Whoever steals the directory cannot sign for other hosts."""
    authority = x509.load_pem_x509_certificate(files.authority.read_bytes())
    keys = [path for path in files.authority.parent.iterdir() if b"PRIVATE KEY" in path.read_bytes()]
    assert keys == [files.private_key]
    kept = serialization.load_pem_private_key(files.private_key.read_bytes(), None)
    assert kept.public_key() != authority.public_key()


def test_usable_files_are_kept(files: LocalTls) -> None:
    before = files.certificate.read_bytes()
    assert not ensure_local_tls(files, now=NOW + timedelta(days=300))
    assert files.certificate.read_bytes() == before


def test_certificate_is_renewed_a_month_before_it_ends(files: LocalTls) -> None:
    assert ensure_local_tls(files, now=NOW + LIFETIME - timedelta(days=29))


@pytest.mark.parametrize("lost", ["authority", "certificate", "private_key"])
def test_set_that_a_crash_left_incomplete_is_made_anew(files: LocalTls, lost: str) -> None:
    getattr(files, lost).unlink()
    assert ensure_local_tls(files, now=NOW)
    handshake(files, "localhost")


def test_key_of_another_run_is_not_paired_with_this_certificate(files: LocalTls, tmp_path: Path) -> None:
    """A run that stopped after the key alone was replaced."""
    other = LocalTls.below(tmp_path / "other")
    other.authority.parent.mkdir()
    ensure_local_tls(other, now=NOW)
    other.private_key.replace(files.private_key)
    assert ensure_local_tls(files, now=NOW)
    handshake(files, "localhost")


def test_a_certificate_of_another_authority_is_never_replaced(files: LocalTls, tmp_path: Path) -> None:
    """Who serves a public certificate from this directory and runs `make run` again still has its private key."""
    theirs = Authority(tmp_path, "theirs").issue("xks.example.com", file="theirs-server")
    files.certificate.write_bytes(theirs.certificate.read_bytes())
    files.private_key.write_bytes(theirs.private_key.read_bytes())
    assert not ensure_local_tls(files, now=NOW)
    assert files.certificate.read_bytes() == theirs.certificate.read_bytes()
    assert files.private_key.read_bytes() == theirs.private_key.read_bytes()
