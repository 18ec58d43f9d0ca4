"""The server's certificate: name, chain, validity, key. The rules are those of `holdfast.certificate_rules`."""

import ssl
from pathlib import Path

from cryptography import x509

from holdfast.certificate_rules import (
    ALARM_DAYS,
    Breach,
    Rule,
    Weight,
    alternative_names,
    common_names,
    judge,
)
from holdfast.witness.check.finding import Check, Level, NotForKms, Refuted, Source, check, guide
from holdfast.witness.check.session import Session
from holdfast.witness.check.wire import Connection, WireError, tls_context

_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME


@check(
    "CERT-01",
    "The certificate is for this name",
    level=Level.MUST,
    source=Source(
        "Authentication",
        "the DNS domain name of the XKS Proxy endpoint must match the hostname specified in its server certificate",
    ),
    needs=("TLS-01",),
)
def name(session: Session) -> str:
    """Compares the host with the common name, which KMS wants too, and with the alternative names."""
    certificate = _certificate(session)
    _require_none(session, certificate, Rule.COMMON_NAME, Rule.ALTERNATIVE_NAME)
    alternative = ", ".join(alternative_names(certificate))
    return f"common name {', '.join(common_names(certificate))}, alternative names {alternative}"


@check(
    "CERT-02",
    "The chain leads to a trusted authority",
    level=Level.MUST,
    source=Source(
        "Authentication",
        "The proxy's certificate MUST be issued by one of [these public certificate authorities]"
        "(TrustedCertificateAuthorities) for AWS KMS to successfully authenticate the proxy.",
    ),
    needs=("TLS-01",),
)
def chain(session: Session) -> str:
    """Verifies the chain as sent, against the system's trust store or --ca, whatever name and dates."""
    error = _chain_error(session)
    if error is not None:
        raise Refuted(f"{error.verify_message}: does the proxy send its intermediate certificates?")
    issuer = _certificate(session).issuer.rfc4514_string()
    if session.trust.ca is not None:
        raise NotForKms(
            f"issued by {issuer}, and trusted for --ca ({_authorities(session.trust.ca)}): KMS accepts only the "
            "public authorities on AWS's list"
        )
    return (
        f"issued by {issuer}, which this system trusts; AWS's list may differ from this system's, and is not known "
        "to this check"
    )


@check(
    "CERT-03",
    "The certificate is valid now",
    level=Level.KMS,
    source=Source("Error codes", "Verify the<br>TLS configuration, including<br>its certificate."),
    needs=("TLS-01",),
)
def validity(session: Session) -> str:
    """Compares the certificate's dates with this machine's clock."""
    certificate = _certificate(session)
    _require_none(session, certificate, Rule.NOT_YET_VALID, Rule.EXPIRED)
    return f"until {certificate.not_valid_after_utc:%Y-%m-%d}"


@check(
    "CERT-04",
    "The common name is not a wildcard",
    level=Level.ADVICE,
    source=guide(
        "Monitoring an external key store",
        "XksProxyCertificateDaysToExpire is not published for a certificate whose common name is a wildcard.",
    ),
    needs=("CERT-01",),
)
def wildcard(session: Session) -> str:
    """Compares the common name with the host."""
    certificate = _certificate(session)
    _require_none(session, certificate, Rule.WILDCARD)
    return common_names(certificate)[0]


@check(
    "CERT-05",
    "The certificate is valid for more than ten days",
    level=Level.ADVICE,
    source=guide(
        "Monitoring an external key store",
        "An alarm should notify you ten days before the certificate of the proxy expires.",
    ),
    needs=("CERT-03",),
)
def lasting(session: Session) -> str:
    """Compares the end of validity with this machine's clock."""
    left = (_certificate(session).not_valid_after_utc - session.clock()).days
    if left < ALARM_DAYS:
        raise Refuted(f"days left: {left}. AWS advises an alarm below {ALARM_DAYS}")
    return f"days left: {left}"


@check(
    "CERT-06",
    "TLS clients accept the certificate's key, signature and usage",
    level=Level.KMS,
    source=Source("Error codes", "Verify the<br>TLS configuration, including<br>its certificate."),
    needs=("TLS-01",),
)
def strength(session: Session) -> str:
    """Looks at kind and size of the key, the hash of the signature, and the key usages."""
    certificate = _certificate(session)
    _require_none(session, certificate, Rule.KEY, Rule.SIGNATURE, Rule.USAGE)
    return type(certificate.public_key()).__name__.removeprefix("_").removesuffix("PublicKey")


def _require_none(session: Session, certificate: x509.Certificate, *rules: Rule) -> None:
    """Raises Refuted for the first breach of one of the rules."""
    # Whether the chain leads to an authority is CERT-02's to say: here the certificate stands for its own.
    breaches: list[Breach] = judge(
        [certificate], host=session.endpoint.host, now=session.clock(), authorities=[certificate]
    )
    for breach in breaches:
        if breach.rule in rules and (breach.weight is Weight.REFUSED or breach.rule is Rule.WILDCARD):
            raise Refuted(breach.what)


def _certificate(session: Session) -> x509.Certificate:
    try:
        connection = session.connect()
    except (WireError, OSError) as error:
        raise Refuted(f"no TLS connection: {error}") from None
    der = connection.socket.getpeercert(binary_form=True)
    connection.close()
    if der is None:
        raise Refuted("the server sent no certificate")
    return x509.load_der_x509_certificate(der)


def _authorities(ca: str) -> str:
    certificates = x509.load_pem_x509_certificates(Path(ca).read_bytes())
    return ", ".join(each.subject.rfc4514_string() for each in certificates)


def _chain_error(session: Session) -> ssl.SSLCertVerificationError | None:
    context = tls_context(session.trust.ca, session.trust.client_certificate, verify=True)
    context.check_hostname = False
    context.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME)
    try:
        Connection.connect(session.address, session.endpoint.host, context).close()
    except ssl.SSLCertVerificationError as error:
        return error
    except (WireError, OSError) as error:
        raise Refuted(f"no TLS connection: {error}") from None
    return None


CHECKS: tuple[Check, ...] = (name, chain, validity, wildcard, lasting, strength)
