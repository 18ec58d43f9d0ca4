"""Each mistake of a proxy is caught by the check meant for it, and by no other."""

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.witness.check import wrong_ciphertexts, wrong_manners, wrong_signatures
from tests.witness.check import wrong_proxies as wrong
from tests.witness.check.certificates import Authority
from tests.witness.check.conftest import WAIVED, OpenSession, complaints, report_of
from tests.witness.check.honest_proxy import HonestProxy

from holdfast.witness.check.checks import CATALOGUE
from holdfast.witness.check.finding import Level, Verdict
from holdfast.witness.check.latency import Measurement
from holdfast.witness.check.run import Fitness
from holdfast.witness.check.session import TestKeys
from holdfast.xks.types import Operation

pytestmark = pytest.mark.server
_BUT_LATENCY = sorted({check.group for check in CATALOGUE} - {"LAT"})

MISTAKES: dict[type[HonestProxy], str] = {
    wrong.AadIgnored: "DEC-03",
    wrong.AadWithoutLengths: "DEC-08",
    wrong.TenMinutesOfSkew: "AUTH-08",
    wrong.AnyAlgorithm: "ENC-12",
    wrong.AnyCdivAlgorithm: "CDIV-04",
    wrong.AnySignature: "AUTH-01",
    wrong.BodyNotSigned: "AUTH-04",
    wrong.CdivMissing: "CDIV-01",
    wrong.CdivWithoutAad: "CDIV-02",
    wrong.ConstantIv: "ENC-07",
    wrong.EmptyFleet: "HEALTH-03",
    wrong.EncryptsWithAnyKey: "USE-04",
    wrong.FleetOfZero: "HEALTH-02",
    wrong.GetAccepted: "HTTP-01",
    wrong.GetNotFound: "HTTP-01",
    wrong.HardCodedHealth: "HEALTH-05",
    wrong.HealthAuthorized: "HEALTH-06",
    wrong.HonestlyDown: "HEALTH-04",
    wrong.HtmlContentType: "HTTP-05",
    wrong.KeyNotFoundAsInternal: "META-05",
    wrong.ListedOperationsOnly: "REQ-01",
    wrong.LongIv: "ENC-04",
    wrong.LongMessage: "ERR-02",
    wrong.LongMetadata: "ENC-06",
    wrong.MetadataNotBound: "DEC-07",
    wrong.NoErrorBody: "ERR-01",
    wrong.NoTrialDecrypt: "CDIV-05",
    wrong.OldDates: "AUTH-07",
    wrong.ShortArns: "REQ-03",
    wrong.ShortTag: "ENC-05",
    wrong.SmallAad: "ENC-09",
    wrong.SmallCiphertext: "DEC-02",
    wrong.SmallPlaintext: "ENC-08",
    wrong.StrayBitsAccepted: "ENC-15",
    wrong.TagLeftInCiphertext: "ENC-03",
    wrong.TruncatedTagAccepted: "DEC-09",
    wrong.UnknownMetadataRefused: "REQ-04",
    wrong.UnprintableMessage: "ERR-02",
    wrong.UnsignedAccepted: "AUTH-02",
    wrong.UnsignedHealthAccepted: "AUTH-02",
    wrong.UrlSafeBase64: "ENC-02",
    wrong.UsageInLowerCase: "META-03",
    wrong.UuidDemanded: "REQ-02",
    wrong.WrongStatus: "ERR-03",
    wrong.ZeroIv: "ENC-07",
    wrong_ciphertexts.AbsentAadIsAnother: "DEC-14",
    wrong_ciphertexts.AnotherPlaintext: "DEC-01",
    wrong_ciphertexts.AnyDecryptAlgorithm: "DEC-13",
    wrong_ciphertexts.BadBase64Crashes: "DEC-16",
    wrong_ciphertexts.BadJsonCrashes: "ENC-16",
    wrong_ciphertexts.CiphertextOverlooked: "DEC-04",
    wrong_ciphertexts.CorruptedAfterTheTrial: "CDIV-03",
    wrong_ciphertexts.DecryptsWithAKeyOfNoUse: "USE-06",
    wrong_ciphertexts.DecryptsWithAnEncryptOnlyKey: "USE-02",
    wrong_ciphertexts.EmptyPlaintextRefused: "ENC-11",
    wrong_ciphertexts.EncryptNotImplemented: "ENC-01",
    wrong_ciphertexts.ForeignCharactersSkipped: "ENC-14",
    wrong_ciphertexts.ForeignCharactersSkippedInAad: "ENC-19",
    wrong_ciphertexts.HardlyEncrypts: "ENC-18",
    wrong_ciphertexts.IvOverlooked: "DEC-06",
    wrong_ciphertexts.KeyOverlooked: "DEC-15",
    wrong_ciphertexts.LastDuplicateWins: "ENC-17",
    wrong_ciphertexts.LongMetadataCut: "DEC-11",
    wrong_ciphertexts.MissingAlgorithmCrashes: "ENC-13",
    wrong_ciphertexts.MissingFieldCrashes: "DEC-12",
    wrong_ciphertexts.OddIvCrashes: "DEC-10",
    wrong_ciphertexts.SmallBodies: "ENC-10",
    wrong_ciphertexts.TagOverlooked: "DEC-05",
    wrong_manners.AnyPrefix: "HTTP-04",
    wrong_manners.ArnsOnly: "REQ-06",
    wrong_manners.ClosesConnections: "HTTP-06",
    wrong_manners.DegradedHsm: "HEALTH-10",
    wrong_manners.PingFails: "HTTP-07",
    wrong_manners.DisabledStatus: "META-04",
    wrong_manners.HsmModelWithoutVersion: "HEALTH-09",
    wrong_manners.Http10: "TLS-04",
    wrong_manners.ModelWithoutVersion: "HEALTH-08",
    wrong_manners.NoHealth: "HEALTH-01",
    wrong_manners.NoKeyStatus: "META-01",
    wrong_manners.NoSuiteOfTheSpec: "TLS-01",
    wrong_manners.OldTls: "TLS-02",
    wrong_manners.OneIdForTwoHsms: "HEALTH-07",
    wrong_manners.PutAccepted: "HTTP-02",
    wrong_manners.ShortKeyIds: "META-06",
    wrong_manners.ShortKeySpec: "META-02",
    wrong_manners.UnknownFieldRefused: "REQ-05",
    wrong_manners.UnknownPathIsAnUnknownKey: "HTTP-03",
    wrong_manners.WeakSuite: "TLS-03",
    wrong_signatures.AnyScopeDate: "AUTH-11",
    wrong_signatures.AnyService: "AUTH-10",
    wrong_signatures.CapitalHeaderNamesOnly: "AUTH-16",
    wrong_signatures.DateNotSigned: "AUTH-06",
    wrong_signatures.FirstOfTwoAuthorizations: "AUTH-14",
    wrong_signatures.PathNotSigned: "AUTH-05",
    wrong_signatures.TwoSignedHeadersOnly: "AUTH-15",
    wrong_signatures.UnknownAccessKeyAccepted: "AUTH-03",
    wrong_signatures.UnsignedDateAccepted: "AUTH-12",
    wrong_signatures.UnsignedHostAccepted: "AUTH-13",
}
"""Each wrong proxy beside the one check that must complain."""

ELSEWHERE = {
    *("AUTH-09", "CERT-01", "CERT-02", "CERT-03", "CERT-04", "CERT-05", "CERT-06", "LAT-01", "USE-01", "USE-03"),
    *("USE-05", "LAT-04"),
    *("CONF-01", "CONF-02", "CONF-03", "CONF-04", "CONF-05", "REACH-01", "REACH-02", "REACH-03"),
    *("LAT-02", "LAT-03", "TLS-05"),
}
"""Checks that must complain in a test of their own: below, and in test_surroundings.py."""


def test_every_check_has_a_mistake_that_it_catches() -> None:
    assert set(MISTAKES.values()) | ELSEWHERE == {check.id for check in CATALOGUE}


def test_an_honest_proxy_passes_everything(open_session: OpenSession) -> None:
    with open_session(HonestProxy()) as session:
        report = report_of(session)
    assert complaints(report) == {}
    assert {result.check.id for result in report.results if result.verdict is Verdict.SKIP} == {"TLS-05"}


@pytest.mark.parametrize(("proxy", "check_id"), MISTAKES.items(), ids=lambda value: getattr(value, "__name__", value))
def test_a_mistake_is_caught_by_its_check_alone(
    proxy: type[HonestProxy], check_id: str, open_session: OpenSession
) -> None:
    with open_session(proxy()) as session:
        report = report_of(session, *_BUT_LATENCY)
    found = complaints(report)
    assert list(found) == [check_id], {key: result.evidence for key, result in found.items()}
    binding = found[check_id].check.level in (Level.MUST, Level.KMS)
    assert found[check_id].verdict is (Verdict.FAIL if binding else Verdict.WARN)


def test_hard_coded_usage_is_caught_for_each_restricted_key(open_session: OpenSession) -> None:
    with open_session(wrong.UsageHardCoded()) as session:
        found = complaints(report_of(session, "USE"))
    assert set(found) == {"USE-01", "USE-03", "USE-05"}


def test_a_wrong_clock_is_a_warning_on_both_sides(open_session: OpenSession) -> None:
    with open_session(wrong.ClockWrong()) as session:
        found = complaints(report_of(session, "AUTH"))
    assert set(found) == {"AUTH-08", "AUTH-09"}


def test_a_constant_iv_behind_a_false_one_is_caught_by_the_ciphertexts(open_session: OpenSession) -> None:
    with open_session(wrong.HiddenConstantIv()) as session:
        found = complaints(report_of(session, "ENC"))
    assert list(found) == ["ENC-07"]
    assert "ciphertexts repeat" in found["ENC-07"].evidence


def test_a_slow_proxy_is_caught(open_session: OpenSession) -> None:
    with open_session(wrong.Slow()) as session:
        session.samples = 4
        found = complaints(report_of(session, "LAT"))
    assert list(found) == ["LAT-01"]


def test_a_single_slow_call_is_a_warning(open_session: OpenSession) -> None:
    with open_session(HonestProxy()) as session:
        session.measurement = Measurement(
            Operation.ENCRYPT, 0.001, [0.001], [0.001], [0.001], [0.01], [*[0.001] * 200, 0.3]
        )
        found = complaints(report_of(session, "LAT"))
    assert {key: result.verdict for key, result in found.items()} == {"LAT-04": Verdict.WARN}


def test_an_expired_certificate_is_caught(open_session: OpenSession, authority: Authority, tmp_path: Path) -> None:
    expired = authority.issue(tmp_path / "expired.pem", days=-3)
    with open_session(HonestProxy(), server_certificate=expired) as session:
        found = complaints(report_of(session, *_BUT_LATENCY))
    assert list(found) == ["CERT-03"]
    assert "expired" in found["CERT-03"].evidence


def test_a_certificate_that_ends_soon_is_a_warning(
    open_session: OpenSession, authority: Authority, tmp_path: Path
) -> None:
    soon = authority.issue(tmp_path / "soon.pem", days=5)
    with open_session(HonestProxy(), server_certificate=soon) as session:
        found = complaints(report_of(session, "CERT"))
    assert {key: result.verdict for key, result in found.items()} == {"CERT-05": Verdict.WARN}


def test_a_certificate_for_another_name_is_caught(
    open_session: OpenSession, authority: Authority, tmp_path: Path
) -> None:
    other = authority.issue(tmp_path / "other.pem", "xks.example.com")
    with open_session(HonestProxy(), server_certificate=other) as session:
        found = complaints(report_of(session, *_BUT_LATENCY))
    assert list(found) == ["CERT-01"]


def test_a_certificate_with_the_name_in_its_alternative_names_only_is_caught(
    open_session: OpenSession, authority: Authority, tmp_path: Path
) -> None:
    """KMS wants it in the common name too."""
    other = authority.issue(tmp_path / "other.pem", common_name="other.example.test")
    with open_session(HonestProxy(), server_certificate=other) as session:
        found = complaints(report_of(session, *_BUT_LATENCY))
    assert {key: result.verdict for key, result in found.items()} == {"CERT-01": Verdict.FAIL}


def test_a_certificate_with_a_small_key_is_caught(
    open_session: OpenSession, authority: Authority, tmp_path: Path
) -> None:
    small = authority.issue(tmp_path / "small.pem", key=rsa.generate_private_key(65537, 1024))  # noqa: S505 (on purpose)
    with open_session(wrong_manners.AnyCertificate(), server_certificate=small) as session:
        report = report_of(session, "CERT")
    failed = {result.check.id: result.evidence for result in report.results if result.verdict is Verdict.FAIL}
    assert "1024 bits" in failed["CERT-06"]


def test_without_local_a_private_authority_a_port_and_a_bare_name_fail(open_session: OpenSession) -> None:
    with open_session(HonestProxy()) as session:
        session.local = False
        report = report_of(session, "CONF", "REACH", "CERT", "HEALTH-01")
    assert {r.check.id for r in report.results if r.verdict is Verdict.FAIL} == WAIVED
    assert report.fitness is Fitness.NOT_FIT


def test_local_waives_these_and_the_verdict_says_so(open_session: OpenSession) -> None:
    with open_session(HonestProxy()) as session:
        report = report_of(session, "CONF", "REACH", "CERT", "HEALTH-01")
    assert {r.check.id for r in report.results if r.verdict is Verdict.WAIVED} == WAIVED
    assert "AWS KMS would refuse this endpoint: CONF-04, REACH-03, CERT-02" in report.conclusion


def test_local_does_not_waive_an_unknown_authority(open_session: OpenSession, tmp_path: Path) -> None:
    stranger = Authority.create(tmp_path).issue(tmp_path / "server.pem")
    with open_session(HonestProxy(), server_certificate=stranger) as session:
        assert "CERT-02" in complaints(report_of(session, "CERT"))


def test_the_authority_that_was_trusted_is_named(open_session: OpenSession, authority: Authority) -> None:
    """Not only the issuer of the server's certificate."""
    with open_session(HonestProxy()) as session:
        (result,) = (r for r in report_of(session, "CERT-02").results if r.check.id == "CERT-02")
    assert f"--ca ({authority.certificate.subject.rfc4514_string()})" in result.evidence


def test_a_key_that_does_not_exist_is_reported_once(open_session: OpenSession) -> None:
    with open_session(HonestProxy(), keys=TestKeys("NOPE")) as session:
        found = complaints(report_of(session))
    assert {key: result.verdict for key, result in found.items()} == {"META-01": Verdict.FAIL}


def test_a_certificate_of_an_unknown_authority_is_caught(open_session: OpenSession, tmp_path: Path) -> None:
    stranger = Authority.create(tmp_path).issue(tmp_path / "server.pem")
    with open_session(HonestProxy(), server_certificate=stranger) as session:
        report = report_of(session, "CERT")
    assert [r.check.id for r in report.results if r.verdict is Verdict.FAIL] == ["CERT-02"]


def test_a_wildcard_common_name_is_a_warning(open_session: OpenSession, authority: Authority, tmp_path: Path) -> None:
    wildcard = authority.issue(tmp_path / "wildcard.pem", "*.example.com")
    with open_session(HonestProxy(), server_certificate=wildcard) as session:
        address = session.dns
        session.endpoint = replace(session.endpoint, host="xks.example.com")
        session.__dict__["dns"] = address
        found = complaints(report_of(session, "CERT"))
    assert {key: result.verdict for key, result in found.items()} == {"CERT-04": Verdict.WARN}
