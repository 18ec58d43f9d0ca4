"""TLS 1.2 and 1.3 as KMS asks for it, optionally with a client certificate."""

import ssl
from collections.abc import Callable
from datetime import datetime
from typing import Any

from cryptography import x509

from holdfast.config.listeners import Tls
from holdfast.gateway.http.handshake import HandshakeContext, PeerCertificate
from holdfast.reading import MOST_PEM, read_file

TLS12_SUITES = "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"
"""Spec, "HTTP": the TLS 1.2 suites. Those of TLS 1.3 are OpenSSL's, each with forward secrecy and AEAD."""


TICKET_LIFE = 3600.0
"""Seconds after which a worker makes a new context, and with it new keys for the session tickets of TLS 1.2."""


class TlsUnusable(Exception):
    """The files of `[tls]` cannot serve; the message says which, why, and what to do."""


def build_context(settings: Tls, *, now: Callable[[], datetime]) -> ssl.SSLContext:
    """A server context from the files as they are now. Raises TlsUnusable."""
    context = HandshakeContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(TLS12_SUITES)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    # KMS keeps its connections, and a ticket's key would live as long as the worker. TLS 1.2: see TICKET_LIFE.
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    try:
        for file in (settings.certificate, settings.private_key):
            read_file(file, most=MOST_PEM)
        # Without a password function OpenSSL would ask on the terminal.
        context.load_cert_chain(settings.certificate, settings.private_key, password=lambda: b"")
    except (ssl.SSLError, OSError) as error:
        raise TlsUnusable(_why_pair(settings, error)) from None
    if settings.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            read_file(settings.client_ca, most=MOST_PEM)
            context.load_verify_locations(settings.client_ca)
        except (ssl.SSLError, OSError) as error:
            raise TlsUnusable(
                f"client_ca {settings.client_ca} cannot be read as PEM certificates: {error}; "
                "it holds the certificate authorities that sign the clients' certificates"
            ) from None
    if settings.client_subject is not None:
        context.admits = client_check(settings.client_subject, now=now)
    return context


def certificate_expiry(settings: Tls) -> datetime:
    """When the certificate that is shown to clients expires. Raises TlsUnusable."""
    return certificate_chain(settings)[0].not_valid_after_utc


def certificate_chain(settings: Tls) -> list[x509.Certificate]:
    """What is shown to clients: the server's certificate, then the intermediates. Raises TlsUnusable."""
    try:
        return x509.load_pem_x509_certificates(read_file(settings.certificate))
    except (OSError, ValueError) as error:
        raise TlsUnusable(f"certificate {settings.certificate} cannot be read: {error}") from None


def client_check(subject: str, *, now: Callable[[], datetime]) -> Callable[[PeerCertificate], bool]:
    """Whether a peer's certificate has `subject` as its one common name, and has not expired.

    Spec, "Authentication": another subject name ends the handshake. OpenSSL has verified the chain, and the dates
    in the first handshake: a session that is resumed verifies nothing again, and may outlive the certificate.
    """

    def admits(certificate: PeerCertificate) -> bool:
        return common_names(certificate) == [subject] and now().timestamp() <= ssl.cert_time_to_seconds(
            str(certificate["notAfter"])
        )

    return admits


def common_names(certificate: PeerCertificate) -> list[str]:
    """The common names in a certificate's subject."""
    subject: Any = certificate.get("subject", ())
    return [value for part in subject for name, value in part if name == "commonName"]


def _why_pair(settings: Tls, error: Exception) -> str:
    pair = f"certificate {settings.certificate} with private_key {settings.private_key}"
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        return f"{pair}: {error.strerror}; the service's user must be able to read both"
    reason = getattr(error, "reason", None)
    if reason == "KEY_VALUES_MISMATCH":
        return f"{pair}: the key does not belong to the certificate; replace both together"
    if reason in ("BAD_DECRYPT", "BAD_PASSWORD_READ", "PROBLEMS_GETTING_PASSWORD"):
        return f"{pair}: the private key is encrypted; store it unencrypted, readable by the service's user only"
    if reason in ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):
        return f"{pair}: too weak for TLS ({reason}); `holdfast doctor` names the certificate and the remedy"
    return f"{pair}: not a PEM certificate chain and its PEM key ({reason or error})"
