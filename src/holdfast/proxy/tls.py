"""TLS 1.2 and 1.3 as KMS asks for it, optionally with a client certificate."""

import asyncio
import ssl
from collections.abc import Callable
from datetime import datetime

from cryptography import x509

from holdfast.config.model import Tls

TLS12_SUITES = "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"
"""Spec, "HTTP": the TLS 1.2 suites. Those of TLS 1.3 are OpenSSL's, each with forward secrecy and AEAD."""


class TlsUnusable(Exception):
    """The files of `[tls]` cannot serve; the message says which, why, and what to do."""


def build_context(settings: Tls) -> ssl.SSLContext:
    """A server context from the files as they are now. Raises TlsUnusable."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(TLS12_SUITES)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Without a password function OpenSSL would ask on the terminal.
        context.load_cert_chain(settings.certificate, settings.private_key, password=lambda: b"")
    except (ssl.SSLError, OSError) as error:
        raise TlsUnusable(_why_pair(settings, error)) from None
    if settings.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(settings.client_ca)
        except (ssl.SSLError, OSError) as error:
            raise TlsUnusable(
                f"client_ca {settings.client_ca} cannot be read as PEM certificates: {error}; "
                "it holds the certificate authorities that sign the clients' certificates"
            ) from None
    return context


def certificate_expiry(settings: Tls) -> datetime:
    """When the certificate that is shown to clients expires. Raises TlsUnusable."""
    try:
        return x509.load_pem_x509_certificate(settings.certificate.read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as error:
        raise TlsUnusable(f"certificate {settings.certificate} cannot be read: {error}") from None


def client_check(subject: str | None, *, now: Callable[[], datetime]) -> Callable[[asyncio.BaseTransport], bool]:
    """Whether the peer of a connection may speak HTTP: its certificate's common name is `subject`, if one is set.

    Spec, "Mutual TLS": another subject name is refused. The chain was verified in the handshake, and the dates in
    the first one: a session that is resumed verifies nothing again, and may outlive the certificate by hours.
    """
    if subject is None:
        return lambda _transport: True

    def admits(transport: asyncio.BaseTransport) -> bool:
        certificate = transport.get_extra_info("peercert")
        return common_names(certificate) == [subject] and now().timestamp() <= ssl.cert_time_to_seconds(
            certificate["notAfter"]
        )

    return admits


def common_names(certificate: object) -> list[str]:
    """The common names in the subject of what `SSLObject.getpeercert` returned; none for no certificate."""
    if not isinstance(certificate, dict):
        return []
    return [value for part in certificate.get("subject", ()) for name, value in part if name == "commonName"]


def _why_pair(settings: Tls, error: Exception) -> str:
    pair = f"certificate {settings.certificate} with private_key {settings.private_key}"
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        return f"{pair}: {error.strerror}; the service's user must be able to read both"
    reason = getattr(error, "reason", None)
    if reason == "KEY_VALUES_MISMATCH":
        return f"{pair}: the key does not belong to the certificate; replace both together"
    if reason in ("BAD_DECRYPT", "BAD_PASSWORD_READ", "PROBLEMS_GETTING_PASSWORD"):
        return f"{pair}: the private key is encrypted; store it unencrypted, readable by the service's user only"
    return f"{pair}: not a PEM certificate chain and its PEM key ({reason or error})"
