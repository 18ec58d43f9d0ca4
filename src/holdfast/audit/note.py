"""Signed notes (C2SP signed-note): a text, and signature lines that each name a key."""

import binascii
import re
from dataclasses import dataclass

from holdfast.audit.faults import Malformed

MAX_NOTE = 1 << 20
"""Bytes of a note that is read. A checkpoint with 16 signatures of the longest kind has less than 100,000."""
MAX_SIGNATURES = 100
"""The specification asks for 16 at least; Go's implementation takes this many."""
_DASH = "\N{EM DASH} "
_SPLIT = "\n\n"
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")
KEY_ID_SIZE = 4


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature line. `value` is what follows the key's ID, by the rules of the key's type."""

    name: str
    key_id: bytes
    value: bytes

    def line(self) -> str:
        """As it stands in a note, with its newline."""
        return f"{_DASH}{self.name} {encode_base64(self.key_id + self.value)}\n"

    @classmethod
    def parse(cls, line: str) -> "Signature":
        """A line without its newline. Raises Malformed."""
        name, space, encoded = line.removeprefix(_DASH).partition(" ")
        if not line.startswith(_DASH) or not space or not is_key_name(name):
            raise Malformed("a signature line is not an em dash, the key's name and the signature")
        raw = decode_base64(encoded)
        if len(raw) <= KEY_ID_SIZE:
            raise Malformed(f"the signature of {name!r} is shorter than a key's ID")
        return cls(name, raw[:KEY_ID_SIZE], raw[KEY_ID_SIZE:])


@dataclass(frozen=True, slots=True)
class Note:
    """A text that ends in a newline, and at least one signature of it. Nothing here is verified."""

    text: str
    signatures: tuple[Signature, ...]

    def encode(self) -> bytes:
        """The note as a file."""
        return (self.text + "\n" + "".join(signature.line() for signature in self.signatures)).encode()

    @classmethod
    def parse(cls, raw: bytes) -> "Note":
        """The note that `encode` gives `raw` for. Raises Malformed."""
        if len(raw) > MAX_NOTE:
            raise Malformed(f"the note has {len(raw)} bytes, more than {MAX_NOTE}")
        try:
            whole = raw.decode()
        except UnicodeDecodeError:
            raise Malformed("the note is not UTF-8") from None
        if _CONTROL.search(whole):
            raise Malformed("the note has a control character")
        text, split, lines = whole.rpartition(_SPLIT)
        if not split or not lines.endswith("\n"):
            raise Malformed("the note does not end in an empty line and signature lines")
        signatures = tuple(Signature.parse(line) for line in lines.removesuffix("\n").split("\n"))
        if len(signatures) > MAX_SIGNATURES:
            raise Malformed(f"the note has {len(signatures)} signatures, more than {MAX_SIGNATURES}")
        return cls(text + "\n", signatures)


def is_key_name(name: str) -> bool:
    """Whether a key can have this name: it is not empty, and has no space and no plus sign."""
    return bool(name) and "+" not in name and not any(c.isspace() for c in name) and not _CONTROL.search(name)


def encode_base64(raw: bytes) -> str:
    """Standard Base64 with padding, on one line."""
    return binascii.b2a_base64(raw, newline=False).decode("ascii")


def decode_base64(text: str) -> bytes:
    """The bytes of canonical standard Base64. Raises Malformed.

    Encoded again and compared: CPython decodes `QR==` to the same byte as `QQ==`, even in strict mode.
    """
    try:
        raw = binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except ValueError:
        raise Malformed("a line is not Base64") from None
    if encode_base64(raw) != text:
        raise Malformed("a line is not canonical Base64")
    return raw


def decode_decimal(text: str) -> int:
    """A number from 0 below 10^19 without leading zeroes. Raises Malformed."""
    if not _DECIMAL.fullmatch(text):
        raise Malformed("a size, index or time is not a decimal number")
    return int(text)
