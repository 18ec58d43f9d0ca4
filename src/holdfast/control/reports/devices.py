"""The register of certificates and of the devices that hold keys (DORA, Regulation (EU) 2024/1774, article 7 (4))."""

from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from holdfast.config.model import Configuration
from holdfast.control.reports.document import NONE, Cell, Report, Table
from holdfast.control.reports.source import Source
from holdfast.hsm.settings import TokenSelector
from holdfast.reading import read_file


def devices(source: Source) -> Report:
    """Certificates that are used and trusted, HSMs, signing keys."""
    configuration = source.configuration
    serials: dict[str, set[str]] = {}
    keys: dict[str, int] = {}
    for row in source.state.keys(None):
        keys[row.hsm] = keys.get(row.hsm, 0) + 1
        if row.token_serial:
            serials.setdefault(row.hsm, set()).add(row.token_serial)
    hsms = [
        (
            name,
            table.settings.profile,
            str(table.settings.library),
            _token(table.settings.token),
            ", ".join(sorted(serials.get(name, ()))) or None,
            None,
            keys.get(name, 0),
        )
        for name, table in configuration.hsms.items()
    ]
    elsewhere = [
        (name, ", ".join(sorted(serials.get(name, ()))) or None, count)
        for name, count in sorted(keys.items())
        if name not in configuration.hsms
    ]
    return source.report(
        "devices",
        "Register of certificates and devices",
        "Which certificates are in use and trusted, until when, and which devices hold keys?",
        Table(
            "certificates",
            "Certificates",
            (
                "Used for",
                "File",
                "Subject",
                "Issuer",
                "Serial number",
                "Valid from",
                "Valid until",
                "Days left",
                "Key",
                "SHA-256",
            ),
            [row for use, file in _files(configuration) for row in _certificates(use, file, source)],
            "None is configured: something in front of this node ends TLS.",
        ),
        Table(
            "hsms",
            "HSMs of this node",
            ("HSM", "Profile", "Library", "Token", "Serials seen", "Firmware", "Generations"),
            hsms,
            "",
        ),
        Table(
            "elsewhere",
            "HSMs that the catalog names and this node does not have",
            ("HSM", "Serials seen", "Generations"),
            elsewhere,
            "There are none.",
        ),
        Table("signing", "Keys that sign the audit log", ("Log", "Key", "Where"), [*_signing(configuration)], NONE),
        limits=(
            (
                "Certificates are those that the configuration of this node names, as its files are now. Those of"
                " load balancers, of the database, and of AWS are not known here; make the report on every node."
            ),
            (
                "Serials are those of the tokens in which keys were last found. No HSM was asked for this report: its"
                " firmware, model and place are not known to Holdfast."
            ),
            (
                "Which functions of the business are critical or important (DORA) is for the owner to say: see"
                " the owners"
                " and tags of `holdfast report inventory`."
            ),
        ),
    )


def _files(configuration: Configuration) -> Iterator[tuple[str, Path]]:
    for name in ("tls", "health_tls", "metrics_tls"):
        tls = getattr(configuration, name)
        if tls is not None:
            yield f"[{name}] certificate", tls.certificate
            if tls.client_ca is not None:
                yield f"[{name}] client_ca", tls.client_ca
    for name, outlet in configuration.outlets.items():
        for key, file in outlet.files.items():
            if key != "private_key":
                yield f"[outlet.{name}] {key}", file


def _certificates(use: str, file: Path, source: Source) -> Iterator[tuple[Cell, ...]]:
    try:
        found = x509.load_pem_x509_certificates(read_file(file))
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or "it holds no certificate in PEM"
        yield use, str(file), f"cannot be read: {said}", *(None,) * 7
        return
    for one in found:
        yield (
            use,
            str(file),
            one.subject.rfc4514_string() or NONE,
            one.issuer.rfc4514_string() or NONE,
            f"{one.serial_number:x}",
            one.not_valid_before_utc,
            one.not_valid_after_utc,
            (one.not_valid_after_utc - source.now).days,
            _key(one),
            one.fingerprint(SHA256()).hex(),
        )


def _key(certificate: x509.Certificate) -> str:
    match certificate.public_key():
        case RSAPublicKey() as key:
            return f"RSA {key.key_size}"
        case EllipticCurvePublicKey() as key:
            return f"EC {key.curve.name}"
        case key:
            return type(key).__name__.removesuffix("PublicKey")


def _token(token: TokenSelector) -> str:
    if token.label is not None:
        return f"label {token.label}"
    return f"serial {token.serial}" if token.serial is not None else f"slot {token.slot}"


def _signing(configuration: Configuration) -> Iterator[tuple[Cell, ...]]:
    audit = configuration.audit
    if audit is None:
        return
    where = (
        f"the file {audit.key_file}, for tests only"
        if audit.key_file is not None
        else f"HSM {audit.hsm or next(iter(configuration.hsms))}"
    )
    key = "in a file" if audit.key_file is not None else audit.key
    for name in (audit.name, audit.control_name):
        if name is not None:
            yield name, key, where
