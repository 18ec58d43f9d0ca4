import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.audit.logs import LOG, ORIGIN, ecdsa, ed25519

from holdfast.audit.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from holdfast.audit.faults import Malformed, NotSigned
from holdfast.audit.keys import SignatureType, VerifierKey, cosign
from holdfast.audit.merkle import EMPTY_ROOT, leaf_hash
from holdfast.audit.note import Note

CHECKPOINT = Checkpoint(ORIGIN, 7, leaf_hash(b"x"))
SIGNED = sign_checkpoint(CHECKPOINT, (LOG.key, LOG.sign))
WITNESS = ed25519("witness", kind=SignatureType.COSIGNATURE)


@settings(deadline=None)
@given(st.integers(1, 10**19 - 1), st.binary(min_size=32, max_size=32))
def test_a_checkpoint_reads_back(size: int, root: bytes) -> None:
    checkpoint = Checkpoint(ORIGIN, size, root)
    assert Checkpoint.parse(checkpoint.text()) == checkpoint


def test_extension_lines_of_others_are_kept_and_signed() -> None:
    extended = Checkpoint(ORIGIN, 7, CHECKPOINT.root, ("more", "and more"))
    raw = sign_checkpoint(extended, (LOG.key, LOG.sign)).encode()
    assert open_checkpoint(raw, [LOG.key]).checkpoint == extended
    with pytest.raises(NotSigned):
        open_checkpoint(raw.replace(b"and more", b"and less"), [LOG.key])


@pytest.mark.parametrize(
    "text",
    [
        "origin\n7\n",
        "\n7\n" + CHECKPOINT.text().split("\n")[2] + "\n",
        CHECKPOINT.text().rstrip("\n"),
        CHECKPOINT.text() + "\n",
        CHECKPOINT.text().replace("\n7\n", "\n07\n"),
        CHECKPOINT.text().replace("\n7\n", "\n-7\n"),
        CHECKPOINT.text().replace("\n7\n", "\n7 \n"),
        CHECKPOINT.text().replace("\n7\n", "\n\N{ARABIC-INDIC DIGIT SEVEN}\n"),
        CHECKPOINT.text().replace("\n7\n", f"\n{10**19}\n"),
        CHECKPOINT.text().replace("\n7\n", "\n0\n"),
        "origin\n7\nAAAA\n",
    ],
)
def test_what_is_no_checkpoint_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        Checkpoint.parse(text)


def test_the_empty_log_has_the_empty_root() -> None:
    assert Checkpoint.parse(Checkpoint(ORIGIN, 0, EMPTY_ROOT).text()).size == 0


def test_a_signed_checkpoint_opens_with_its_key() -> None:
    opened = open_checkpoint(SIGNED.encode(), [ecdsa("another-log").key, LOG.key])
    assert (opened.checkpoint, opened.signed_by) == (CHECKPOINT, (LOG.key,))


@pytest.mark.parametrize(
    "keys",
    [
        [],
        [ecdsa(number=2).key],
        [ecdsa("another-log").key],
        [ed25519().key],
        [ed25519(kind=SignatureType.COSIGNATURE).key],
    ],
    ids=["none", "another key", "another log's key", "another type", "a witness of the log's name"],
)
def test_without_the_log_s_own_key_nothing_opens(keys: list[VerifierKey]) -> None:
    with pytest.raises(NotSigned):
        open_checkpoint(SIGNED.encode(), keys)


@settings(deadline=None)
@given(st.integers(0, len(SIGNED.encode()) - 1), st.integers(1, 255))
def test_no_changed_byte_goes_unseen(position: int, difference: int) -> None:
    raw = bytearray(SIGNED.encode())
    raw[position] ^= difference
    with pytest.raises((Malformed, NotSigned)):
        open_checkpoint(bytes(raw), [LOG.key])


@settings(deadline=None)
@given(st.integers(0, len(SIGNED.encode()) - 1))
def test_no_truncation_goes_unseen(length: int) -> None:
    with pytest.raises((Malformed, NotSigned)):
        open_checkpoint(SIGNED.encode()[:length], [LOG.key])


def test_signatures_of_unknown_keys_are_passed_over() -> None:
    unknown = ed25519(number=9)
    note = sign_checkpoint(CHECKPOINT, (unknown.key, unknown.sign), (LOG.key, LOG.sign))
    assert open_checkpoint(note.encode(), [LOG.key]).signed_by == (LOG.key,)


def test_one_wrong_signature_of_a_known_key_spoils_the_note() -> None:
    wrong = LOG.key, ecdsa(number=2).sign
    note = sign_checkpoint(CHECKPOINT, wrong, (LOG.key, LOG.sign))
    with pytest.raises(NotSigned, match="does not fit"):
        open_checkpoint(note.encode(), [LOG.key])


def test_a_witness_that_is_asked_for_must_have_cosigned() -> None:
    with pytest.raises(NotSigned, match="no cosignature of 'witness'"):
        open_checkpoint(SIGNED.encode(), [LOG.key], witnesses=[WITNESS.key])
    cosigned = Note(SIGNED.text, (*SIGNED.signatures, cosign(SIGNED.text, WITNESS.key, WITNESS.sign, time=5)))
    opened = open_checkpoint(cosigned.encode(), [LOG.key], witnesses=[WITNESS.key])
    assert opened.witnessed == {"witness": 5}


def test_a_cosignature_does_not_stand_in_for_the_log() -> None:
    only = Note(SIGNED.text, (cosign(SIGNED.text, WITNESS.key, WITNESS.sign, time=5),))
    with pytest.raises(NotSigned):
        open_checkpoint(only.encode(), [WITNESS.key], witnesses=[WITNESS.key])
