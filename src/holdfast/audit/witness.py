"""The witness protocol (C2SP tlog-witness), `add-checkpoint`: both sides of it, without HTTP and without a store.

A log shows a witness its new checkpoint, with the proof that it begins with the one that the witness saw last. The
witness remembers the new one, then cosigns it. So a log cannot show two histories to
readers who ask for the cosignature of the witness.
"""

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus

from holdfast.audit.checkpoint import Checkpoint, SignedCheckpoint, open_checkpoint
from holdfast.audit.faults import AuditFault, Malformed, NotProven, NotSigned
from holdfast.audit.keys import VerifierKey
from holdfast.audit.merkle import EMPTY_ROOT, consistency_proof, verify_consistency
from holdfast.audit.note import MAX_NOTE, Note, Signature, decode_base64, decode_decimal, encode_base64
from holdfast.audit.tiles import Tiles

MAX_HASHES = 63
SIZE_TYPE = "text/x.tlog.size"
"""Content type of the body of a 409: the size that the witness saw last."""


class Refused(AuditFault):
    """What the witness answers instead of a cosignature: an HTTP status and its body."""

    def __init__(self, status: HTTPStatus, message: str, *, body: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.body = body or f"{self.message}\n"


def ask(files: Tiles, checkpoint: Note, *, old: int) -> bytes:
    """The body in which a log shows `checkpoint`, of the tree in `files`, to a witness that saw `old` entries last.

    Raises LogDamaged, and ValueError where the tree has less than `old` entries.
    """
    proof = [encode_base64(value) for value in consistency_proof(old, files.size, files.node)]
    return "".join(f"{line}\n" for line in (f"old {old}", *proof, "")).encode() + checkpoint.encode()


def consider(
    body: bytes, logs: Mapping[str, Sequence[VerifierKey]], last: Callable[[str], Checkpoint | None]
) -> SignedCheckpoint:
    """The checkpoint that a witness may cosign, once it has replaced the `last` one of this origin in its store.

    `logs` has the keys of the logs that it knows, by origin. From the call of `last` until the new checkpoint is
    stored, no other request of the same origin may be considered. Raises Refused.
    """
    try:
        old, proof, raw = _parse(body)
        origin = Checkpoint.parse(Note.parse(raw).text).origin
    except Malformed as error:
        raise Refused(HTTPStatus.BAD_REQUEST, error.message) from None
    if origin not in logs:
        raise Refused(HTTPStatus.NOT_FOUND, f"no log {origin!r} is known here")
    try:
        signed = open_checkpoint(raw, logs[origin])
    except NotSigned as error:
        raise Refused(HTTPStatus.FORBIDDEN, error.message) from None
    new, seen = signed.checkpoint, last(origin) or Checkpoint(origin, 0, EMPTY_ROOT)
    if old > new.size:
        raise Refused(HTTPStatus.BAD_REQUEST, f"the old size {old} is above the size {new.size} of the checkpoint")
    if old != seen.size:
        text = f"this log was seen last with {seen.size} entries, not {old}"
        raise Refused(HTTPStatus.CONFLICT, text, body=f"{seen.size}\n")
    try:
        verify_consistency(old=old, new=new.size, proof=proof, old_root=seen.root, new_root=new.root)
    except NotProven as error:
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, error.message) from None
    return signed


def take(checkpoint: Note, answer: bytes, witnesses: Sequence[VerifierKey]) -> Note:
    """The checkpoint with the cosignatures that a witness answered; those of unknown keys are left out.

    Raises Malformed, and NotSigned for a wrong one, or where there is none of `witnesses`.
    """
    if len(answer) > MAX_NOTE:
        raise Malformed(f"the witness answered {len(answer)} bytes, more than {MAX_NOTE}")
    try:
        lines = answer.decode().removesuffix("\n").split("\n")
    except UnicodeDecodeError:
        raise Malformed("the witness's answer is not UTF-8") from None
    added = []
    for signature in map(Signature.parse, lines):
        for witness in witnesses:
            if witness.made(signature):
                witness.verify(checkpoint.text, signature)
                added.append(signature)
    if not added:
        raise NotSigned("the witness's answer has no cosignature of a known witness")
    return Note(checkpoint.text, tuple(dict.fromkeys((*checkpoint.signatures, *added))))


def _parse(body: bytes) -> tuple[int, list[bytes], bytes]:
    """Old size, proof, and the note."""
    head, split, raw = body.partition(b"\n\n")
    try:
        first, *lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise Malformed("the request is not ASCII before its checkpoint") from None
    if not split or not first.startswith("old ") or len(lines) > MAX_HASHES:
        raise Malformed("the request is not a line `old SIZE`, up to 63 hashes, an empty line and a checkpoint")
    return decode_decimal(first.removeprefix("old ")), [decode_base64(line) for line in lines], raw
