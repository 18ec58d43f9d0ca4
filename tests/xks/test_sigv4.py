"""SigV4 verification, strictly: Appendix A of the spec and issue 2, section 2."""

from __future__ import annotations

import gc
import hmac
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.xks.signing import ACCESS_KEY_ID, BODY, CREDENTIAL, CREDENTIALS, NOW, PATH, REGION, SECRET, Signed

from holdfast.xks import sigv4
from holdfast.xks.errors import ErrorName, XksError
from holdfast.xks.types import AccessKeyId, SecretAccessKey

if TYPE_CHECKING:
    from collections.abc import Callable

REQUEST = Signed.by_us()
OTHER_ID = AccessKeyId.parse("ZZZZZZZZZZZZZZZZZZZZ")
OTHER_SECRET = SecretAccessKey.parse("/+=" + "z" * 61)


def refusal(request: Signed, **options: Any) -> str:
    with pytest.raises(XksError) as caught:
        request.verify(**options)
    assert caught.value.name is ErrorName.AUTHENTICATION_FAILED
    return caught.value.message


def test_a_signed_request_is_verified() -> None:
    assert REQUEST.verify() == ACCESS_KEY_ID


@given(st.binary(max_size=60), st.sampled_from(["us-east-1", "eu-west-1", "a", "x" * 32]))
def test_what_is_signed_is_verified(body: bytes, region: str) -> None:
    credential = sigv4.Credential(ACCESS_KEY_ID, SECRET, region)
    assert Signed.by_us(body=body, credential=credential).verify() == ACCESS_KEY_ID


@pytest.mark.parametrize("length", [43, 52, 64])
def test_secret_access_keys_of_43_to_64_characters_sign(length: int) -> None:
    secret = SecretAccessKey.parse("k" * length)
    request = Signed.by_us(credential=sigv4.Credential(ACCESS_KEY_ID, secret, REGION))
    assert request.verify(credentials={str(ACCESS_KEY_ID): secret}) == ACCESS_KEY_ID


def test_each_of_two_live_credentials_is_told_apart() -> None:
    """Spec, "SigV4 credentials rotation"."""
    both = {**CREDENTIALS, str(OTHER_ID): OTHER_SECRET}
    other = Signed.by_us(credential=sigv4.Credential(OTHER_ID, OTHER_SECRET, REGION))
    assert (REQUEST.verify(credentials=both), other.verify(credentials=both)) == (ACCESS_KEY_ID, OTHER_ID)


# ---- what the signature covers -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        Signed(REQUEST.headers, body=BODY + b" "),
        Signed(REQUEST.headers, body=b""),
        Signed(REQUEST.headers, path=PATH.replace(b"key-1", b"key-2")),
        Signed(REQUEST.headers, method="PUT"),
        REQUEST.with_header(b"host", b"other.example.com"),
        REQUEST.with_header(b"x-amz-date", b"20261124T120001Z"),
        REQUEST.with_authorization(b"/us-east-2/", b"/us-east-1/"),
    ],
    ids=["body", "no body", "path", "method", "host", "date", "region"],
)
def test_a_change_breaks_the_signature(request_: Signed) -> None:
    assert refusal(request_).startswith("the signature does not match")


def test_any_changed_digit_breaks_the_signature() -> None:
    value = REQUEST.value(b"authorization")
    for place in range(len(value) - 64, len(value)):
        digit = b"0" if value[place : place + 1] != b"0" else b"1"
        changed = value[:place] + digit + value[place + 1 :]
        assert refusal(REQUEST.with_header(b"authorization", changed)).startswith("the signature does not match")


def test_a_header_that_is_not_signed_may_change() -> None:
    assert REQUEST.with_header(b"user-agent", b"any").verify() == ACCESS_KEY_ID


@pytest.mark.parametrize("value", [b"  proxy.example.com", b"proxy.example.com \t"])
def test_white_space_around_a_value_does_not_count(value: bytes) -> None:
    assert REQUEST.with_header(b"host", value).verify() == ACCESS_KEY_ID


# ---- exactly one of each -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"authorization", b"x-amz-date", b"host"])
def test_a_signed_header_that_is_missing_is_refused(name: bytes) -> None:
    assert refusal(REQUEST.with_header(name, None)) == (
        f"the request has 0 {name.decode()} headers where it needs exactly one"
    )


@pytest.mark.parametrize("name", [b"authorization", b"x-amz-date", b"host"])
def test_a_signed_header_that_is_there_twice_is_refused(name: bytes) -> None:
    for first in (REQUEST.value(name), b""):
        assert "2" in refusal(REQUEST.with_another(name, first))


# ---- the form of the Authorization header ------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"AWS4-HMAC-SHA256", b"AWS4-HMAC-SHA1"),
        (b"AWS4-HMAC-SHA256", b"aws4-hmac-sha256"),
        (b"AWS4-HMAC-SHA256 ", b"AWS4-HMAC-SHA256"),
        (b"AWS4-HMAC-SHA256 ", b"AWS4-HMAC-SHA256, "),
        (b"AWS4-HMAC-SHA256 ", b" AWS4-HMAC-SHA256 "),
        (b"Credential=", b"credential="),
        (b"Credential=", b"Credential=x/"),
        (str(ACCESS_KEY_ID).encode(), b"short"),
        (str(ACCESS_KEY_ID).encode(), str(ACCESS_KEY_ID).lower().encode()),
        (str(ACCESS_KEY_ID).encode(), b"A" * 31),
        (b"/kms-xks-proxy/", b"/kms/"),
        (b"/kms-xks-proxy/", b"//"),
        (b"/aws4_request", b"/aws4_reques"),
        (b"/us-east-2/", b"//"),
        (b"/us-east-2/", b"/US-EAST-2/"),
        (b"/us-east-2/", b"/us/east-2/"),
        (b"/us-east-2/", b"/" + b"x" * 33 + b"/"),
        (b"/20261124/", b"/2026112/"),
        (b"/20261124/", b"/\xd9\xa320261124/"),
        (b", SignedHeaders=", b" SignedHeaders="),
        (b", SignedHeaders=", b",, SignedHeaders="),
        (b"SignedHeaders=host;x-amz-date", b"SignedHeaders="),
        (b"host;x-amz-date", b"Host;x-amz-date"),
        (b"host;x-amz-date", b"host;;x-amz-date"),
        (b"host;x-amz-date", b"host,x-amz-date"),
        (b"host;x-amz-date", b";host;x-amz-date"),
        (b"Signature=", b"Signature=00"),
        (b"Signature=", b"Signature= "),
        (b"Signature=", b"X=y, Signature="),
    ],
)
def test_another_form_of_the_authorization_header_is_refused(old: bytes, new: bytes) -> None:
    assert refusal(REQUEST.with_authorization(old, new)) == (
        "the Authorization header is not that of SigV4 for kms-xks-proxy"
    )


@pytest.mark.parametrize(
    "change", [bytes.upper, lambda value: value + b"\n", lambda value: value + b", A=b", bytes.title]
)
def test_more_or_other_letters_in_the_authorization_header_are_refused(change: Callable[[bytes], bytes]) -> None:
    refusal(REQUEST.with_header(b"authorization", change(REQUEST.value(b"authorization"))))


@pytest.mark.parametrize("value", [b"", b"Basic QQ==", b"Bearer x", b"AWS4-HMAC-SHA256", b"\xff" * 100])
def test_another_scheme_is_refused(value: bytes) -> None:
    refusal(REQUEST.with_header(b"authorization", value))


@pytest.mark.parametrize("spaces", [(b", ", b","), (b", ", b" ,  "), (b" Credential", b"   Credential")])
def test_spaces_between_the_parts_are_free(spaces: tuple[bytes, bytes]) -> None:
    """Older signers write `,` without a space."""
    assert REQUEST.with_authorization(*spaces).verify() == ACCESS_KEY_ID


@pytest.mark.parametrize("names", [b"x-amz-date;host", b"host;host;x-amz-date", b"host;x-amz-date;x-amz-date"])
def test_signed_headers_are_sorted_and_unique(names: bytes) -> None:
    assert "sorted" in refusal(REQUEST.with_authorization(b"host;x-amz-date", names))


@pytest.mark.parametrize("names", [b"host", b"x-amz-date", b"content-type", b"content-type;host"])
def test_host_and_x_amz_date_must_be_signed(names: bytes) -> None:
    changed = REQUEST.with_header(b"content-type", b"application/json")
    assert refusal(changed.with_authorization(b"host;x-amz-date", names)) == "host and x-amz-date must be signed"


# ---- time --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [-300, 0, 300])
def test_five_minutes_either_way_are_accepted(seconds: int) -> None:
    assert REQUEST.verify(now=NOW + timedelta(seconds=seconds)) == ACCESS_KEY_ID


@pytest.mark.parametrize("microseconds", [-1, 1])
def test_more_than_five_minutes_are_refused(microseconds: int) -> None:
    late = timedelta(minutes=5) * microseconds + timedelta(microseconds=microseconds)
    assert "5 minutes" in refusal(REQUEST, now=NOW + late)


def test_the_clock_may_be_of_any_time_zone() -> None:
    assert REQUEST.verify(now=NOW.astimezone(timezone(timedelta(hours=-9)))) == ACCESS_KEY_ID


def test_a_request_over_midnight_is_verified_by_its_own_date() -> None:
    sent = datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert Signed.by_us(now=sent).verify(now=sent + timedelta(seconds=2)) == ACCESS_KEY_ID


def test_the_scopes_date_is_that_of_x_amz_date() -> None:
    assert "scope's date" in refusal(REQUEST.with_authorization(b"/20261124/", b"/20261123/"))


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"2026-11-24T12:00:00Z",
        b"20261124T120000",
        b"20261124T120000z",
        b"20261124 120000Z",
        b"20261124T120000Z\n",
        b"20261124T120000.0Z",
        b"Tue, 24 Nov 2026 12:00:00 GMT",
        b"20261124T120000+0000",
        b"\xd9\xa30261124T120000Z",
    ],
)
def test_another_form_of_x_amz_date_is_refused(value: bytes) -> None:
    assert "form" in refusal(REQUEST.with_header(b"x-amz-date", value))


@pytest.mark.parametrize("date", [b"00000101", b"20261301", b"20260230", b"20261100"])
def test_a_day_that_does_not_exist_is_refused(date: bytes) -> None:
    changed = REQUEST.with_header(b"x-amz-date", date + b"T000000Z").with_authorization(b"20261124", date)
    assert refusal(changed) == "x-amz-date is not a date"


@pytest.mark.parametrize("time", [b"240000", b"126000", b"120060", b"999999"])
def test_a_time_that_does_not_exist_is_refused(time: bytes) -> None:
    changed = REQUEST.with_header(b"x-amz-date", b"20261124T" + time + b"Z")
    assert "form" in refusal(changed, now=datetime(2026, 11, 25, tzinfo=UTC))


# ---- the body's hash ---------------------------------------------------------------------------------


def test_a_request_signed_over_an_unsigned_payload_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spec, Appendix A, Task 1: the hash of the payload is a part of what is signed, whatever a header calls it."""
    honest = sigv4._canonical_request

    def without_the_body(method: str, path: bytes, *, headers: tuple[bytes, bytes], body: bytes) -> bytes:
        return honest(method, path, headers=headers, body=body).rpartition(b"\n")[0] + b"\nUNSIGNED-PAYLOAD"

    with monkeypatch.context() as patched:
        patched.setattr(sigv4, "_canonical_request", without_the_body)
        request = Signed.by_us()
    for value in (None, b"UNSIGNED-PAYLOAD"):
        assert "does not match" in refusal(request.with_header(b"x-amz-content-sha256", value))


@pytest.mark.parametrize("value", [b"UNSIGNED-PAYLOAD", b"0" * 64, b""])
def test_a_header_about_the_body_changes_nothing(value: bytes) -> None:
    """The body itself is hashed."""
    assert REQUEST.with_header(b"x-amz-content-sha256", value).verify() == ACCESS_KEY_ID


# ---- whom ----------------------------------------------------------------------------------------------


def test_an_unknown_access_key_id_says_the_same_as_a_wrong_signature() -> None:
    wrong = Signed.by_us(credential=sigv4.Credential(ACCESS_KEY_ID, OTHER_SECRET, REGION))
    unknown = Signed.by_us(credential=sigv4.Credential(OTHER_ID, SECRET, REGION))
    assert refusal(wrong) == refusal(unknown) == refusal(REQUEST, credentials={})


@pytest.mark.parametrize("used_before", [False, True])
def test_an_unknown_access_key_id_costs_the_same_as_a_wrong_signature(used_before: bool) -> None:  # noqa: FBT001
    """The same HMACs are made and the same comparison, whoever is named and whoever has signed before."""

    def work(request: Signed) -> list[str]:
        sigv4._SIGNING_KEYS.clear()
        if used_before:
            REQUEST.verify()
        calls: list[str] = []
        with (
            patch.object(hmac, "digest", _counted(hmac.digest, calls, "digest")),
            patch.object(hmac.HMAC, "hexdigest", _counted(hmac.HMAC.hexdigest, calls, "sign")),
            patch.object(hmac, "compare_digest", _counted(hmac.compare_digest, calls, "compare")),
        ):
            refusal(request)
        return calls

    wrong = Signed.by_us(credential=sigv4.Credential(ACCESS_KEY_ID, OTHER_SECRET, REGION))
    unknown = Signed.by_us(credential=sigv4.Credential(OTHER_ID, OTHER_SECRET, REGION))
    assert sorted(work(wrong)) == sorted(work(unknown)) == sorted(["digest"] * 4 + ["sign", "compare"])


def test_nobody_can_sign_as_the_stand_in_for_unknown_access_key_ids() -> None:
    nobody, secret = sigv4._NOBODY
    assert refusal(Signed.by_us(credential=sigv4.Credential(nobody, secret, REGION)))


class _Compared(bytes):
    """A header name that counts how often it is compared."""

    times = 0
    __hash__ = bytes.__hash__

    def __eq__(self, other: object) -> bool:
        _Compared.times += 1
        return bytes.__eq__(self, other)


def test_the_work_for_a_request_grows_with_its_headers_and_not_with_their_square() -> None:
    """16 KB of unauthenticated headers, most of them signed, must not hold up everybody else's requests."""
    extra = sorted(b"y-%04d" % number for number in range(1000))
    names = b";".join((b"host", b"x-amz-date", *extra))
    request = Signed.by_us().with_authorization(b"host;x-amz-date", names)
    request = replace(
        request,
        headers=tuple((_Compared(name), value) for name, value in (*request.headers, *((n, b"") for n in extra))),
    )
    _Compared.times = 0
    assert "signature does not match" in refusal(request)
    assert _Compared.times < 20 * len(extra)


def test_the_signing_key_is_made_once_a_day() -> None:
    sigv4._SIGNING_KEYS.clear()
    derivations: list[str] = []
    with patch.object(sigv4, "_derived", _counted(sigv4._derived, derivations, "derived")):
        for _ in range(3):
            REQUEST.verify()
        assert len(derivations) == 1
        Signed.by_us(now=NOW + timedelta(days=1))
        assert len(derivations) == 2


def test_only_a_verified_signature_enters_the_cache() -> None:
    wrong = Signed.by_us(credential=sigv4.Credential(ACCESS_KEY_ID, OTHER_SECRET, REGION))
    unknown = Signed.by_us(credential=sigv4.Credential(OTHER_ID, OTHER_SECRET, REGION))
    sigv4._SIGNING_KEYS.clear()
    refusal(wrong)
    refusal(unknown)
    refusal(REQUEST, region="eu-west-1")
    assert not sigv4._SIGNING_KEYS
    REQUEST.verify()
    assert len(sigv4._SIGNING_KEYS) == 1


def test_the_signing_keys_of_a_secret_end_with_it() -> None:
    sigv4._SIGNING_KEYS.clear()
    secret = SecretAccessKey.parse("s" * 43)
    Signed.by_us(credential=sigv4.Credential(ACCESS_KEY_ID, secret, REGION))
    assert len(sigv4._SIGNING_KEYS) == 1
    del secret
    gc.collect()
    assert not sigv4._SIGNING_KEYS


@pytest.mark.parametrize("region", [None, REGION])
def test_any_region_or_the_key_stores_own_is_accepted(region: str | None) -> None:
    assert REQUEST.verify(region=region) == ACCESS_KEY_ID


def test_another_region_than_the_key_stores_is_refused() -> None:
    assert "region" in refusal(REQUEST, region="eu-west-1")


def test_who_cannot_sign_does_not_learn_the_region() -> None:
    """The region is judged after the signature."""
    wrong = Signed.by_us(credential=sigv4.Credential(ACCESS_KEY_ID, OTHER_SECRET, REGION))
    assert refusal(wrong, region="eu-west-1") == refusal(wrong)


def test_no_secret_is_in_what_is_printed() -> None:
    assert SECRET.reveal().decode() not in repr(CREDENTIAL) + refusal(REQUEST, now=NOW + timedelta(days=1))


def _counted(function: Callable[..., Any], calls: list[str], name: str) -> Callable[..., Any]:
    def counted(*arguments: Any) -> Any:
        calls.append(name)
        return function(*arguments)

    return counted
