"""The border: signatures, the service model's constraints, what is left out."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http.client import HTTPConnection
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from tests.waiting import PATIENCE
from tests.witness.kms.clients import LocalKms, error_of

from holdfast.witness.kms.api import MAX_BODY
from holdfast.witness.kms.callers import Caller, authenticate
from holdfast.witness.kms.errors import KmsException
from holdfast.xks.secret import Secret

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
ALICE = Caller("AKIAALICE", Secret.of_text("alice-has-this-secret"), "arn:aws:iam::111122223333:user/alice")


def signed_headers(body: bytes = b"{}", *, service: str = "kms", region: str = "us-east-1") -> dict[str, str]:
    """The headers of a ListKeys request that alice signed at NOW."""
    request = AWSRequest(
        "POST",
        "http://localhost/",
        headers={"host": "localhost", "x-amz-target": "TrentService.ListKeys", "x-amz-date": f"{NOW:%Y%m%dT%H%M%SZ}"},
        data=body,
    )
    request.context["timestamp"] = request.headers["x-amz-date"]
    signer = SigV4Auth(Credentials("AKIAALICE", "alice-has-this-secret"), service, region)
    signature = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    request.headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={signer.scope(request)}, "
        f"SignedHeaders={signer.signed_headers(signer.headers_to_sign(request))}, Signature={signature}"
    )
    return {name.lower(): value for name, value in request.headers.items()}


def verdict(
    headers: dict[str, str], body: bytes = b"{}", now: datetime = NOW, callers: dict[str, Caller] | None = None
) -> str:
    """`accepted`, or the name of the refusal."""
    try:
        authenticate(headers, body, callers=callers or {"AKIAALICE": ALICE}, region="us-east-1", now=now)
    except KmsException as error:
        return error.name
    return "accepted"


def test_a_good_signature_is_accepted() -> None:
    assert verdict(signed_headers()) == "accepted"


def test_another_body_is_not_what_was_signed() -> None:
    assert verdict(signed_headers(), b'{"Limit":1}') == "InvalidSignatureException"


def test_a_content_digest_does_not_stand_for_another_body() -> None:
    """Botocore's signer would believe the header."""
    headers = {**signed_headers(), "x-amz-content-sha256": sha256(b"{}").hexdigest()}
    assert verdict(headers, b'{"Limit":1}') == "InvalidSignatureException"


@pytest.mark.parametrize("name", ["host", "x-amz-target"])
def test_a_changed_signed_header_is_noticed(name: str) -> None:
    assert verdict({**signed_headers(), name: "TrentService.Other"}) == "InvalidSignatureException"


@pytest.mark.parametrize(("seconds", "expected"), [(300, "accepted"), (301, "InvalidSignatureException")])
def test_a_signature_holds_for_five_minutes_either_way(seconds: int, expected: str) -> None:
    assert verdict(signed_headers(), now=NOW + timedelta(seconds=seconds)) == expected
    assert verdict(signed_headers(), now=NOW - timedelta(seconds=seconds)) == expected


@pytest.mark.parametrize(("minutes", "words"), [(6, "expired"), (-6, "not yet current")])
def test_a_wrong_clock_is_told_as_aws_tells_it(minutes: int, words: str) -> None:
    with pytest.raises(KmsException, match=f"Signature {words}: 20261124T120000Z is now ") as caught:
        authenticate(
            signed_headers(),
            b"{}",
            callers={"AKIAALICE": ALICE},
            region="us-east-1",
            now=NOW + timedelta(minutes=minutes),
        )
    assert caught.value.name == "InvalidSignatureException"


def test_another_service_or_region_is_refused() -> None:
    assert verdict(signed_headers(service="s3")) == "InvalidSignatureException"
    assert verdict(signed_headers(region="eu-west-1")) == "InvalidSignatureException"


@pytest.mark.parametrize(
    ("token", "expected"), [(None, "Unrecognized"), ("other", "Unrecognized"), ("t", "accepted")]
)
def test_a_session_token_must_be_the_profiles(token: str | None, expected: str) -> None:
    """AWS answers UnrecognizedClientException to a token that it does not know, and to a temporary id without one."""
    headers = signed_headers() if token is None else {**signed_headers(), "x-amz-security-token": token}
    callers = {"AKIAALICE": replace(ALICE, session_token="t")}
    assert verdict(headers, callers=callers).startswith(expected)
    assert verdict({**headers, "x-amz-security-token": "t"}).startswith("Unrecognized")


def test_an_unsigned_or_half_signed_request_is_refused() -> None:
    headers = signed_headers()
    assert verdict({**headers, "authorization": "Basic YWxpY2U="}) == "IncompleteSignatureException"
    assert verdict({name: headers[name] for name in headers if name != "authorization"}) == (
        "MissingAuthenticationTokenException"
    )
    unsigned_target = headers["authorization"].replace(";x-amz-target", "")
    assert verdict({**headers, "authorization": unsigned_target}) == "IncompleteSignatureException"


def test_a_wrong_secret_and_an_unknown_id_are_told_apart_as_aws_does(local_kms: LocalKms) -> None:
    path = local_kms.settings.credentials
    right = path.read_text()
    path.write_text(right.replace("alice-has-this-secret", "alice-lost-it"))
    assert error_of(local_kms.client().list_keys)[0] == "InvalidSignatureException"
    path.write_text(right.replace("AKIAALICE", "AKIANOBODY"))
    assert error_of(local_kms.client("nobody").list_keys)[0] == "UnrecognizedClientException"


@pytest.mark.parametrize(
    ("operation", "parameters", "words"),
    [
        ("encrypt", {"Plaintext": b"x"}, "Value at 'keyId' failed to satisfy constraint: Member must not be null"),
        ("encrypt", {"KeyId": "k", "Plaintext": b"x" * 4097}, "length less than or equal to 4096"),
        ("generate_random", {"NumberOfBytes": 1025}, "Value '1025' at 'numberOfBytes' failed"),
        ("create_key", {"KeySpec": "AES_999"}, "Member must satisfy enum value set: [RSA_2048"),
        ("create_key", {"XksKeyId": "a/b"}, "regular expression pattern: ^[a-zA-Z0-9-_.]+$"),
        ("tag_resource", {"KeyId": "k", "Tags": [{"TagKey": "a"}]}, "at 'tags.1.member.tagValue' failed"),
        ("generate_data_key", {"KeyId": "k"}, "Please specify either number of bytes or key spec."),
    ],
)
def test_the_service_models_constraints_hold(kms: Any, operation: str, parameters: Any, words: str) -> None:
    name, message = error_of(getattr(kms, operation), **parameters)
    assert name == "ValidationException"
    assert words in message


def test_several_violations_are_told_together(kms: Any) -> None:
    _, message = error_of(kms.encrypt, Plaintext=b"x" * 4097)
    assert message.startswith("2 validation errors detected: ")


def test_a_secret_is_not_repeated_in_a_validation_error(kms: Any) -> None:
    credential = {"AccessKeyId": "short", "RawSecretAccessKey": "do-not-repeat-me"}
    _, message = error_of(
        kms.create_custom_key_store, CustomKeyStoreName="a", XksProxyAuthenticationCredential=credential
    )
    assert "rawSecretAccessKey" in message
    assert "do-not-repeat-me" not in message


@contextmanager
def connection(local_kms: LocalKms) -> Iterator[HTTPConnection]:
    raw = HTTPConnection(local_kms.url.removeprefix("http://"), timeout=PATIENCE)
    try:
        yield raw
    finally:
        raw.close()


Post = Callable[[str, bytes], tuple[int, dict[str, Any]]]


@pytest.fixture
def post(local_kms: LocalKms) -> Post:
    """Posts a body that alice has signed, whatever it holds."""

    def send(target: str, body: bytes) -> tuple[int, dict[str, Any]]:
        request = AWSRequest("POST", f"{local_kms.url}/", headers={"X-Amz-Target": target}, data=body)
        SigV4Auth(Credentials("AKIAALICE", "alice-has-this-secret"), "kms", "us-east-1").add_auth(request)
        with connection(local_kms) as raw:
            raw.request("POST", "/", body=body, headers=dict(request.headers.items()))
            response = raw.getresponse()
            assert response.getheader("content-type") == "application/x-amz-json-1.1"
            assert response.getheader("x-amzn-requestid")
            return response.status, json.loads(response.read())  # noqa: TID251 (a test reads what a client reads)

    return send


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b"{", "SerializationException"),
        (b"[]", "SerializationException"),
        (b'{"Limit":"ten"}', "SerializationException"),
        (b'{"Limit":true}', "SerializationException"),
        (b'{"Limit":0}', "ValidationException"),
        (b'{"Marker":"x"}', "InvalidMarkerException"),
    ],
)
def test_a_wrong_body_is_refused(post: Post, body: bytes, name: str) -> None:
    status, answer = post("TrentService.ListKeys", body)
    assert (status, answer["__type"]) == (400, name)


def test_unknown_and_null_members_are_ignored(post: Post) -> None:
    assert post("TrentService.ListKeys", b'{"Limit":null,"Later":1}')[0] == 200


@pytest.mark.parametrize("target", ["TrentService.Nothing", "Other.ListKeys", "TrentService"])
def test_an_unknown_target_is_refused(post: Post, target: str) -> None:
    assert post(target, b"{}")[1]["__type"] == "UnknownOperationException"


def test_another_path_is_an_unknown_operation(local_kms: LocalKms) -> None:
    with connection(local_kms) as raw:
        raw.request("POST", "/kms", body=b"{}")
        response = raw.getresponse()
        assert (response.status, json.loads(response.read())["__type"]) == (404, "UnknownOperationException")  # noqa: TID251 (a test reads what a client reads)


def test_a_body_over_the_cap_is_refused(post: Post) -> None:
    assert post("TrentService.ListKeys", b" " * (MAX_BODY + 1))[0] == 413


def test_every_pattern_of_the_service_model_compiles_and_is_used_whole(kms: Any) -> None:
    """A trailing newline, which `$` would let through, does not fit."""
    name, _ = error_of(kms.create_key, XksKeyId="key\n")
    assert name == "ValidationException"


def test_a_profiles_secret_does_not_show() -> None:
    assert "alice-has" not in repr(replace(ALICE, via_service="x"))
