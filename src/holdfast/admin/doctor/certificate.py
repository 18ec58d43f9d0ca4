"""Doctor on the server's certificate: its key, its chain, its names and its days."""

from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID

from holdfast.admin.doctor.finding import Finding, error, note, ok, warning
from holdfast.config.model import Tls

ALARM_DAYS = 10
"""AWS advises to alarm below this (KMS developer guide, "Monitoring an external key store")."""
WARN_DAYS = 30
_WHY_EXPIRY = "KMS refuses an expired certificate: every call fails with XksProxyUriUnreachableException."
_RENEW = "Renew the certificate. Holdfast loads a changed file without a restart."


def examine_certificate(tls: Tls | None, *, now: datetime) -> Iterator[Finding]:
    """Findings on `[tls]`. `now` is timezone-aware."""
    if tls is None:
        yield warning(
            "tls-off",
            "[tls]",
            "the proxy answers plain HTTP",
            why="KMS calls an external key store over HTTPS only; without it anybody between can read the plaintext.",
            remedy="Add [tls] with certificate and private_key, unless a load balancer on this host ends TLS.",
        )
        return
    try:
        chain = x509.load_pem_x509_certificates(tls.certificate.read_bytes())
    except (OSError, ValueError) as failure:
        yield error(
            "certificate-unreadable",
            str(tls.certificate),
            f"the certificate cannot be loaded: {_reason(failure)}",
            why="The proxy cannot start without it.",
            remedy="Put the server's certificate there in PEM form, followed by its intermediate certificates.",
        )
        return
    subject = str(tls.certificate)
    yield from _private_key(tls.private_key, chain[0])
    yield from _days(subject, chain[0], now)
    yield from _names(subject, chain[0])
    yield from _chain(subject, chain)


def _private_key(path: Path, certificate: x509.Certificate) -> Iterator[Finding]:
    try:
        matches = load_pem_private_key(path.read_bytes(), None).public_key() == certificate.public_key()
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as failure:
        yield error(
            "private-key-unreadable",
            str(path),
            f"the private key cannot be loaded: {_reason(failure)}",
            why="The proxy cannot start without it; a passphrase cannot be typed at start.",
            remedy="Put the certificate's private key there in PEM form, without a passphrase, mode 0600.",
        )
        return
    if matches:
        yield ok("private-key", str(path), "the private key belongs to the certificate")
    else:
        yield error(
            "private-key-mismatch",
            str(path),
            "the private key does not belong to the certificate",
            why="One of the two files was replaced without the other; TLS cannot start.",
            remedy="Install the certificate and the key that were made together.",
        )


def _days(subject: str, certificate: x509.Certificate, now: datetime) -> Iterator[Finding]:
    if now < certificate.not_valid_before_utc:
        starts = f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        yield error(
            "certificate-not-yet-valid",
            subject,
            f"the certificate is valid only from {starts}",
            why="Either it was made for later, or this machine's clock is behind.",
            remedy="Compare the clock with `timedatectl`; else install a certificate that is valid now.",
        )
        return
    left = (certificate.not_valid_after_utc - now).days
    ends = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
    if now >= certificate.not_valid_after_utc:
        what = f"the certificate expired on {ends}"
        yield error("certificate-expired", subject, what, why=_WHY_EXPIRY, remedy=_RENEW)
    elif left < ALARM_DAYS:
        what = f"the certificate expires in {left} days, on {ends}"
        yield error("certificate-expires", subject, what, why=_WHY_EXPIRY, remedy=_RENEW)
    elif left < WARN_DAYS:
        what = f"the certificate expires in {left} days, on {ends}"
        yield warning("certificate-expires", subject, what, why=_WHY_EXPIRY, remedy=_RENEW)
    else:
        yield ok("certificate-days", subject, f"the certificate is valid for another {left} days, until {ends}")


def _names(subject: str, certificate: x509.Certificate) -> Iterator[Finding]:
    common = [str(name.value) for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    try:
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = alternative.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        names = []
    shown = ", ".join(dict.fromkeys((*common, *names))) or "no name at all"
    yield note(
        "certificate-name",
        subject,
        f"the certificate is for {shown}",
        why="KMS requires the subject's common name to be the host of XksProxyUriEndpoint (or its wildcard).",
    )
    if any(name.startswith("*.") for name in common):
        yield note(
            "certificate-wildcard",
            subject,
            "the common name is a wildcard",
            why="KMS accepts it, but publishes no XksProxyCertificateDaysToExpire metric for it.",
            remedy="Watch Holdfast's own metric of the certificate's days, or use a certificate with the full name.",
        )


def _chain(subject: str, chain: list[x509.Certificate]) -> Iterator[Finding]:
    for lower, upper in pairwise(chain):
        try:
            lower.verify_directly_issued_by(upper)
        except (ValueError, TypeError, InvalidSignature):
            yield error(
                "certificate-chain",
                subject,
                f"{_name_of(upper)!r} did not sign {_name_of(lower)!r}, which it follows in the file",
                why="A client that gets a chain in the wrong order, or with a foreign certificate, refuses it.",
                remedy="Order the file: the server's certificate, then each one's issuer.",
            )
            return
    last = chain[-1]
    if len(chain) == 1 and last.issuer == last.subject:
        yield warning(
            "certificate-self-signed",
            subject,
            "the certificate is signed by itself",
            why="KMS trusts public certificate authorities only (its TrustedCertificateAuthorities list).",
            remedy="For KMS install a certificate of a public authority; for tests on this machine it will do.",
        )
    elif len(chain) == 1:
        yield note(
            "certificate-chain",
            subject,
            f"the file holds no intermediate certificate; the issuer is {last.issuer.rfc4514_string()}",
            why="KMS trusts public certificate authorities only, and needs every certificate between them and yours.",
            remedy="If an intermediate signed it, append that to the file. A local authority is for tests only.",
        )
    else:
        yield ok("certificate-chain", subject, f"the chain of {len(chain)} certificates is in order")


def _name_of(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string()


def _reason(failure: Exception) -> str:
    return failure.strerror or type(failure).__name__ if isinstance(failure, OSError) else "it is not valid PEM"
