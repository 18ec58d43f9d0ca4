"""Verifier keys ("vkeys") of notes, and signing with a key that lies elsewhere, such as in an HSM.

Three types of C2SP signed-note: Ed25519; ECDSA on P-256 with SHA-256, which every PKCS#11 module can make; and the
timestamped Ed25519 cosignature of a witness (C2SP tlog-cosignature).
"""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from holdfast.audit.faults import Malformed, NotSigned
from holdfast.audit.note import (
    KEY_ID_SIZE,
    Signature,
    decode_base64,
    encode_base64,
    is_key_name,
)

Sign = Callable[[bytes], bytes]
"""A message to its signature: 64 bytes of Ed25519, or ASN.1 DER of ECDSA over the message's SHA-256."""

_KEY_ID = re.compile(r"[0-9a-f]{8}")
_ED25519_KEY_SIZE = 32
_TIMESTAMP = struct.Struct(">Q")
_LATEST = 253_402_300_799
_P256_SIZE = 32


class SignatureType(IntEnum):
    """The identifier byte of C2SP signed-note, "Signature types"."""

    ED25519 = 0x01
    ECDSA = 0x02
    COSIGNATURE = 0x04


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key and the name it signs under. `public`: 32 bytes of Ed25519, or the DER of SubjectPublicKeyInfo."""

    name: str
    type: SignatureType
    public: bytes

    def __post_init__(self) -> None:
        if not is_key_name(self.name):
            raise Malformed("the name of a verifier key is empty, or has a space or a plus sign")
        try:
            _load(self.type, self.public)
        except (ValueError, UnsupportedAlgorithm):
            raise Malformed(f"the verifier key of {self.name!r} holds no key of its type") from None

    @classmethod
    def parse(cls, text: str) -> "VerifierKey":
        """`name+ID+key`, as `str()` gives it. Raises Malformed."""
        name, _, rest = text.partition("+")
        key_id, _, encoded = rest.partition("+")
        if not _KEY_ID.fullmatch(key_id) or not encoded:
            raise Malformed("a verifier key is NAME+ID+KEY: its name, 8 hexadecimal digits, and the key in Base64")
        raw = decode_base64(encoded)
        try:
            kind = SignatureType(raw[0])
        except ValueError:
            raise Malformed(f"the verifier key of {name!r} is of type {raw[0]}, which is not known here") from None
        key = cls(name, kind, raw[1:])
        if key.key_id.hex() != key_id:
            raise Malformed(f"the ID of the verifier key of {name!r} is not that of its key: a part was changed")
        return key

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{encode_base64(bytes([self.type]) + self.public)}"

    @property
    def key_id(self) -> bytes:
        """The 4 bytes by which a signature line names the key."""
        if self.type is SignatureType.ECDSA:
            hashed = self.public
        else:
            hashed = self.name.encode() + b"\n" + bytes([self.type]) + self.public
        return sha256(hashed).digest()[:KEY_ID_SIZE]

    def made(self, signature: Signature) -> bool:
        """Whether the signature line names this key. That is not proof."""
        return (signature.name, signature.key_id) == (self.name, self.key_id)

    def verify(self, text: str, signature: Signature) -> None:
        """Raises NotSigned."""
        try:
            key = _load(self.type, self.public)
            if isinstance(key, EllipticCurvePublicKey):
                key.verify(signature.value, text.encode(), ECDSA(SHA256()))
            elif self.type is SignatureType.COSIGNATURE:
                message = _cosigned(text, cosigned_at(signature))
                key.verify(signature.value[_TIMESTAMP.size :], message)
            else:
                key.verify(signature.value, text.encode())
        except InvalidSignature:
            raise NotSigned(
                f"the signature of {self.name!r} does not fit: it, or what it signs, was changed"
            ) from None


def sign(text: str, key: VerifierKey, signer: Sign) -> Signature:
    """The signature of a note's text. Raises what `signer` raises."""
    return Signature(key.name, key.key_id, signer(text.encode()))


def cosign(text: str, key: VerifierKey, signer: Sign, *, time: int) -> Signature:
    """A witness's signature of a checkpoint's text, at `time` in seconds since the epoch."""
    return Signature(key.name, key.key_id, _TIMESTAMP.pack(time) + signer(_cosigned(text, time)))


def cosigned_at(signature: Signature) -> int:
    """The time of a cosignature in seconds since the epoch; believe it only after `verify`. Raises NotSigned."""
    if len(signature.value) < _TIMESTAMP.size:
        raise NotSigned(f"the cosignature of {signature.name!r} has no time")
    time: int = _TIMESTAMP.unpack_from(signature.value)[0]
    if time > _LATEST:
        raise NotSigned(f"the cosignature of {signature.name!r} is of a time after the year 9999")
    return time


def ecdsa_der(raw: bytes) -> bytes:
    """PKCS#11's ECDSA signature (r and s side by side, 64 bytes on P-256) as the ASN.1 DER that a note holds."""
    if len(raw) != 2 * _P256_SIZE:
        raise ValueError(f"an ECDSA signature on P-256 has {2 * _P256_SIZE} bytes, not {len(raw)}")
    return encode_dss_signature(int.from_bytes(raw[:_P256_SIZE]), int.from_bytes(raw[_P256_SIZE:]))


def _cosigned(text: str, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def _load(kind: SignatureType, public: bytes) -> EllipticCurvePublicKey | Ed25519PublicKey:
    """Raises ValueError."""
    if kind is not SignatureType.ECDSA:
        return Ed25519PublicKey.from_public_bytes(public)
    key = load_der_public_key(public)
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise ValueError("not a key on P-256")  # noqa: TRY004 (the bytes are wrong, not the caller's type)
    return key
