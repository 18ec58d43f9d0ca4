"""KMS's demands of a certificate: each is found missing by its own rule, and a good certificate breaks none."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from holdfast.certificate_rules import Rule, Weight, judge

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
HOST = "xks.example.com"
KEY = ec.generate_private_key(ec.SECP256R1())


def name(text: str | None) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])


def signed(  # noqa: PLR0913 (each is what one case changes)
    common: str | None = HOST,
    alternative: tuple[str, ...] = (HOST,),
    *,
    key: Any = KEY,
    issuer: str | None = "Authority",
    signer: Any = KEY,
    days: tuple[int, int] = (-10, 60),
    algorithm: Any = None,
    extensions: tuple[x509.ExtensionType, ...] = (),
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(common))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + timedelta(days=days[0]))
        .not_valid_after(NOW + timedelta(days=days[1]))
    )
    if alternative:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(text) for text in alternative]), critical=False
        )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(signer, algorithm or hashes.SHA256())


def usage(*, digital_signature: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=True,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


BREACHES: dict[str, tuple[Callable[[], x509.Certificate], Rule, Weight]] = {
    "the common name is another": (
        lambda: signed("other.example.test"),
        Rule.COMMON_NAME,
        Weight.REFUSED,
    ),
    "no common name": (lambda: signed(None), Rule.COMMON_NAME, Weight.REFUSED),
    "a wildcard two labels up": (lambda: signed("*.com"), Rule.COMMON_NAME, Weight.REFUSED),
    "the alternative name is another": (
        lambda: signed(alternative=("other.example.com",)),
        Rule.ALTERNATIVE_NAME,
        Weight.REFUSED,
    ),
    "no alternative name": (lambda: signed(alternative=()), Rule.ALTERNATIVE_NAME, Weight.REFUSED),
    "a wildcard": (lambda: signed("*.example.com", ("*.example.com",)), Rule.WILDCARD, Weight.ADVICE),
    "made for later": (lambda: signed(days=(1, 60)), Rule.NOT_YET_VALID, Weight.REFUSED),
    "expired": (lambda: signed(days=(-60, -1)), Rule.EXPIRED, Weight.REFUSED),
    "nine days left": (lambda: signed(days=(-60, 9)), Rule.EXPIRES_SOON, Weight.SOON),
    "three weeks left": (lambda: signed(days=(-60, 21)), Rule.EXPIRES_SOON, Weight.ADVICE),
    "RSA of 1,024 bits": (
        lambda: signed(key=rsa.generate_private_key(65537, 1024)),  # noqa: S505 (too small on purpose)
        Rule.KEY,
        Weight.REFUSED,
    ),
    "a small curve": (lambda: signed(key=ec.generate_private_key(ec.SECP224R1())), Rule.KEY, Weight.REFUSED),
    "Ed25519": (lambda: signed(key=ed25519.Ed25519PrivateKey.generate()), Rule.KEY, Weight.REFUSED),
    "for clients only": (
        lambda: signed(extensions=(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]),)),
        Rule.USAGE,
        Weight.REFUSED,
    ),
    "may not sign": (lambda: signed(extensions=(usage(digital_signature=False),)), Rule.USAGE, Weight.REFUSED),
    "signed by itself": (lambda: signed(issuer=HOST), Rule.SELF_SIGNED, Weight.REFUSED),
}


@pytest.mark.parametrize("case", BREACHES)
def test_each_unmet_demand_is_found_alone(case: str) -> None:
    make, rule, weight = BREACHES[case]
    assert [(breach.rule, breach.weight) for breach in judge([make()], host=HOST, now=NOW)] == [(rule, weight)]


def test_every_rule_has_a_case() -> None:
    tried = {rule for _, rule, _ in BREACHES.values()}
    assert set(Rule) - tried == {Rule.SIGNATURE, Rule.CHAIN_ORDER, Rule.CHAIN_INCOMPLETE}  # the tests below


@pytest.mark.parametrize("host", [HOST, HOST.upper(), None])
@pytest.mark.parametrize("key", [KEY, rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())])
def test_a_good_certificate_breaks_no_rule(key: Any, host: str | None) -> None:
    extensions = (usage(digital_signature=True), x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]))
    assert judge([signed(key=key, extensions=extensions)], host=host, now=NOW) == []


def test_without_a_host_a_common_name_that_is_no_alternative_name_fits_nowhere() -> None:
    assert [breach.rule for breach in judge([signed("other.example.test")], host=None, now=NOW)] == [Rule.COMMON_NAME]
    assert judge([signed(alternative=("*.example.com",))], host=None, now=NOW) == []


def test_a_chain_in_the_wrong_order_is_found() -> None:
    authority, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    own = signed(issuer="Intermediate", signer=other)
    intermediate = signed("Intermediate", (), key=other, issuer="Root", signer=authority)
    root = signed("Root", (), key=authority, issuer="Root", signer=authority)
    assert judge([own, intermediate], host=HOST, now=NOW, authorities=[root]) == []
    for chain in ([own, root, intermediate], [own, root]):
        assert [breach.rule for breach in judge(chain, host=HOST, now=NOW)] == [Rule.CHAIN_ORDER]


def test_a_missing_intermediate_is_found_where_the_authorities_are_known() -> None:
    authority, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    own = signed(issuer="Intermediate", signer=other)
    root = signed("Root", (), key=authority, issuer="Root", signer=authority)
    breaches = judge([own], host=HOST, now=NOW, authorities=[root])
    assert [breach.rule for breach in breaches] == [Rule.CHAIN_INCOMPLETE]
    assert "CN=Intermediate" in breaches[0].what
    assert judge([own], host=HOST, now=NOW) == []


def test_a_self_signed_certificate_that_is_trusted_itself_is_taken() -> None:
    own = signed(issuer=HOST)
    assert judge([own], host=HOST, now=NOW, authorities=[own]) == []


def test_a_signature_with_sha_1_is_found() -> None:
    # cryptography signs no SHA-1 any more: the algorithm's object identifier is replaced in a certificate.
    rsa_key = rsa.generate_private_key(65537, 2048)
    sha256, sha1 = bytes.fromhex("2a864886f70d01010b"), bytes.fromhex("2a864886f70d010105")
    der = signed(signer=rsa_key).public_bytes(Encoding.DER).replace(sha256, sha1)
    breaches = judge([x509.load_der_x509_certificate(der)], host=HOST, now=NOW)
    assert [breach.rule for breach in breaches] == [Rule.SIGNATURE]
