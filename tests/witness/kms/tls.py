"""A certificate authority and the certificates of proxies, made anew for each test run."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.server.certificates import SIGNS_CERTIFICATES


@dataclass(frozen=True)
class Authority:
    """A self-signed authority; `pem` is its certificate in a file."""

    certificate: x509.Certificate
    private_key: ec.EllipticCurvePrivateKey
    pem: Path

    @classmethod
    def create(cls, directory: Path, name: str) -> "Authority":
        """A new authority of this name, its certificate in `directory`."""
        private_key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(name)
        certificate = (
            _builder(subject, subject, private_key, days=30)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(private_key.public_key()), critical=False)
            .add_extension(SIGNS_CERTIFICATES, critical=True)
            .sign(private_key, hashes.SHA256())
        )
        pem = directory / f"{name}.pem"
        pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return cls(certificate, private_key, pem)

    def server_context(self, host: str, *, days: int = 30, common_name: str | None = None) -> ssl.SSLContext:
        """What a server of `host` presents."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server_file(host, days=days, common_name=common_name))
        return context

    def server_file(self, host: str, *, days: int = 30, common_name: str | None = None) -> Path:
        """Certificate and private key of a server of `host`, in one file; expired if `days` is negative.

        The subject's common name is `host` too, unless another is given.
        """
        private_key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(_name(common_name or host), self.certificate.subject, private_key, days=days)
            .add_extension(x509.SubjectAlternativeName([_general_name(host)]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.private_key.public_key()), critical=False
            )
            .sign(self.private_key, hashes.SHA256())
        )
        file = self.pem.with_name(f"{common_name or host}.{days}.pem")
        file.write_bytes(
            private_key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        return file


def _general_name(host: str) -> x509.GeneralName:
    return x509.IPAddress(ip_address(host)) if host[0].isdigit() else x509.DNSName(host)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, private_key: ec.EllipticCurvePrivateKey, *, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(private_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=60))
        .not_valid_after(now + timedelta(days=days))
    )
