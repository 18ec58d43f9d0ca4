"""A certificate for localhost, signed by a certificate authority of its own, so that `curl --cacert` trusts it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from holdfast.control.files import PUBLIC_MODE, replace_file

LIFETIME = timedelta(days=397)
"""The longest that public certificate authorities sign for; browsers and curl accept it."""
_AUTHORITY = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Holdfast local certificate authority")])
_RENEW_BEFORE = timedelta(days=30)
_BACKDATED = timedelta(minutes=5)  # A clock that runs a little behind still accepts it.


@dataclass(frozen=True, slots=True)
class LocalTls:
    """The three PEM files of a localhost endpoint: what clients trust, what the server shows, and its key."""

    authority: Path
    certificate: Path
    private_key: Path

    @classmethod
    def below(cls, directory: Path) -> "LocalTls":
        """The files as `holdfast init` names them."""
        return cls(directory / "ca.pem", directory / "server.pem", directory / "server.key")


def ensure_local_tls(files: LocalTls, *, now: datetime) -> bool:
    """Whether new files were written: only where the old are missing, do not belong together or expire in 30 days.

    A certificate that another authority has signed is kept, with its key: the operator put it there.

    `now` is timezone-aware. The authority's key is deleted as soon as it has signed, so that it cannot be used
    to impersonate another host to a client that trusts it.
    """
    if _signed_by_another(files) or _usable(files, now):
        return False
    authority_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = _authority(authority_key, now)
    server = _server(server_key.public_key(), authority, authority_key, now)
    private_pem = server_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    replace_file(files.private_key, private_pem)
    replace_file(files.certificate, server.public_bytes(serialization.Encoding.PEM), mode=PUBLIC_MODE)
    replace_file(files.authority, authority.public_bytes(serialization.Encoding.PEM), mode=PUBLIC_MODE)
    return True


def _signed_by_another(files: LocalTls) -> bool:
    try:
        server = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    return server.issuer != _AUTHORITY


def _usable(files: LocalTls, now: datetime) -> bool:
    # A run that was interrupted between two of the files leaves a set that does not fit together.
    try:
        authority = x509.load_pem_x509_certificate(files.authority.read_bytes())
        server = x509.load_pem_x509_certificate(files.certificate.read_bytes())
        key = serialization.load_pem_private_key(files.private_key.read_bytes(), None)
        server.verify_directly_issued_by(authority)
    except (FileNotFoundError, ValueError, TypeError, InvalidSignature):
        return False
    return key.public_key() == server.public_key() and now + _RENEW_BEFORE < server.not_valid_after_utc


def _authority(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    name = _AUTHORITY
    usage = _key_usage(signs_certificates=True)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        _builder(name, name, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )


def _server(
    public_key: ec.EllipticCurvePublicKey,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    now: datetime,
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = x509.SubjectAlternativeName(
        [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1")), x509.IPAddress(ip_address("::1"))]
    )
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    return (
        _builder(name, authority.subject, public_key, now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(names, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(issuer, critical=False)
        .sign(authority_key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + LIFETIME)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
