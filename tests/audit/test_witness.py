"""A log and a witness talk as C2SP tlog-witness says, over several growths of the log."""

from http import HTTPStatus

import pytest
from tests.audit.logs import LOG, ORIGIN, MemoryLog, ecdsa, ed25519, entries

from holdfast.audit.checkpoint import Checkpoint, open_checkpoint
from holdfast.audit.faults import Malformed, NotSigned
from holdfast.audit.keys import SignatureType, cosign
from holdfast.audit.note import Note
from holdfast.audit.tiles import CHECKPOINT, Tiles
from holdfast.audit.witness import Refused, ask, consider, take

WITNESS = ed25519("witness", kind=SignatureType.COSIGNATURE)
LOGS = {ORIGIN: [LOG.key]}


def question(log: MemoryLog, *, old: int) -> bytes:
    return ask(Tiles(log.files.get, log.edge.size), Note.parse(log.files[CHECKPOINT]), old=old)


def refused(body: bytes, *, seen: Checkpoint | None = None) -> Refused:
    with pytest.raises(Refused) as caught:
        consider(body, LOGS, {ORIGIN: seen}.get)
    return caught.value


def test_a_witness_follows_a_log() -> None:
    log, seen = MemoryLog(), dict[str, Checkpoint]()
    for count in (0, 1, 0, 6, 249, 300):
        old = seen[ORIGIN].size if seen else 0
        log.append(*entries(count, first=log.edge.size))
        signed = consider(question(log, old=old), LOGS, seen.get)
        seen[ORIGIN] = signed.checkpoint
        answer = cosign(signed.note.text, WITNESS.key, WITNESS.sign, time=1_700_000_000).line().encode()
        cosigned = take(Note.parse(log.files[CHECKPOINT]), answer, [WITNESS.key])
        opened = open_checkpoint(cosigned.encode(), [LOG.key], witnesses=[WITNESS.key])
        assert (opened.checkpoint.size, opened.witnessed) == (log.edge.size, {"witness": 1_700_000_000})
    assert seen[ORIGIN].size == 556


def test_a_log_that_was_written_again_is_not_cosigned() -> None:
    """Longer, signed by its key, and with the best proof that it has: it does not begin with what was seen."""
    seen = open_checkpoint(MemoryLog().append(*entries(5)).files[CHECKPOINT], [LOG.key]).checkpoint
    other = MemoryLog().append(*entries(9, first=1))
    assert refused(question(other, old=5), seen=seen).status is HTTPStatus.UNPROCESSABLE_ENTITY
    same_size = MemoryLog().append(*entries(5, first=1))
    assert refused(question(same_size, old=5), seen=seen).status is HTTPStatus.UNPROCESSABLE_ENTITY


def test_an_old_size_that_is_not_the_one_seen_is_told_the_right_one() -> None:
    log = MemoryLog().append(*entries(5))
    seen = open_checkpoint(log.files[CHECKPOINT], [LOG.key]).checkpoint
    log.append(*entries(5, first=5))
    for old in (0, 4, 6, 10):
        answer = refused(question(log, old=old), seen=seen)
        assert (answer.status, answer.body) == (HTTPStatus.CONFLICT, "5\n")


def test_a_log_put_back_is_not_cosigned() -> None:
    seen = open_checkpoint(MemoryLog().append(*entries(5)).files[CHECKPOINT], [LOG.key]).checkpoint
    assert refused(question(MemoryLog().append(*entries(3)), old=3), seen=seen).status is HTTPStatus.CONFLICT


BODY = question(MemoryLog().append(*entries(5)), old=0)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", HTTPStatus.BAD_REQUEST),
        (BODY.replace(b"old 0", b"old 00"), HTTPStatus.BAD_REQUEST),
        (BODY.replace(b"old 0", b"new 0"), HTTPStatus.BAD_REQUEST),
        (BODY.replace(b"old 0", b"old 6"), HTTPStatus.BAD_REQUEST),
        (BODY.replace(b"old 0\n", b"old 0\n!\n"), HTTPStatus.BAD_REQUEST),
        (BODY.replace(b"old 0\n", b"old 0\n" + (b"A" * 43 + b"=\n") * 64), HTTPStatus.BAD_REQUEST),
        (BODY.replace(b"old 0\n", b"old 0\n" + b"A" * 43 + b"=\n"), HTTPStatus.UNPROCESSABLE_ENTITY),
        (b"\xff" + BODY, HTTPStatus.BAD_REQUEST),
        (BODY[:-1], HTTPStatus.BAD_REQUEST),
        (BODY.replace(ORIGIN.encode() + b"\n", b"unknown\n"), HTTPStatus.NOT_FOUND),
        (BODY.replace(b"\n5\n", b"\n6\n"), HTTPStatus.FORBIDDEN),
        (question(MemoryLog(ecdsa(number=2)).append(*entries(5)), old=0), HTTPStatus.FORBIDDEN),
    ],
)
def test_what_a_witness_refuses_has_the_status_of_the_specification(body: bytes, status: HTTPStatus) -> None:
    assert refused(body).status is status


def test_a_log_takes_no_cosignature_that_is_wrong_or_of_an_unknown_key() -> None:
    note = Note.parse(MemoryLog().append(*entries(5)).files[CHECKPOINT])
    right = cosign(note.text, WITNESS.key, WITNESS.sign, time=1).line().encode()
    stranger = ed25519("stranger", number=7, kind=SignatureType.COSIGNATURE)
    other = cosign(note.text, stranger.key, stranger.sign, time=1).line().encode()
    assert len(take(note, other + right, [WITNESS.key]).signatures) == 2
    with pytest.raises(NotSigned):
        take(note, other, [WITNESS.key])
    with pytest.raises(NotSigned):
        take(note, cosign("other\n", WITNESS.key, WITNESS.sign, time=1).line().encode(), [WITNESS.key])
    for answer in (b"", b"\xff", b"no line\n", b"x" * (1 << 21)):
        with pytest.raises(Malformed):
            take(note, answer, [WITNESS.key])
