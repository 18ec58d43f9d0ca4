"""Proofs that a stranger can check without the log (C2SP tlog-proof): an entry is in the tree of a checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.audit.checkpoint import SignedCheckpoint, open_checkpoint
from holdfast.audit.faults import Malformed
from holdfast.audit.keys import VerifierKey
from holdfast.audit.merkle import HASH_SIZE, inclusion_proof, leaf_hash, verify_inclusion
from holdfast.audit.note import MAX_NOTE, decode_base64, decode_decimal, encode_base64
from holdfast.audit.tiles import Tiles

_HEADER = "c2sp.org/tlog-proof@v1"
_MAX_HASHES = 63


@dataclass(frozen=True, slots=True)
class Proof:
    """The index of an entry, the hashes from it to the root, and the checkpoint's note.

    `extra` is whatever helps to rebuild the entry. It is not signed: believe it only as far as it gives the entry.
    """

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes = b""

    def encode(self) -> bytes:
        """The proof as a file, by custom named `*.tlog-proof`."""
        lines = [_HEADER, *([f"extra {encode_base64(self.extra)}"] if self.extra else []), f"index {self.index}"]
        lines += [encode_base64(value) for value in self.hashes]
        return "".join(f"{line}\n" for line in (*lines, "")).encode() + self.checkpoint

    @classmethod
    def parse(cls, raw: bytes) -> "Proof":
        """The proof that `encode` gives `raw` for. Raises Malformed; the checkpoint is not looked into."""
        if len(raw) > MAX_NOTE:
            raise Malformed(f"the proof has {len(raw)} bytes, more than {MAX_NOTE}")
        head, split, checkpoint = raw.partition(b"\n\n")
        try:
            header, *lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError:
            raise Malformed("the proof is not ASCII before its checkpoint") from None
        if header != _HEADER or not split:
            raise Malformed(f"the proof does not begin with the line {_HEADER}, or ends before its checkpoint")
        extra = b""
        if lines and lines[0].startswith("extra "):
            extra = decode_base64(lines.pop(0).removeprefix("extra "))
            if not extra:
                raise Malformed("the line for extra data has none")
        if not lines or not lines[0].startswith("index "):
            raise Malformed("the proof has no line with the index of its entry")
        index = decode_decimal(lines.pop(0).removeprefix("index "))
        hashes = tuple(decode_base64(line) for line in lines)
        if len(hashes) > _MAX_HASHES or any(len(value) != HASH_SIZE for value in hashes):
            raise Malformed(
                f"the proof has a hash that is not of {HASH_SIZE} bytes, or more than {_MAX_HASHES} hashes"
            )
        return cls(index, hashes, checkpoint, extra)

    def check(
        self, entry: bytes, keys: Sequence[VerifierKey], *, witnesses: Sequence[VerifierKey] = ()
    ) -> SignedCheckpoint:
        """That the entry is in the log. Raises Malformed, NotSigned and NotProven."""
        signed = open_checkpoint(self.checkpoint, keys, witnesses=witnesses)
        tree = signed.checkpoint
        verify_inclusion(leaf=leaf_hash(entry), index=self.index, size=tree.size, proof=self.hashes, root=tree.root)
        return signed


def prove(files: Tiles, index: int, *, checkpoint: bytes, extra: bytes = b"") -> Proof:
    """The proof of an entry in the tree of `files`, which `checkpoint` signs. Raises LogDamaged and ValueError."""
    return Proof(index, tuple(inclusion_proof(index, files.size, files.node)), checkpoint, extra)
