"""A note, and the checkpoint in it, either encodes to the very bytes that it was read from, or is Malformed."""

from holdfast.audit.checkpoint import Checkpoint
from holdfast.audit.faults import Malformed
from holdfast.audit.note import MAX_NOTE, MAX_SIGNATURES, Note


def invariant(data: bytes) -> None:
    """As the first line says."""
    try:
        note = Note.parse(data)
    except Malformed:
        return
    assert note.encode() == data
    assert len(data) <= MAX_NOTE
    assert 1 <= len(note.signatures) <= MAX_SIGNATURES
    try:
        checkpoint = Checkpoint.parse(note.text)
    except Malformed:
        return
    assert checkpoint.text() == note.text


if __name__ == "__main__":
    from harness import main

    main(invariant)
