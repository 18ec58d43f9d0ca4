"""The server's certificate: name, chain, validity."""

import ssl
from datetime import UTC
from enum import IntEnum

from cryptography import x509
from cryptography.x509.oid import NameOID

from holdfast.check.finding import Check, Doubtful, Level, Refuted, Source, check, guide
from holdfast.check.session import Session
from holdfast.check.wire import Connection, WireError, tls_context

_ALARM_DAYS = 10
_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME


class _VerifyCode(IntEnum):
    """OpenSSL's X509_V_ERR_ codes."""

    HOSTNAME_MISMATCH = 62
    IP_ADDRESS_MISMATCH = 64


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
    """Verifies the host name, whatever the chain and the dates."""
    certificate = _certificate(session)
    error = _verify(session, check_hostname=True)
    if error is not None and error.verify_code in tuple(_VerifyCode):
        raise Refuted(f"the certificate is for {_names(certificate)}, not for {session.endpoint.host}")
    return _names(certificate)


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
    error = _verify(session, check_hostname=False)
    if error is not None:
        raise Refuted(f"{error.verify_message}: does the proxy send its intermediate certificates?")
    issuer = _certificate(session).issuer.rfc4514_string()
    if session.trust.ca is not None:
        raise Doubtful(f"verified against --ca ({issuer}): KMS accepts only the public authorities on AWS's list")
    return f"{issuer}, trusted by this system; compare its root with AWS's list of trusted certificate authorities"


@check(
    "CERT-03",
    "The certificate is valid now, and for more than ten days",
    level=Level.KMS,
    source=Source("Error codes", "Verify the<br>TLS configuration, including<br>its certificate."),
    needs=("TLS-01",),
)
def validity(session: Session) -> str:
    """Compares the certificate's dates with this machine's clock."""
    certificate, now = _certificate(session), session.clock()
    if now < certificate.not_valid_before_utc:
        raise Refuted(f"not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC")
    days = (certificate.not_valid_after_utc - now).days
    until = f"{certificate.not_valid_after_utc.astimezone(UTC):%Y-%m-%d}"
    if now > certificate.not_valid_after_utc:
        raise Refuted(f"expired on {until}, {-days} days ago")
    if days < _ALARM_DAYS:
        raise Doubtful(f"{days} days left (until {until}): AWS advises an alarm below {_ALARM_DAYS}")
    return f"{days} days left, until {until}"


@check(
    "CERT-04",
    "The common name is no wildcard",
    level=Level.ADVICE,
    source=guide(
        "Monitoring an external key store",
        "XksProxyCertificateDaysToExpire is not published for a certificate whose common name is a wildcard.",
    ),
    needs=("TLS-01",),
)
def wildcard(session: Session) -> str:
    """Reads the subject."""
    common_names = [str(a.value) for a in _certificate(session).subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if any(text.startswith("*") for text in common_names):
        raise Refuted(f"{common_names[0]}: CloudWatch will not tell when it expires, so watch it yourself")
    return common_names[0] if common_names else "no common name"


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


def _names(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return f"no subject alternative name, subject {certificate.subject.rfc4514_string()}"
    dns = names.get_values_for_type(x509.DNSName)
    return ", ".join((*dns, *(str(address) for address in names.get_values_for_type(x509.IPAddress))))


def _verify(session: Session, *, check_hostname: bool) -> ssl.SSLCertVerificationError | None:
    context = tls_context(session.trust.ca, session.trust.client_certificate, verify=True)
    context.check_hostname = check_hostname
    context.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME)
    try:
        Connection.connect(session.address, session.endpoint.host, context).close()
    except ssl.SSLCertVerificationError as error:
        return error
    except (WireError, OSError) as error:
        raise Refuted(f"no TLS connection: {error}") from None
    return None


CHECKS: tuple[Check, ...] = (name, chain, validity, wildcard)
