"""Canonical Base64 and strict JSON."""

import base64
import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.xks.encoding import MAX_DEPTH, decode_base64, decode_json_object, encode_base64
from holdfast.xks.errors import ErrorName, XksError

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.binary(max_size=200))
def test_what_is_encoded_decodes_to_the_same(raw: bytes) -> None:
    text = encode_base64(raw)
    assert text == base64.b64encode(raw).decode()
    assert decode_base64(text, "field") == raw


@given(st.text(alphabet="AQRQ+/=-_ \n", max_size=12))
def test_what_decodes_encodes_to_the_very_same_text(text: str) -> None:
    """Canonical: there is one text for each value, so no two requests mean the same."""
    try:
        raw = decode_base64(text, "field")
    except XksError:
        return
    assert encode_base64(raw) == text


@pytest.mark.parametrize(
    "text",
    [
        "QR==",
        "QQ",
        "QQ=",
        "QQ===",
        "QQ== ",
        " QQ==",
        "Q Q==",
        "QQ==\n",
        "QQ==QQ==",
        "=",
        "====",
        "Q",
        "-_==",
        "é",
        "QQ=="[::-1],
        "\ud800",
    ],
)
def test_other_base64_is_refused_without_its_text(text: str) -> None:
    with pytest.raises(XksError) as caught:
        decode_base64(text, "plaintext")
    assert caught.value.name is ErrorName.VALIDATION
    assert caught.value.message == "plaintext is not canonical Base64 (RFC 4648, section 4)"
    assert caught.value.__cause__ is None


def test_the_empty_text_is_the_empty_value() -> None:
    assert decode_base64("", "field") == b""


@given(st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=4), st.booleans())
def test_json_objects_decode(value: dict[str, Any], ascii_only: bool) -> None:  # noqa: FBT001 (drawn by hypothesis)
    body = json.dumps(value, ensure_ascii=ascii_only)
    try:
        octets = body.encode()
    except UnicodeEncodeError:
        octets = json.dumps(value).encode()
    try:
        body.encode()
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        with pytest.raises(XksError):
            decode_json_object(octets)
    else:
        assert decode_json_object(octets) == value


REFUSED = {
    "empty": b"",
    "not an object": b"[]",
    "a number": b"1",
    "null": b"null",
    "a second value": b"{}{}",
    "trailing text": b"{} x",
    "trailing comma": b'{"a":1,}',
    "single quotes": b"{'a':1}",
    "comment": b"{}//",
    "key twice": b'{"a":1,"a":1}',
    "key twice by an escape": b'{"a":1,"\\u0061":1}',
    "key twice inside": b'{"a":[{"b":1,"b":2}]}',
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":Infinity}',
    "-Infinity": b'{"a":-Infinity}',
    "byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "Latin-1": b'{"a":"\xe9"}',
    "overlong UTF-8": b'{"a":"\xc0\xaf"}',
    "encoded surrogate": b'{"a":"\xed\xa0\x80"}',
    "lone high surrogate": b'{"a":"\\ud800"}',
    "lone low surrogate": b'{"a":"\\udc00"}',
    "reversed surrogates": b'{"a":"\\udc00\\ud800"}',
    "surrogate as key": b'{"\\ud800":1}',
    "surrogate deep inside": b'{"a":[[{"b":"\\ud800"}]]}',
    "control character": b'{"a":"\n"}',
    "NUL": b'{"a":"\x00"}',
    "vertical tab as space": b"\x0b{}",
    "leading zero": b'{"a":01}',
    "plus sign": b'{"a":+1}',
    "bare point": b'{"a":.5}',
    "bad escape": b'{"a":"\\x41"}',
    "short escape": b'{"a":"\\u41"}',
    "cut off": b'{"a":"b',
    "an integer of more digits than Python reads": b'{"a":' + b"9" * (sys.int_info.default_max_str_digits + 1) + b"}",
    "nested arrays": b'{"a":' + b"[" * 60_000,
    "nested objects": b'{"a":' * 10_000,
    "closed nested arrays": b'{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "closed nested objects": b'{"a":' * 30_000 + b"1" + b"}" * 30_000,
    "one level too many": b'{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}",
    "one level too many behind strings of brackets": b'{"b":"]]\\"]","a":'
    + b"[" * MAX_DEPTH
    + b"]" * MAX_DEPTH
    + b"}",
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_other_json_is_refused(body: bytes) -> None:
    with pytest.raises(XksError) as caught:
        decode_json_object(body)
    assert caught.value.name is ErrorName.VALIDATION
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b' \t\r\n{"a" : 1 } ', {"a": 1}),
        (b'{"a":"\\ud83d\\ude00"}', {"a": "😀"}),
        (b'{"a":1e400}', {"a": float("inf")}),
        (b'{"":null}', {"": None}),
        (b'{"a":"\\u0000"}', {"a": "\0"}),
        (b'{"a":' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}", None),
        (b'{"a":"' + b"[{" * 1000 + b'"}', {"a": "[{" * 1000}),
        (b'{"a":[' + b"[]," * 1000 + b"[]]}", {"a": [[]] * 1001}),
    ],
)
def test_unusual_json_that_is_json_is_read(body: bytes, value: dict[str, Any] | None) -> None:
    decoded = decode_json_object(body)
    assert value is None or decoded == value
