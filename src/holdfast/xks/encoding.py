"""Canonical Base64 and strict JSON: what is decoded here encodes to the very same text again."""

import binascii
import json
from typing import Any, Never

from holdfast.xks.errors import ErrorName, XksError

MAX_DEPTH = 128
"""Arrays and objects inside one another (RFC 8259, section 9, permits a limit). The messages of KMS need 2."""


def decode_base64(text: str, field: str) -> bytes:
    """The bytes of canonical standard Base64 (RFC 4648, section 4). Raises XksError(VALIDATION).

    CPython decodes `QR==` to the same byte as `QQ==`, even in strict mode, so the result is encoded again
    and compared.
    """
    try:
        raw = binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except ValueError:
        # The cause holds the whole input, which may be plaintext.
        raise _not_base64(field) from None
    if binascii.b2a_base64(raw, newline=False).decode("ascii") != text:
        raise _not_base64(field)
    return raw


def encode_base64(raw: bytes) -> str:
    """Standard Base64 with padding, on one line."""
    return binascii.b2a_base64(raw, newline=False).decode("ascii")


def decode_json_object(body: bytes) -> dict[str, Any]:
    """One JSON object (RFC 8259), strictly: UTF-8 without lone surrogates, no key twice, no NaN or Infinity.

    Raises XksError(VALIDATION), also for nesting deeper than MAX_DEPTH.
    """
    try:
        text = body.decode("utf-8")
        value = _DECODER.decode(text)
        if not isinstance(value, dict):
            raise XksError(ErrorName.VALIDATION, "the request body is not a JSON object")
        _limit_depth(value)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise XksError(ErrorName.VALIDATION, "the request body is not strict JSON") from None
    return value


def _limit_depth(value: Any) -> None:
    """Raises ValueError. The decoder's own limit depends on the interpreter's version and the depth of the caller."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for each in level
            for child in (each.values() if isinstance(each, dict) else each)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise ValueError("nested too deeply")


def _not_base64(field: str) -> XksError:
    return XksError(ErrorName.VALIDATION, f"{field} is not canonical Base64 (RFC 4648, section 4)")


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("duplicate key")
    return value


def _refuse_constant(name: str) -> Never:
    raise ValueError(name)


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_pairs, parse_constant=_refuse_constant)
