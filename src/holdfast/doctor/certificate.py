"""Doctor on the server's certificate: its key, its chain, its names and its days."""

import warnings
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.utils import CryptographyDeprecationWarning

from holdfast.certificate_rules import Breach, Rule, Weight, alternative_names, common_names, judge
from holdfast.config.listeners import Tls
from holdfast.finding import Finding, Severity, error, ok, warning
from holdfast.reading import read_file
from holdfast.trust import client_context

_WHY = {
    Rule.COMMON_NAME: "KMS demands that the common name is the host of XksProxyUriEndpoint, or its wildcard.",
    Rule.ALTERNATIVE_NAME: "TLS clients look for the host among the alternative names.",
    Rule.WILDCARD: "KMS accepts a wildcard, but publishes no metric of the days left.",
    Rule.NOT_YET_VALID: "Either it was made for later, or this machine's clock is behind.",
    Rule.EXPIRED: "KMS refuses an expired certificate: every call fails with XksProxyUriUnreachableException.",
    Rule.EXPIRES_SOON: "KMS refuses an expired certificate: every call fails with XksProxyUriUnreachableException.",
    Rule.KEY: "TLS clients refuse it, KMS too; the proxy itself may not start with it.",
    Rule.SIGNATURE: "Such signatures can be forged.",
    Rule.USAGE: "TLS clients refuse a certificate that was made for something else.",
    Rule.SELF_SIGNED: "KMS trusts public certificate authorities only (its TrustedCertificateAuthorities list).",
    Rule.CHAIN_ORDER: "A client may refuse a chain in the wrong order, or with an unrelated certificate.",
    Rule.CHAIN_INCOMPLETE: "KMS trusts public authorities only, and needs every certificate between them and yours.",
}
_CODES = {
    Rule.COMMON_NAME: "certificate-name",
    Rule.ALTERNATIVE_NAME: "certificate-name",
    Rule.CHAIN_INCOMPLETE: "certificate-chain",
}
"""Codes that are not `certificate-` and the rule's own name."""


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
        chain = x509.load_pem_x509_certificates(read_file(tls.certificate))
    except (OSError, ValueError) as failure:
        yield error(
            "certificate-unreadable",
            str(tls.certificate),
            f"the certificate cannot be loaded: {_reason(failure)}",
            why="The proxy cannot start without it.",
            remedy="Put the server's certificate there in PEM form, followed by its intermediate certificates.",
        )
        return
    yield from _private_key(tls.private_key, chain[0])
    yield from _judged(str(tls.certificate), chain, now)


def _judged(subject: str, chain: list[x509.Certificate], now: datetime) -> Iterator[Finding]:
    own = chain[0]
    breaches = judge(chain, host=None, now=now, authorities=_system_authorities())
    for breach in breaches:
        severity = _severity(breach, own)
        code = _CODES.get(breach.rule, f"certificate-{breach.rule}")
        yield Finding(severity, code, subject, breach.what, _WHY[breach.rule], breach.remedy)
    broken = {breach.rule for breach in breaches}
    if not broken & {Rule.EXPIRED, Rule.EXPIRES_SOON, Rule.NOT_YET_VALID}:
        left, ends = (own.not_valid_after_utc - now).days, f"{own.not_valid_after_utc:%Y-%m-%d}"
        yield ok("certificate-days", subject, f"valid until {ends} (days left: {left})")
    if not broken & {Rule.COMMON_NAME, Rule.ALTERNATIVE_NAME}:
        names = ", ".join(dict.fromkeys((*common_names(own), *alternative_names(own))))
        yield ok("certificate-name", subject, f"for {names}")
    if not broken & {Rule.CHAIN_ORDER, Rule.CHAIN_INCOMPLETE, Rule.SELF_SIGNED}:
        yield ok("certificate-chain", subject, f"certificates in the file: {len(chain)}, in order")


def _severity(breach: Breach, own: x509.Certificate) -> Severity:
    match breach.rule, breach.weight:
        case Rule.WILDCARD, _:
            return Severity.NOTE
        case ((Rule.SELF_SIGNED | Rule.CHAIN_INCOMPLETE), _):
            # The authorities of this machine are not AWS's list, and a local name is not one that KMS can call.
            return Severity.WARNING if any("." in name for name in common_names(own)) else Severity.NOTE
        case _, Weight.ADVICE:
            return Severity.WARNING
        case _:
            return Severity.ERROR


def _system_authorities() -> list[x509.Certificate] | None:
    """The authorities that this machine trusts; None where it has no list."""
    found = []
    with warnings.catch_warnings():
        # Some root certificates are older than RFC 5280 and break its rules.
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        for der in client_context(None).get_ca_certs(binary_form=True):
            with suppress(ValueError):
                found.append(x509.load_der_x509_certificate(der))
    return found or None


def _private_key(path: Path, certificate: x509.Certificate) -> Iterator[Finding]:
    try:
        matches = load_pem_private_key(read_file(path), None).public_key() == certificate.public_key()
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


def _reason(failure: Exception) -> str:
    return failure.strerror or type(failure).__name__ if isinstance(failure, OSError) else "it is not valid PEM"
