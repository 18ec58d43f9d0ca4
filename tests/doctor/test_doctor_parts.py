"""Doctor on certificate, clock, files and single keys: each mistake has its finding, each remedy its words."""

import os
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from tests.policy.samples import CONFIGURATION, PERMIT
from tests.protocols.xks.proxy import keystore_of

from holdfast.config.listeners import Tls
from holdfast.config.load import parse
from holdfast.config.model import Configuration
from holdfast.doctor.certificate import examine_certificate
from holdfast.doctor.clock import examine_clock, kernel_clock
from holdfast.doctor.files import examine_files
from holdfast.doctor.policies import examine_policies, examine_policy_names
from holdfast.finding import Finding, Severity, worst
from holdfast.hsm.pkcs11.inspect import FoundKey
from holdfast.hsm.port import KeyAttributes
from holdfast.keys.fitness import examine_key, examine_matches
from holdfast.keys.model import Snapshot
from holdfast.setup.local_tls import LIFETIME, LocalTls, ensure_local_tls

NOW = datetime.now(UTC)
CONFINED = {"CKA_TOKEN": True, "CKA_SENSITIVE": True, "CKA_EXTRACTABLE": False, "CKA_NEVER_EXTRACTABLE": True}
GOOD = FoundKey("label", b"\x0a", KeyAttributes("AES_256", ("ENCRYPT", "DECRYPT"), CONFINED))


def told(findings: Iterable[Finding], *, least: Severity = Severity.NOTE) -> dict[str, Severity]:
    """Severity by code, of those that are not worse than nothing."""
    order = list(Severity)
    return {f.code: f.severity for f in findings if order.index(f.severity) >= order.index(least)}


# ---- certificate


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    files = LocalTls.below(tmp_path)
    ensure_local_tls(files, now=NOW)
    return Tls(files.certificate, files.private_key)


@pytest.mark.parametrize(
    ("left", "code", "severity"),
    [
        (timedelta(days=40), "certificate-days", Severity.OK),
        (timedelta(days=20), "certificate-expires", Severity.WARNING),
        (timedelta(days=5), "certificate-expires", Severity.ERROR),
        (timedelta(days=-1), "certificate-expired", Severity.ERROR),
    ],
)
def test_days_left(tls: Tls, left: timedelta, code: str, severity: Severity) -> None:
    found = told(examine_certificate(tls, now=NOW + LIFETIME - left), least=Severity.OK)
    assert found[code] is severity


def test_certificate_of_the_future(tls: Tls) -> None:
    assert "certificate-not-yet-valid" in told(examine_certificate(tls, now=NOW - timedelta(days=1)))


def test_key_of_another_certificate(tls: Tls, tmp_path: Path) -> None:
    other = LocalTls.below(tmp_path / "other")
    other.authority.parent.mkdir()
    ensure_local_tls(other, now=NOW)
    found = told(examine_certificate(replace(tls, private_key=other.private_key), now=NOW))
    assert found["private-key-mismatch"] is Severity.ERROR


@pytest.mark.parametrize(("name", "code"), [("certificate", "certificate"), ("private_key", "private-key")])
@pytest.mark.parametrize("content", [None, b"not PEM"])
def test_unreadable_file(tls: Tls, name: str, code: str, content: bytes | None) -> None:
    path: Path = getattr(tls, name)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert told(examine_certificate(tls, now=NOW))[f"{code}-unreadable"] is Severity.ERROR


def test_plain_http() -> None:
    assert told(examine_certificate(None, now=NOW)) == {"tls-off": Severity.WARNING}


def certificate(path: Path, common_name: str, *, alternative: str | None = None) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    if alternative is not None:
        names = x509.SubjectAlternativeName([x509.DNSName(alternative)])
        builder = builder.add_extension(names, critical=False)
    signed = builder.not_valid_before(NOW).not_valid_after(NOW + LIFETIME).sign(key, hashes.SHA256())
    path.write_bytes(signed.public_bytes(Encoding.PEM))


def test_wildcard_and_self_signed(tls: Tls) -> None:
    certificate(tls.certificate, "*.example.com")
    found = told(examine_certificate(tls, now=NOW + timedelta(minutes=1)))
    assert found["certificate-wildcard"] is Severity.NOTE
    assert found["certificate-self-signed"] is Severity.WARNING
    assert found["certificate-name"] is Severity.ERROR  # it has no alternative name


def test_chain_in_wrong_order(tls: Tls, tmp_path: Path) -> None:
    certificate(tmp_path / "foreign.pem", "Foreign")
    tls.certificate.write_bytes(tls.certificate.read_bytes() + (tmp_path / "foreign.pem").read_bytes())
    assert told(examine_certificate(tls, now=NOW))["certificate-chain"] is Severity.ERROR


def test_a_whole_chain_of_a_private_authority_is_in_order_but_not_trusted(tls: Tls, tmp_path: Path) -> None:
    tls.certificate.write_bytes(tls.certificate.read_bytes() + (tmp_path / "ca.pem").read_bytes())
    assert told(examine_certificate(tls, now=NOW))["certificate-chain"] is Severity.NOTE  # for localhost


def test_a_common_name_that_is_no_alternative_name_is_an_error(tls: Tls) -> None:
    """AWS KMS refuses it, whatever the endpoint's host is."""
    certificate(tls.certificate, "other.example.test", alternative="localhost")
    found = told(examine_certificate(tls, now=NOW + timedelta(minutes=1)))
    assert found["certificate-name"] is Severity.ERROR


# ---- clock


@pytest.mark.parametrize(
    ("state", "code", "severity"),
    [
        ((0, 2000), "clock", Severity.OK),
        ((0x40, 16_000_000), "clock-unsynchronised", Severity.WARNING),
        (None, "clock-unknown", Severity.NOTE),
    ],
)
def test_clock(state: tuple[int, int] | None, code: str, severity: Severity) -> None:
    assert told(examine_clock(lambda: state), least=Severity.OK) == {code: severity}


def test_kernel_answers_here() -> None:
    state = kernel_clock()
    assert state is None or (0 <= state[0] < 0x10000 and 0 <= state[1] <= 16_000_000)


# ---- keys


@pytest.mark.parametrize(
    ("change", "code", "severity"),
    [
        ({"CKA_EXTRACTABLE": True}, "key-may-leave", Severity.WARNING),
        ({"CKA_SENSITIVE": False}, "key-may-leave", Severity.WARNING),
        ({"CKA_WRAP": True}, "key-wraps", Severity.WARNING),
        ({"CKA_NEVER_EXTRACTABLE": False}, "key-may-leave", Severity.WARNING),
        ({"CKA_TOKEN": False}, "key-not-on-token", Severity.ERROR),
        ({}, "key", Severity.OK),
    ],
)
def test_attributes(change: dict[str, bool], code: str, severity: Severity) -> None:
    key = replace(GOOD, attributes=replace(GOOD.attributes, attributes=CONFINED | change))
    assert told(examine_key("key", key), least=Severity.OK) == {code: severity}


@pytest.mark.parametrize("attribute", ["CKA_EXTRACTABLE", "CKA_SENSITIVE", "CKA_NEVER_EXTRACTABLE"])
def test_a_key_that_may_leave_the_hsm_is_an_error_where_the_proxy_refuses_it(attribute: str) -> None:
    attributes = CONFINED | {attribute: attribute == "CKA_EXTRACTABLE"}
    key = replace(GOOD, attributes=replace(GOOD.attributes, attributes=attributes))
    (finding,) = examine_key("key", key, allow_extractable=False)
    assert (finding.code, finding.severity) == ("key-may-leave", Severity.ERROR)
    assert "allow_extractable = true" in finding.remedy


def test_a_key_that_nshield_made_may_not_leave_it() -> None:
    """Its generatekey leaves CKA_LOCAL false."""
    key = replace(GOOD, attributes=replace(GOOD.attributes, attributes=CONFINED | {"CKA_LOCAL": False}))
    assert told(examine_key("key", key, allow_extractable=False)) == {}


@pytest.mark.parametrize("usage", [("ENCRYPT",), ("DECRYPT",), ()])
def test_usage(usage: tuple[str, ...]) -> None:
    key = replace(GOOD, attributes=replace(GOOD.attributes, key_usage=usage))
    assert told(examine_key("key", key)) == {"key-usage": Severity.ERROR}


def test_label_used_twice_shows_the_ids() -> None:
    (finding,) = examine_matches("key", "label", [GOOD, replace(GOOD, id=b"")])
    assert finding.code == "key-label-twice"
    assert "0a, none" in finding.what


# ---- files


STATE = """
[server]
listen = "127.0.0.1:1"
[tls]
certificate = "server.pem"
private_key = "server.key"
[log]
events = "log/events.jsonl"
[hsm.main]
profile = "softhsm2"
library = "libsofthsm2.so"
token = { label = "x" }
health_key = "health"
pin = { file = "pin" }
"""
SERVICE = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")


@pytest.fixture
def state(tmp_path: Path) -> Configuration:
    """An installation's files, each as it should be."""
    for name in ("secrets", "log"):
        (tmp_path / name).mkdir(mode=0o700)
    for name in ("pin", "server.key", "secrets/ID", "catalog.db", "holdfast.toml"):
        (tmp_path / name).touch(mode=0o600)
    return parse(STATE, tmp_path / "holdfast.toml")


def folder_of(configuration: Configuration) -> Path:
    return configuration.path.parent


def give(configuration: Configuration, *names: str) -> None:
    """Gives files to the service's user."""
    for name in names:
        os.chown(folder_of(configuration) / name, SERVICE, SERVICE)


@pytest.mark.parametrize("opened", ["pin", "server.key", "secrets", "secrets/ID", "catalog.db"])
def test_secret_that_others_can_read(state: Configuration, opened: str) -> None:
    assert told(examine_files(state)) == {}
    (folder_of(state) / opened).chmod(0o755 if opened == "secrets" else 0o644)
    (finding,) = examine_files(state)
    assert (finding.code, finding.severity) == ("file-too-open", Severity.ERROR)
    assert finding.subject == str(folder_of(state) / opened)


@as_root
def test_a_group_of_the_services_own_may_read_what_root_owns(
    state: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As docs/how-to/production.md has it: root:holdfast 0640, so that the service cannot change its own key."""
    give(state, ".", "secrets", "secrets/ID", "catalog.db", "log")
    for name in ("pin", "server.key"):
        os.chown(folder_of(state) / name, 0, SERVICE)
        (folder_of(state) / name).chmod(0o640)
    monkeypatch.setattr("holdfast.doctor.files.is_private_group", lambda gid, _: gid == SERVICE)
    assert told(examine_files(state)) == {}
    monkeypatch.setattr("holdfast.doctor.files.is_private_group", lambda *_: False)
    assert [finding.code for finding in examine_files(state)] == ["file-too-open"] * 2


@as_root
@pytest.mark.parametrize("name", ["pin", "server.key", "secrets/ID", "catalog.db"])
def test_a_secret_that_the_service_cannot_read(state: Configuration, name: str) -> None:
    give(state, ".", "secrets", "log", *{"pin", "server.key", "secrets/ID", "catalog.db"} - {name})
    (finding,) = examine_files(state)
    assert (finding.code, finding.subject) == ("file-not-readable", str(folder_of(state) / name))
    assert "chown nobody: " in finding.remedy


@as_root
def test_a_directory_that_the_service_cannot_write(state: Configuration) -> None:
    give(state, ".", "pin", "server.key", "secrets", "secrets/ID", "catalog.db")
    (finding,) = examine_files(state)
    assert (finding.code, finding.subject) == ("not-writable", str(folder_of(state) / "log"))


@pytest.mark.programs
@pytest.mark.parametrize("holds", ["catalog", "event log", "secret access keys"])
def test_a_full_disk_is_an_error_that_names_what_still_stops_keys(
    state: Configuration, monkeypatch: pytest.MonkeyPatch, holds: str
) -> None:
    """A small file system, full, instead of one of the directories: what the kernel answers, not a double."""
    place = {"catalog": "db", "event log": "log", "secret access keys": "secrets"}[holds]
    directory = folder_of(state) / place
    directory.mkdir(exist_ok=True)
    state = replace(state, catalog=replace(state.catalog, url=f"sqlite:///{folder_of(state)}/db/catalog.db"))
    (folder_of(state) / "db").mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "full", directory], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        (directory / "filler").write_bytes(bytes(60_000))
        (directory / "filler").chmod(0o600)
        monkeypatch.setattr("holdfast.doctor.files._LITTLE", 0)
        (finding,) = examine_files(state)
    finally:
        subprocess.run(["umount", directory], check=True)
    assert (finding.code, finding.severity) == ("not-writable", Severity.ERROR)
    assert f"the directory of the {holds} cannot be written: No space left on device" in finding.what
    assert "systemctl stop holdfast" in finding.remedy


def test_little_space_is_a_warning(state: Configuration, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.doctor.files._LITTLE", 2**60)
    assert told(examine_files(state)) == {"disk-nearly-full": Severity.WARNING}


def test_a_missing_directory_of_the_event_log(state: Configuration) -> None:
    (folder_of(state) / "log").rmdir()
    assert told(examine_files(state)) == {"directory-unreadable": Severity.ERROR}


# ---- policies


def authorizing(folder: Path, policies: str) -> Configuration:
    """A configuration with this policy file."""
    (folder / "policies.cedar").write_text(policies)
    (folder / "policies.cedar").chmod(0o644)
    (folder / "holdfast.toml").touch(mode=0o600)
    return parse(CONFIGURATION, folder / "holdfast.toml")


def test_without_policies_nothing_is_said_of_them() -> None:
    assert [*examine_policies(None), *examine_policy_names(None, Snapshot(1))] == []


def test_good_policies_are_counted(tmp_path: Path) -> None:
    (finding,) = examine_policies(authorizing(tmp_path, PERMIT * 3).authorization)
    assert (finding.severity, finding.code, finding.subject) == (
        Severity.OK,
        "policies",
        str(tmp_path / "policies.cedar"),
    )
    assert "valid (3)" in finding.what


def test_each_mistake_of_the_policies_is_a_finding_with_its_line(tmp_path: Path) -> None:
    wrong = 'permit(principal, action, resource) when { principal.arm == "x" };\n'
    findings = list(examine_policies(authorizing(tmp_path, PERMIT + wrong + wrong).authorization))
    assert [finding.what.partition(":")[0] for finding in findings] == ["line 2", "line 3"]
    assert {(finding.code, finding.severity) for finding in findings} == {("policies-invalid", Severity.ERROR)}
    assert all(finding.why and finding.remedy for finding in findings)


def test_policies_that_cannot_be_read_are_a_finding(tmp_path: Path) -> None:
    configuration = authorizing(tmp_path, PERMIT)
    (tmp_path / "policies.cedar").unlink()
    (finding,) = examine_policies(configuration.authorization)
    assert (finding.code, finding.what) == ("policies-invalid", "cannot be read: No such file or directory")
    assert list(examine_policy_names(configuration.authorization, Snapshot(1))) == []


def test_a_policy_about_a_key_or_keystore_that_does_not_exist(tmp_path: Path) -> None:
    """A misspelt name is valid Cedar, and the policy never applies."""
    keystore = keystore_of(("key-1",))
    text = """\
permit(principal, action, resource in Keystore::"test");
permit(principal, action, resource == ExternalKey::"test/key-1");
permit(principal == AwsPrincipal::"nobody-knows", action, resource in Keystore::"tset");
@id("k") permit(principal, action, resource) when { resource == ExternalKey::"test/key-2" };
"""
    authorization = authorizing(tmp_path, text).authorization
    findings = list(examine_policy_names(authorization, Snapshot(1, {"/test": keystore})))
    assert [finding.what for finding in findings] == [
        'policy line 3 names Keystore::"tset", which is not in the catalog',
        'policy k names ExternalKey::"test/key-2", which is not in the catalog',
    ]
    assert told(findings) == {"policies-name-unknown": Severity.WARNING}


# ---- findings


def test_everything_bad_has_a_reason_and_a_remedy() -> None:
    bad = replace(GOOD, attributes=KeyAttributes("AES_128", (), {"CKA_SENSITIVE": False, "CKA_EXTRACTABLE": True}))
    findings = list(examine_key("key", bad))
    assert len(findings) == 3
    assert all(finding.why and finding.remedy for finding in findings)


def test_worst_of_nothing_is_ok() -> None:
    assert worst([]) is Severity.OK
