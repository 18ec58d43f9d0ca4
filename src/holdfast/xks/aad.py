"""What the authentication tag covers, and the Ciphertext Data Integrity Value (CDIV)."""

import struct
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from hashlib import sha256
from typing import Self

from holdfast.xks.errors import ErrorName, XksError

MAX_CIPHERTEXT_METADATA = 20
"""Bytes. Spec, "Encrypt": the size of `ciphertextMetadata`."""


class AadFraming(IntEnum):
    """How AAD and ciphertext metadata become the AAD of the HSM's AES-GCM; byte 0 of the metadata.

    SPEC is the spec's own (section "Encrypt"): `len16 || AAD || len8 || metadata`. DIGEST puts SHA-256(AAD)
    where AAD stands, so that the HSM never sees more than 40 bytes of it.
    """

    SPEC = 1
    DIGEST = 2


NEWEST_FORMAT = 2
"""Of the ciphertext metadata that this version reads and makes."""
KEY_TAG_BYTES = 12
"""Of an external key's tag."""
_CHECK_BYTES = 3
_FORMAT_1 = struct.Struct(">BI")
_FORMAT_2 = struct.Struct(f">B{_CHECK_BYTES}s{KEY_TAG_BYTES}sI")
_SECOND = 0x20
"""Byte 0 of format 2 is this and the framing."""
_HIGH = 0x80
_FRAMINGS = tuple(AadFraming)


@dataclass(frozen=True, slots=True)
class CiphertextMetadata:
    """Which key made a ciphertext, and how its AAD was framed. With a `tag` it is of format 2, else of format 1.

    Format 1, 5 bytes: the framing, then the generation as 32 bits big-endian. Format 2, 20 bytes: 0x20 and the
    framing, a check of 3 bytes, the external key's tag of 12 bytes, the generation. The check is over the other
    bytes, so that a changed generation is not taken for one that this proxy does not know yet. Every byte of tag and
    check is 0x80 or more: decision 0020 shows what that excludes.
    """

    framing: AadFraming
    generation: int
    tag: bytes | None = None

    def to_bytes(self) -> bytes:
        """The bytes that travel with the ciphertext."""
        if self.tag is None:
            return _FORMAT_1.pack(self.framing, self.generation)
        first = _SECOND | self.framing
        return _FORMAT_2.pack(first, _check(first, self.tag, self.generation), self.tag, self.generation)

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Raises XksError(INVALID_CIPHERTEXT) for what `to_bytes` never gives."""
        if _is_format_1(raw):
            framing, generation = _FORMAT_1.unpack(raw)
            return cls(AadFraming(framing), generation)
        if _is_format_2(raw):
            first, check, tag, generation = _FORMAT_2.unpack(raw)
            if check == _check(first, tag, generation):
                return cls(AadFraming(first ^ _SECOND), generation, tag)
        raise XksError(ErrorName.INVALID_CIPHERTEXT, "ciphertextMetadata was not made by this proxy")


def key_tag(random: bytes) -> bytes:
    """An external key's tag, of 12 random bytes; 84 of their bits remain."""
    return bytes(octet | _HIGH for octet in random)


def is_key_tag(raw: bytes) -> bool:
    """Whether `key_tag` can have made it."""
    return len(raw) == KEY_TAG_BYTES and min(raw) >= _HIGH


@lru_cache(maxsize=1024)
def _check(first: int, tag: bytes, generation: int) -> bytes:
    digest = sha256(_FORMAT_2.pack(first, bytes(_CHECK_BYTES), tag, generation)).digest()
    return bytes(octet | _HIGH for octet in digest[:_CHECK_BYTES])


def _is_format_1(raw: bytes) -> bool:
    return len(raw) == _FORMAT_1.size and raw[0] in _FRAMINGS


def _is_format_2(raw: bytes) -> bool:
    return len(raw) == _FORMAT_2.size and raw[0] ^ _SECOND in _FRAMINGS and min(raw[1:-4]) >= _HIGH


def is_foreign_metadata(raw: bytes) -> bool:
    """Whether ciphertext metadata can be another proxy's: its AAD is then never one that Holdfast binds.

    Refused are Holdfast's own formats, and metadata that ends as an AAD of framing SPEC with format 1 does, with a
    generation from 0 to 255. Decisions 0013 and 0020 show that these are all for which `aws_sample_hsm_aad` and
    `hsm_aad` can agree.
    """
    own = _is_format_1(raw) or _is_format_2(raw)
    return not own and raw[-6:-1] != b"\x05\x01\x00\x00\x00"


def hsm_aad(aad: bytes | None, metadata: bytes, framing: AadFraming) -> bytes:
    """The AAD for the HSM (spec, "Encrypt", `ciphertextMetadata`). An absent AAD counts as an empty one."""
    present = aad or b""
    covered = present if framing is AadFraming.SPEC else sha256(present).digest()
    return _length16(present) + covered + len(metadata).to_bytes() + metadata


def aws_sample_hsm_aad(aad: bytes | None, metadata: bytes) -> bytes:
    """The AAD that AWS's sample proxy gives its HSM: SHA-256 of a present AAD (also an empty one), else nothing."""
    digest = b"" if aad is None else sha256(aad).digest()
    return _length16(aad or b"") + digest + len(metadata).to_bytes() + metadata


def ciphertext_data_integrity_value(
    aad: bytes | None, metadata: bytes, *, initialization_vector: bytes, ciphertext: bytes, tag: bytes
) -> bytes:
    """The 32 bytes of SHA-256(AAD || metadata || IV || ciphertext || tag) (spec, Appendix C)."""
    digest = sha256(aad or b"")
    for part in (metadata, initialization_vector, ciphertext, tag):
        digest.update(part)
    return digest.digest()


def _length16(aad: bytes) -> bytes:
    if len(aad) > 0xFFFF:  # noqa: PLR2004 (the largest two-byte length)
        raise XksError(ErrorName.UNSUPPORTED_OPERATION, "additionalAuthenticatedData has at most 65535 bytes")
    return len(aad).to_bytes(2)
