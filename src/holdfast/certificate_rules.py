"""What AWS KMS demands of a proxy's TLS certificate: one judgement for `serve`, `doctor`, `check` and the local KMS.

`judge` is given certificates and a time, and does no I/O. It says nothing about the private key, the client's side of
mutual TLS, or which authorities AWS trusts: a caller that knows authorities passes them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ALARM_DAYS = 10
"""AWS advises to alarm below this (KMS developer guide, "Monitoring an external key store")."""
WARN_DAYS = 30
MIN_RSA_BITS = 2048
"""CA/Browser Forum, Baseline Requirements, 6.1.5: what public authorities sign. So are the curves."""
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_BROKEN_HASHES = ("md5", "sha1")


class Rule(StrEnum):
    """Which demand is not met. The values are stable: they end up in finding codes."""

    COMMON_NAME = "common-name"
    ALTERNATIVE_NAME = "alternative-name"
    WILDCARD = "wildcard"
    NOT_YET_VALID = "not-yet-valid"
    EXPIRED = "expired"
    EXPIRES_SOON = "expires"
    KEY = "key"
    SIGNATURE = "signature"
    USAGE = "usage"
    SELF_SIGNED = "self-signed"
    CHAIN_ORDER = "chain"
    CHAIN_INCOMPLETE = "chain-incomplete"


class Weight(StrEnum):
    """What comes of it."""

    REFUSED = "refused"
    """KMS does not connect: XksProxyInvalidConfigurationException, XksProxyUriUnreachableException."""
    SOON = "soon"
    """KMS will not connect before long."""
    ADVICE = "advice"
    """KMS connects; something else is lost."""


@dataclass(frozen=True, slots=True)
class Breach:
    """A demand that is not met: what was found, and what to do. Neither is a secret."""

    rule: Rule
    weight: Weight
    what: str
    remedy: str


def judge(
    chain: Sequence[x509.Certificate],
    *,
    host: str | None,
    now: datetime,
    authorities: Sequence[x509.Certificate] | None = None,
) -> list[Breach]:
    """Every breach of `chain`: the server's certificate, then the intermediates in the order in which they are sent.

    `host` is the name of the endpoint that KMS calls. None, where it is not known: then the certificate must have a
    common name that is also an alternative name, without which no host fits. `now` is timezone-aware.
    `authorities` are the roots to trust; None leaves open whether the chain leads to a trusted one.
    Where only the server's own certificate is at hand, the order of the chain is not judged.
    """
    own = chain[0]
    try:
        own.extensions  # noqa: B018 (parsed here, at first use)
    except ValueError as error:
        what = f"the certificate's extensions cannot be read: {error}"
        return [Breach(Rule.USAGE, Weight.REFUSED, what, "Have the certificate issued again.")]
    return [
        *_names(own, host),
        *_days(own, now),
        *_key(own),
        *_signatures(chain),
        *_usage(own),
        *_chain(chain, authorities),
    ]


def common_names(certificate: x509.Certificate) -> list[str]:
    """The common names of the subject, of which KMS wants one to be the host."""
    return [str(name.value) for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]


def alternative_names(certificate: x509.Certificate) -> list[str]:
    """The DNS names among the subject alternative names, by which TLS itself knows the host."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return extension.value.get_values_for_type(x509.DNSName)


def is_name_of(name: str, host: str) -> bool:
    """Whether a certificate's name is the host or its wildcard, which stands for one label (RFC 6125, 6.4.3)."""
    name, host = name.lower(), host.lower()
    return name == host or (name.startswith("*.") and name[1:] == f".{host.partition('.')[2]}" and "." in host)


def _names(certificate: x509.Certificate, host: str | None) -> Iterator[Breach]:
    common, alternative = common_names(certificate), alternative_names(certificate)
    replace = "Have a certificate issued whose common name and one alternative name (DNS) are the endpoint's name."
    # KMS developer guide, "Configuration errors": the common name must be the host or its wildcard.
    if not any(is_name_of(name, host) if host else True for name in common):
        shown = ", ".join(common) or "missing"
        yield Breach(Rule.COMMON_NAME, Weight.REFUSED, f"the common name is {shown}, not {host or 'a name'}", replace)
    if not alternative:
        yield Breach(
            Rule.ALTERNATIVE_NAME, Weight.REFUSED, "the certificate has no subject alternative name (DNS)", replace
        )
    elif host is not None and not any(is_name_of(name, host) for name in alternative):
        yield Breach(
            Rule.ALTERNATIVE_NAME,
            Weight.REFUSED,
            f"the certificate is for {', '.join(alternative)}, not for {host}",
            replace,
        )
    elif host is None and common and not any(_meet(one, other) for one in common for other in alternative):
        yield Breach(
            Rule.COMMON_NAME,
            Weight.REFUSED,
            f"the common name {', '.join(common)} is none of the alternative names ({', '.join(alternative)})",
            replace,
        )
    wildcard = [name for name in common if name.startswith("*.")]
    if wildcard == common and any(host is None or is_name_of(name, host) for name in wildcard):
        yield Breach(
            Rule.WILDCARD,
            Weight.ADVICE,
            f"the common name {common[0]} is a wildcard: CloudWatch has no XksProxyCertificateDaysToExpire for it",
            "Watch holdfast_certificate_days_left, or use a certificate with the full name.",
        )


def _meet(one: str, other: str) -> bool:
    """Whether there is a host that both names stand for."""
    return is_name_of(one, other) or is_name_of(other, one)


def _days(certificate: x509.Certificate, now: datetime) -> Iterator[Breach]:
    renew = "Renew the certificate. Holdfast loads a changed file without a restart."
    if now < certificate.not_valid_before_utc:
        yield Breach(
            Rule.NOT_YET_VALID,
            Weight.REFUSED,
            f"the certificate is valid only from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC",
            "Compare the clock with `timedatectl`; else install a certificate that is valid now.",
        )
        return
    left = (certificate.not_valid_after_utc - now).days
    ends = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
    if now > certificate.not_valid_after_utc:
        yield Breach(Rule.EXPIRED, Weight.REFUSED, f"the certificate expired on {ends} (days ago: {-left})", renew)
    elif left < WARN_DAYS:
        weight = Weight.SOON if left < ALARM_DAYS else Weight.ADVICE
        yield Breach(Rule.EXPIRES_SOON, weight, f"the certificate expires on {ends} (days left: {left})", renew)


def _key(certificate: x509.Certificate) -> Iterator[Breach]:
    remedy = f"Make a new key, RSA of at least {MIN_RSA_BITS} bits or on the curve P-256 or P-384, and a certificate."
    try:
        key = certificate.public_key()
    except (UnsupportedAlgorithm, ValueError):
        yield Breach(Rule.KEY, Weight.REFUSED, "the public key is of an unknown kind", remedy)
        return
    match key:
        case rsa.RSAPublicKey() if key.key_size >= MIN_RSA_BITS:
            return
        case ec.EllipticCurvePublicKey() if key.curve.name in _CURVES:
            return
        case rsa.RSAPublicKey():
            found = f"an RSA key of {key.key_size} bits, which is too small"
        case ec.EllipticCurvePublicKey():
            found = f"a key on the curve {key.curve.name}, which TLS clients do not take"
        case _:
            # Spec, "HTTP": the suites of TLS 1.2 are ECDHE_RSA and ECDHE_ECDSA.
            found = f"a key that is neither RSA nor on a NIST curve ({type(key).__name__.removesuffix('PublicKey')})"
    yield Breach(Rule.KEY, Weight.REFUSED, f"the certificate has {found}", remedy)


def _signatures(chain: Sequence[x509.Certificate]) -> Iterator[Breach]:
    for certificate in chain:
        try:
            algorithm = certificate.signature_hash_algorithm
        except UnsupportedAlgorithm:
            continue  # No hash of its own, or one that is newer than this library.
        # What an authority signs itself is trusted for being known, not for its signature.
        if algorithm is not None and algorithm.name in _BROKEN_HASHES and not _is_self_issued(certificate):
            yield Breach(
                Rule.SIGNATURE,
                Weight.REFUSED,
                f"{_subject(certificate)} is signed with {algorithm.name.upper()}, which TLS clients refuse",
                "Have it issued again with SHA-256.",
            )


def _usage(certificate: x509.Certificate) -> Iterator[Breach]:
    extensions = certificate.extensions
    remedy = "Have a server certificate issued (digitalSignature, serverAuth)."
    try:
        extended = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        pass
    else:
        if not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(extended):
            what = "the certificate's extended key usage does not permit servers (serverAuth)"
            yield Breach(Rule.USAGE, Weight.REFUSED, what, remedy)
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not usage.digital_signature:  # RFC 8446, 4.4.2.2; with ECDHE the server signs in TLS 1.2 too.
        what = "the certificate's key usage does not permit signatures (digitalSignature)"
        yield Breach(Rule.USAGE, Weight.REFUSED, what, remedy)


def _chain(chain: Sequence[x509.Certificate], authorities: Sequence[x509.Certificate] | None) -> Iterator[Breach]:
    for lower, upper in pairwise(chain):
        if not _is_signed_by(lower, upper):
            yield Breach(
                Rule.CHAIN_ORDER,
                Weight.REFUSED,
                f"{_subject(upper)} did not sign {_subject(lower)}, which it follows",
                "Order the file: the server's certificate, then each one's issuer.",
            )
            return
    last = chain[-1]
    if authorities is not None and any(last == root or _is_signed_by(last, root) for root in authorities):
        return
    if len(chain) == 1 and _is_self_issued(last):
        yield Breach(
            Rule.SELF_SIGNED,
            Weight.REFUSED,
            "the certificate is signed by itself",
            "For KMS install a certificate of a public authority; for tests on this machine it will do.",
        )
    elif authorities is not None:
        issuer = last.issuer.rfc4514_string()
        yield Breach(
            Rule.CHAIN_INCOMPLETE,
            Weight.REFUSED,
            f"the chain ends at {_subject(last)}, whose issuer {issuer} is not a trusted authority here",
            "Append the missing intermediate certificates to the file; a private authority is for tests only.",
        )


def _is_signed_by(lower: x509.Certificate, upper: x509.Certificate) -> bool:
    try:
        lower.verify_directly_issued_by(upper)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _is_self_issued(certificate: x509.Certificate) -> bool:
    return certificate.issuer == certificate.subject


def _subject(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or "a certificate without a name"
