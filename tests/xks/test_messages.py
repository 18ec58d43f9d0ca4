"""Bodies of the four operations: required, optional, null, wrong, unknown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.pretty import pretty_repr

from holdfast.xks import messages
from holdfast.xks.encoding import decode_json_object, encode_base64
from holdfast.xks.errors import ErrorName, XksError
from holdfast.xks.messages import (
    DecryptRequest,
    DecryptResponse,
    EkmFleetDetail,
    EncryptRequest,
    EncryptResponse,
    ErrorResponse,
    GetHealthStatusRequest,
    GetHealthStatusResponse,
    GetKeyMetadataRequest,
    GetKeyMetadataResponse,
    RequestMetadata,
)
from holdfast.xks.types import HealthStatus, KeyStatus

if TYPE_CHECKING:
    from collections.abc import Callable

METADATA = {
    "awsPrincipalArn": "arn:aws:iam::123456789012:user/Alice",
    "kmsKeyArn": "arn:aws:kms:us-east-2:123456789012:/key/1234abcd-12ab-34cd-56ef-1234567890ab",
    "kmsOperation": "Encrypt",
    "kmsRequestId": "4112f4d6-db54-4af4-ae30-c55a22a8dfae",
}
# Spec, the request payload examples.
ENCRYPT = {
    "requestMetadata": {**METADATA, "kmsViaService": "ebs"},
    "additionalAuthenticatedData": "cHJvamVjdD1uaWxlLGRlcGFydG1lbnQ9bWFya2V0aW5n",
    "plaintext": "SGVsbG8gV29ybGQh",
    "encryptionAlgorithm": "AES_GCM",
    "ciphertextDataIntegrityValueAlgorithm": "SHA_256",
}
DECRYPT = {
    "requestMetadata": {**METADATA, "kmsOperation": "Decrypt"},
    "additionalAuthenticatedData": "cHJvamVjdD1uaWxlLGRlcGFydG1lbnQ9bWFya2V0aW5n",
    "encryptionAlgorithm": "AES_GCM",
    "ciphertext": "ghxkK1txeDNn3q8Y",
    "ciphertextMetadata": "a2V5X3ZlcnNpb249MQ==",
    "initializationVector": "HMrlRw85cAJUd5Ax",
    "authenticationTag": "vBxN2ncH1oEkR8WVXpmyYQ==",
}
KEY_METADATA = {"requestMetadata": {**METADATA, "kmsOperation": "CreateKey"}}
HEALTH = {"requestMetadata": {"kmsRequestId": "4112f4d6", "kmsOperation": "KmsHealthCheck"}}

REQUESTS: dict[str, tuple[Callable[[bytes], Any], dict[str, Any], set[str], set[str]]] = {
    # parser, example, required fields, required fields of requestMetadata
    "Encrypt": (
        EncryptRequest.parse,
        ENCRYPT,
        {"requestMetadata", "plaintext", "encryptionAlgorithm"},
        {"awsPrincipalArn", "kmsKeyArn", "kmsOperation", "kmsRequestId"},
    ),
    "Decrypt": (
        DecryptRequest.parse,
        DECRYPT,
        {
            "requestMetadata",
            "ciphertext",
            "encryptionAlgorithm",
            "initializationVector",
            "authenticationTag",
        },
        {"awsPrincipalArn", "kmsKeyArn", "kmsOperation", "kmsRequestId"},
    ),
    "GetKeyMetadata": (
        GetKeyMetadataRequest.parse,
        KEY_METADATA,
        {"requestMetadata"},
        {"awsPrincipalArn", "kmsOperation", "kmsRequestId"},
    ),
    "GetHealthStatus": (
        GetHealthStatusRequest.parse,
        HEALTH,
        {"requestMetadata"},
        {"kmsOperation", "kmsRequestId"},
    ),
}
OPTIONAL_METADATA = {"awsSourceVpc", "awsSourceVpce", "kmsViaService"}
FIELDS = [(name, field) for name, (_, example, *_rest) in REQUESTS.items() for field in example]
REQUIRED = [(name, field) for name, (_, _, required, _) in REQUESTS.items() for field in sorted(required)]
OPTIONAL = [(name, field) for name, field in FIELDS if field not in REQUESTS[name][2]]
METADATA_FIELDS = [
    (name, field)
    for name, (_, _, _, required) in REQUESTS.items()
    for field in sorted(required | OPTIONAL_METADATA | {"kmsKeyArn", "awsPrincipalArn"})
]
WRONG_TYPES = [1, 1.5, True, [], ["SGVsbG8gV29ybGQh"], {}]


def parse(name: str, body: dict[str, Any]) -> Any:
    return REQUESTS[name][0](json.dumps(body).encode())


def refused(name: str, body: dict[str, Any]) -> str:
    with pytest.raises(XksError) as caught:
        parse(name, body)
    assert caught.value.name is ErrorName.VALIDATION
    return caught.value.message


def example(name: str) -> dict[str, Any]:
    return {**REQUESTS[name][1]}


@pytest.mark.parametrize("name", REQUESTS)
def test_the_specs_example_is_read(name: str) -> None:
    parse(name, example(name))


@pytest.mark.parametrize(("name", "field"), REQUIRED)
@pytest.mark.parametrize("how", ["absent", "null"])
def test_a_required_field_must_be_there(name: str, field: str, how: str) -> None:
    body = example(name)
    if how == "null":
        body[field] = None
    else:
        del body[field]
    assert field in refused(name, body)


@pytest.mark.parametrize(("name", "field"), OPTIONAL)
def test_an_optional_field_that_is_null_counts_as_absent(name: str, field: str) -> None:
    without = {key: value for key, value in example(name).items() if key != field}
    assert parse(name, {**without, field: None}) == parse(name, without)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        (name, field, value)
        for name, field in FIELDS
        for value in WRONG_TYPES
        if (field, value) != ("requestMetadata", {})
    ],
)
def test_a_field_of_another_type_is_refused(name: str, field: str, value: Any) -> None:
    refused(name, {**example(name), field: value})


@pytest.mark.parametrize(("name", "field"), METADATA_FIELDS)
def test_request_metadata_has_its_required_fields(name: str, field: str) -> None:
    body = example(name)
    for value in ({}, {field: None}):
        metadata = {key: text for key, text in body["requestMetadata"].items() if key != field} | value
        if field in REQUESTS[name][3]:
            assert field in refused(name, {**body, "requestMetadata": metadata})
        else:
            parse(name, {**body, "requestMetadata": metadata})


@pytest.mark.parametrize(("name", "field"), METADATA_FIELDS)
def test_request_metadata_holds_strings(name: str, field: str) -> None:
    body = example(name)
    assert field in refused(name, {**body, "requestMetadata": {**body["requestMetadata"], field: 1}})


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("value", ["", "BulkEncrypt", "\U0001f600", "x" * 5000, "not-a-uuid"])
def test_the_contents_of_request_metadata_are_opaque(name: str, value: str) -> None:
    """Spec: an unknown kmsOperation is not rejected; kmsRequestId is not validated."""
    body = example(name)
    metadata = {**body["requestMetadata"], "kmsOperation": value, "kmsRequestId": value}
    parse(name, {**body, "requestMetadata": metadata})


@pytest.mark.parametrize("name", REQUESTS)
def test_arns_of_2048_characters_are_read(name: str) -> None:
    body = example(name)
    arn = "arn:aws:iam::123456789012:user/".ljust(2048, "x")
    metadata = {**body["requestMetadata"], "awsPrincipalArn": arn, "kmsKeyArn": arn}
    assert parse(name, {**body, "requestMetadata": metadata}).request_metadata.aws_principal_arn == arn


@pytest.mark.parametrize("name", REQUESTS)
def test_unknown_fields_are_ignored(name: str) -> None:
    """Spec, Appendix B: KMS may include additional fields."""
    body = example(name)
    known = parse(name, body)
    more: dict[str, Any] = {"future": {"a": [1, 1e300, None]}, "huge": 10**400}
    assert parse(name, {**body, **more, "requestMetadata": {**body["requestMetadata"], **more}}) == known


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("Encrypt", "plaintext", "QR=="),
        ("Encrypt", "plaintext", "SGVsbG8"),
        ("Encrypt", "additionalAuthenticatedData", "QQ==\n"),
        ("Encrypt", "encryptionAlgorithm", "AES_CBC"),
        ("Encrypt", "encryptionAlgorithm", "aes_gcm"),
        ("Encrypt", "encryptionAlgorithm", ""),
        ("Encrypt", "ciphertextDataIntegrityValueAlgorithm", "SHA_512"),
        ("Encrypt", "ciphertextDataIntegrityValueAlgorithm", ""),
        ("Decrypt", "encryptionAlgorithm", "AES_CBC"),
        ("Decrypt", "ciphertext", "QR=="),
        ("Decrypt", "additionalAuthenticatedData", "-_=="),
        ("Decrypt", "ciphertextMetadata", "QR=="),
        ("Decrypt", "ciphertextMetadata", encode_base64(bytes(21))),
        *[("Decrypt", "initializationVector", encode_base64(bytes(size))) for size in (0, 11, 13, 15, 17)],
        *[("Decrypt", "authenticationTag", encode_base64(bytes(size))) for size in (0, 4, 12, 15, 17)],
    ],
)
def test_a_value_that_breaks_a_rule_is_refused(name: str, field: str, value: str) -> None:
    assert field in refused(name, {**example(name), field: value})


@pytest.mark.parametrize(
    ("field", "size"),
    [
        ("ciphertext", 0),
        ("ciphertext", 4300),
        ("additionalAuthenticatedData", 8192),
        ("ciphertextMetadata", 20),
        ("initializationVector", 12),
        ("initializationVector", 16),
        ("authenticationTag", 16),
    ],
)
def test_the_sizes_of_the_spec_are_read(field: str, size: int) -> None:
    parse("Decrypt", {**DECRYPT, field: encode_base64(bytes(size))})


def test_absent_and_empty_aad_differ() -> None:
    body = {key: value for key, value in ENCRYPT.items() if key != "additionalAuthenticatedData"}
    assert parse("Encrypt", body).aad is None
    assert parse("Encrypt", {**body, "additionalAuthenticatedData": ""}).aad == b""


def test_a_refusal_never_says_the_value() -> None:
    for field, value in (("plaintext", "marked!"), ("encryptionAlgorithm", "marked!"), ("plaintext", ["marked!"])):
        assert "marked" not in refused("Encrypt", {**ENCRYPT, field: value})


# ---- round trips -----------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
OPTIONAL_TEXT = st.none() | TEXT
REQUEST_METADATA = st.builds(
    RequestMetadata,
    kms_operation=TEXT,
    kms_request_id=TEXT,
    aws_principal_arn=TEXT,
    kms_key_arn=TEXT,
    aws_source_vpc=OPTIONAL_TEXT,
    aws_source_vpce=OPTIONAL_TEXT,
    kms_via_service=OPTIONAL_TEXT,
)
OCTETS = st.binary(max_size=50)
IV = st.binary(min_size=12, max_size=12) | st.binary(min_size=16, max_size=16)
TAG = st.binary(min_size=16, max_size=16)
OPTIONAL_METADATA_BYTES = st.none() | st.binary(max_size=20)
MESSAGES: dict[Any, st.SearchStrategy[Any]] = {
    EncryptRequest: st.builds(
        EncryptRequest, REQUEST_METADATA, OCTETS, aad=st.none() | OCTETS, wants_cdiv=st.booleans()
    ),
    EncryptResponse: st.builds(EncryptResponse, OCTETS, IV, TAG, OPTIONAL_METADATA_BYTES, st.none() | OCTETS),
    DecryptRequest: st.builds(
        DecryptRequest, REQUEST_METADATA, OCTETS, IV, TAG, st.none() | OCTETS, OPTIONAL_METADATA_BYTES
    ),
    DecryptResponse: st.builds(DecryptResponse, OCTETS),
    GetKeyMetadataRequest: st.builds(GetKeyMetadataRequest, REQUEST_METADATA),
    GetKeyMetadataResponse: st.builds(
        GetKeyMetadataResponse, TEXT, st.lists(TEXT, max_size=3), st.sampled_from(KeyStatus)
    ),
    GetHealthStatusRequest: st.builds(GetHealthStatusRequest, REQUEST_METADATA),
    GetHealthStatusResponse: st.builds(
        GetHealthStatusResponse,
        st.integers(1, 9),
        TEXT,
        TEXT,
        TEXT,
        st.lists(st.builds(EkmFleetDetail, TEXT, TEXT, st.sampled_from(HealthStatus)), max_size=3),
    ),
    ErrorResponse: st.builds(ErrorResponse, st.sampled_from(ErrorName).map(str), OPTIONAL_TEXT),
}


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_every_message_is_read_back(kind: type[Any], data: st.DataObject) -> None:
    message = data.draw(MESSAGES[kind])
    body = message.to_json()
    assert kind.parse(body) == message
    assert None not in decode_json_object(body).values()


def test_the_wire_names_are_the_specs() -> None:
    metadata = RequestMetadata("Encrypt", "id", *["x"] * 5)
    assert set(decode_json_object(EncryptRequest(metadata, b"", b"", wants_cdiv=True).to_json())) == set(ENCRYPT)
    decrypt = DecryptRequest(metadata, b"", bytes(12), bytes(16), b"", b"")
    body = decode_json_object(decrypt.to_json())
    assert set(body) == set(DECRYPT)
    assert set(body["requestMetadata"]) == {*METADATA, *OPTIONAL_METADATA}


@pytest.mark.parametrize("size", [11, 17])
def test_a_response_with_another_iv_is_refused(size: int) -> None:
    with pytest.raises(XksError, match="initializationVector"):
        EncryptResponse.parse(EncryptResponse(b"", bytes(size), bytes(16)).to_json())


@pytest.mark.parametrize(
    "message",
    [
        EncryptRequest(RequestMetadata("Encrypt", "id"), b"marked plaintext"),
        DecryptResponse(b"marked plaintext"),
    ],
)
def test_a_message_with_a_plaintext_cannot_be_printed(message: Any) -> None:
    """Design decision 13: also not by rich, which has a protocol of its own, nor by what is built underneath."""
    wires: dict[Any, Any] = {
        EncryptRequest: messages._EncryptRequestWire,
        DecryptResponse: messages._DecryptResponseWire,
    }
    wire: Any = messages._convert(decode_json_object(message.to_json()), wires[type(message)])
    for shown in (repr(message), str(message), f"{[message]}", pretty_repr(message), repr(wire), pretty_repr(wire)):
        assert "marked" not in shown
        assert encode_base64(b"marked plaintext") not in shown
