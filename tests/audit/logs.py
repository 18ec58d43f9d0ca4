"""Keys, and logs in memory, for the tests of the audit log."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, derive_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from holdfast.audit.checkpoint import Checkpoint, sign_checkpoint
from holdfast.audit.keys import Sign, SignatureType, VerifierKey
from holdfast.audit.records import Segment, encode, segment_file, segment_path
from holdfast.audit.tiles import CHECKPOINT, Edge

ORIGIN = "holdfast/madrid/node-1"
NOW = datetime(2026, 11, 25, 10, 30, tzinfo=UTC)


@dataclass(frozen=True)
class Signer:
    """A key pair whose private half is here, as it would be in an HSM."""

    key: VerifierKey
    sign: Sign


def ecdsa(name: str = ORIGIN, *, number: int = 1) -> Signer:
    """A key on P-256, the same for the same number."""
    private = derive_private_key(number, SECP256R1())
    public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Signer(
        VerifierKey(name, SignatureType.ECDSA, public), lambda message: private.sign(message, ECDSA(SHA256()))
    )


def ed25519(name: str = ORIGIN, *, number: int = 1, kind: SignatureType = SignatureType.ED25519) -> Signer:
    """An Ed25519 key, the same for the same number."""
    private = Ed25519PrivateKey.from_private_bytes(bytes(31) + bytes([number]))
    return Signer(VerifierKey(name, kind, private.public_key().public_bytes_raw()), private.sign)


LOG = ecdsa()


@dataclass
class MemoryLog:
    """A log as a dictionary of its files."""

    signer: Signer = LOG
    files: dict[str, bytes] = field(default_factory=dict)
    edge: Edge = field(default_factory=Edge)

    def append(self, *entries: bytes) -> "MemoryLog":
        """Add entries, and sign."""
        self.files |= self.edge.append(entries)
        self.files |= {tile.path: tile.content for tile in (*self.edge.full_tiles(), *self.edge.partial_tiles())}
        checkpoint = Checkpoint(self.signer.key.name, self.edge.size, self.edge.root())
        self.files[CHECKPOINT] = sign_checkpoint(checkpoint, (self.signer.key, self.signer.sign)).encode()
        return self

    def append_segment(self, lines: list[bytes], *, stream: str = "1", first: int = 1, last: int = 0) -> Segment:
        """Add a segment with its record."""
        record = Segment.of(lines, stream=stream, first=first, last=last or first + len(lines) - 1, time=NOW)
        self.files[segment_path(record.sha256)] = segment_file(lines)
        self.append(encode(record))
        return record


def entries(count: int, *, first: int = 0) -> Iterable[bytes]:
    """Records of a kind that no version knows, each another."""
    return [b'{"kind":"test","time":"2026-11-25T10:30:00Z","n":%d}' % n for n in range(first, first + count)]
