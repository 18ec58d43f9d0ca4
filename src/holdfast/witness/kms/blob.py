"""The `CiphertextBlob`: KMS's own format, which no proxy sees. Ours is not AWS's, which is not public.

    byte 0       format, 1
    byte 1       layers: 0 = KMS's key material only, 1 = an external key around it
    bytes 2-17   the KMS key's UUID
    layers 0     IV (12 bytes), ciphertext, tag (16 bytes)
    layers 1     length and bytes of the ciphertext metadata (length 255: absent), length and bytes of the IV,
                 tag (16 bytes), ciphertext; its plaintext is IV, ciphertext and tag of layer 0

The first 18 bytes and the encryption context are the additional authenticated data of both layers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from holdfast.xks.aad import MAX_CIPHERTEXT_METADATA
from holdfast.xks.messages import IV_LENGTHS, TAG_LENGTH, EncryptResponse

MAX_AAD = 8192
"""Bytes. Spec, "Encrypt": the longest `additionalAuthenticatedData` that every proxy takes."""

_FORMAT = 1
_HEADER_LENGTH = 18
_IV_LENGTH = 12
_ABSENT = 0xFF


class InvalidBlob(Exception):
    """The bytes are no blob of this KMS, or were changed."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A parsed blob: which key made it, and either the inner layer's bytes or the proxy's response."""

    key_id: str
    sealed: bytes | EncryptResponse

    @property
    def header(self) -> bytes:
        """The first 18 bytes."""
        return header_of(self.key_id, external=isinstance(self.sealed, EncryptResponse))

    def to_bytes(self) -> bytes:
        """The whole blob."""
        if isinstance(self.sealed, bytes):
            return self.header + self.sealed
        metadata, iv = self.sealed.ciphertext_metadata, self.sealed.initialization_vector
        prefixed = bytes([_ABSENT]) if metadata is None else bytes([len(metadata)]) + metadata
        return b"".join(
            (self.header, prefixed, bytes([len(iv)]), iv, self.sealed.authentication_tag, self.sealed.ciphertext)
        )

    @classmethod
    def parse(cls, raw: bytes) -> "Blob":
        """Raises InvalidBlob."""
        if len(raw) < _HEADER_LENGTH or raw[0] != _FORMAT or raw[1] not in {0, 1}:
            raise InvalidBlob
        key_id, body = str(UUID(bytes=raw[2:_HEADER_LENGTH])), raw[_HEADER_LENGTH:]
        if raw[1] == 0:
            return cls(key_id, body)
        metadata, rest = _prefixed(body)
        iv, rest = _prefixed(rest)
        if iv is None or len(iv) not in IV_LENGTHS or len(metadata or b"") > MAX_CIPHERTEXT_METADATA:
            raise InvalidBlob
        if len(rest) < TAG_LENGTH:
            raise InvalidBlob
        return cls(key_id, EncryptResponse(rest[TAG_LENGTH:], iv, rest[:TAG_LENGTH], metadata))


def header_of(key_id: str, *, external: bool) -> bytes:
    """The first 18 bytes of a blob."""
    return bytes([_FORMAT, external]) + UUID(key_id).bytes


def associated_data(header: bytes, context: Mapping[str, str]) -> bytes:
    """The header, then the pairs of the encryption context in order, each text after its length (16 bits)."""
    pairs = sorted((key.encode(), value.encode()) for key, value in context.items())
    return header + b"".join(len(text).to_bytes(2) + text for pair in pairs for text in pair)


def seal(material: bytes, plaintext: bytes, aad: bytes, *, iv: bytes) -> bytes:
    """The inner layer under KMS's own key material: IV, ciphertext, tag. `iv` is 12 random bytes."""
    return iv + AESGCM(material).encrypt(iv, plaintext, aad)


def unseal(material: bytes, sealed: bytes, aad: bytes) -> bytes:
    """The plaintext of the inner layer. Raises InvalidBlob."""
    try:
        return AESGCM(material).decrypt(sealed[:_IV_LENGTH], sealed[_IV_LENGTH:], aad)
    except (InvalidTag, ValueError):
        raise InvalidBlob from None


def _prefixed(raw: bytes) -> tuple[bytes | None, bytes]:
    if raw[:1] == bytes([_ABSENT]):
        return None, raw[1:]
    end = 1 + raw[0] if raw else 1
    if len(raw) < end:
        raise InvalidBlob
    return raw[1:end], raw[end:]
