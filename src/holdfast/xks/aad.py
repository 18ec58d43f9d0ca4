"""What the authentication tag covers, and the Ciphertext Data Integrity Value (CDIV)."""

import struct
from dataclasses import dataclass
from enum import IntEnum
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


@dataclass(frozen=True, slots=True)
class CiphertextMetadata:
    """Format 1, 5 bytes: the AAD framing, then the key generation as 32 bits big-endian."""

    framing: AadFraming
    generation: int

    def to_bytes(self) -> bytes:
        """The 5 bytes that travel with the ciphertext."""
        return _FORMAT.pack(self.framing, self.generation)

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Raises XksError(INVALID_CIPHERTEXT) for another length or an unknown framing."""
        try:
            framing, generation = _FORMAT.unpack(raw)
            return cls(AadFraming(framing), generation)
        except (struct.error, ValueError):
            raise XksError(ErrorName.INVALID_CIPHERTEXT, "ciphertextMetadata was not made by this proxy") from None


_FORMAT = struct.Struct(">BI")


def is_foreign_metadata(raw: bytes) -> bool:
    """Whether ciphertext metadata can be another proxy's: its AAD is then never one that Holdfast binds.

    Refused are Holdfast's own format and metadata that ends as an AAD of framing SPEC does, with a generation
    from 0 to 255. Decision 0013 shows that these are all for which `aws_sample_hsm_aad` and `hsm_aad` can agree.
    """
    own = len(raw) == _FORMAT.size and raw[0] in tuple(AadFraming)
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
