"""Checkpoints (C2SP tlog-checkpoint): the name, size and root of a log, signed by it and cosigned by witnesses."""

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.audit.faults import Malformed, NotSigned
from holdfast.audit.keys import Sign, SignatureType, VerifierKey, cosigned_at, sign
from holdfast.audit.merkle import EMPTY_ROOT, HASH_SIZE
from holdfast.audit.note import Note, decode_base64, decode_decimal, encode_base64


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is signed. `origin` names the log; `extensions` are lines that others may have added: ours have none."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def text(self) -> str:
        """The text of the note."""
        return "".join(f"{x}\n" for x in (self.origin, self.size, encode_base64(self.root), *self.extensions))

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """Raises Malformed."""
        lines = text.split("\n")
        if len(lines) < 4 or lines.pop() or not all(lines):  # noqa: PLR2004 (three lines, each with its newline)
            raise Malformed("a checkpoint has a line each for its origin, size and root, and no empty line")
        origin, size, root, *extensions = lines
        checkpoint = cls(origin, decode_decimal(size), decode_base64(root), tuple(extensions))
        if len(checkpoint.root) != HASH_SIZE or (checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT):
            raise Malformed(f"the root of the checkpoint is not one of a tree of {checkpoint.size} leaves")
        return checkpoint


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint whose signatures were verified, and its note as it was read.

    `signed_by`: the log's keys. `witnessed`: name of a witness to the time of its cosignature, in seconds since the
    epoch.
    """

    checkpoint: Checkpoint
    note: Note
    signed_by: tuple[VerifierKey, ...]
    witnessed: dict[str, int]


def sign_checkpoint(checkpoint: Checkpoint, *signers: tuple[VerifierKey, Sign]) -> Note:
    """The note of a checkpoint. A log signs none that is inconsistent with one that it signed before."""
    text = checkpoint.text()
    return Note(text, tuple(sign(text, key, signer) for key, signer in signers))


def open_checkpoint(
    raw: bytes, keys: Sequence[VerifierKey], *, witnesses: Sequence[VerifierKey] = ()
) -> SignedCheckpoint:
    """The checkpoint, if one of `keys` signed it, each of `witnesses` did, and no signature of theirs is wrong.

    `keys` are the log's own and carry its name: the origin of the checkpoint. Signatures of other keys are passed
    over. Raises Malformed and NotSigned.
    """
    note = Note.parse(raw)
    checkpoint = Checkpoint.parse(note.text)
    own = [key for key in keys if key.name == checkpoint.origin and key.type is not SignatureType.COSIGNATURE]
    if not own:
        names = ", ".join(sorted({repr(key.name) for key in keys})) or "none at all"
        raise NotSigned(
            f"the checkpoint is of the log {checkpoint.origin!r}, and no key of that log was given: {names}"
        )
    made = {key: [s for s in note.signatures if key.made(s)] for key in (*own, *witnesses)}
    for key, signatures in made.items():
        for signature in signatures:
            key.verify(note.text, signature)
    signed_by = tuple(key for key in own if made[key])
    if not signed_by:
        raise NotSigned(f"no given key of the log {checkpoint.origin!r} signed the checkpoint")
    absent = [repr(key.name) for key in witnesses if not made[key]]
    if absent:
        raise NotSigned(f"the checkpoint has no cosignature of {', '.join(absent)}")
    return SignedCheckpoint(checkpoint, note, signed_by, {k.name: cosigned_at(made[k][-1]) for k in witnesses})
