import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.audit.logs import LOG, MemoryLog, ecdsa, ed25519, entries

from holdfast.audit.checkpoint import open_checkpoint
from holdfast.audit.faults import AuditFault, Malformed, NotProven, NotSigned
from holdfast.audit.keys import SignatureType, cosign
from holdfast.audit.note import Note
from holdfast.audit.proof import Proof, prove
from holdfast.audit.tiles import CHECKPOINT, Tiles

ENTRIES = list(entries(300))
FILES = MemoryLog().append(*ENTRIES).files
TILES = Tiles(FILES.get, len(ENTRIES))
PROOF = prove(TILES, 7, checkpoint=FILES[CHECKPOINT], extra=b"extra")
HASHES = st.lists(st.binary(min_size=32, max_size=32), max_size=63).map(tuple)


@pytest.mark.parametrize("index", [0, 7, 255, 256, 299])
def test_the_proof_of_an_entry_holds_for_it_alone(index: int) -> None:
    proof = Proof.parse(prove(TILES, index, checkpoint=FILES[CHECKPOINT]).encode())
    assert proof.check(ENTRIES[index], [LOG.key]).checkpoint.size == 300
    with pytest.raises(NotProven):
        proof.check(ENTRIES[index - 1], [LOG.key])
    with pytest.raises(NotSigned):
        proof.check(ENTRIES[index], [ecdsa(number=2).key])


@settings(deadline=None)
@given(st.builds(Proof, st.integers(0, 10**19 - 1), HASHES, st.binary(), st.binary()))
def test_a_proof_reads_back(proof: Proof) -> None:
    assert Proof.parse(proof.encode()) == proof


@settings(deadline=None)
@given(st.integers(0, len(PROOF.encode()) - 1), st.integers(1, 255))
def test_a_changed_byte_is_seen_or_of_the_extra_data(position: int, difference: int) -> None:
    """The extra data is not signed: its user checks that it gives the entry."""
    raw = bytearray(PROOF.encode())
    raw[position] ^= difference
    try:
        changed = Proof.parse(bytes(raw))
        changed.check(ENTRIES[7], [LOG.key])
    except AuditFault:
        return
    assert changed.extra != PROOF.extra
    assert changed.hashes == PROOF.hashes


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda raw: raw[:0], "begin"),
        (lambda raw: raw.replace(b"@v1", b"@v2"), "begin"),
        (lambda raw: raw.partition(b"\n\n")[0], "begin"),
        (lambda raw: raw.replace(b"index 7\n", b""), "no line with the index"),
        (lambda raw: raw.replace(b"index 7\n", b"index 07\n"), "decimal"),
        (lambda raw: raw.replace(b"index 7\n", b"index 7\nAAAA\n"), "32 bytes"),
        (lambda raw: raw.replace(b"index 7\n", b"index 7\n" + (b"A" * 43 + b"=\n") * 64), "63 hashes"),
        (lambda raw: raw.replace(b"extra ", b"extra !"), "Base64"),
        (lambda raw: raw.replace(b"extra ZXh0cmE=", b"extra "), "has none"),
        (lambda raw: b"\xff" + raw, "ASCII"),
        (lambda raw: raw + b"x" * (1 << 20), "bytes"),
    ],
)
def test_what_is_no_proof_is_malformed(change: object, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        Proof.parse(change(PROOF.encode()))  # type: ignore[operator]  # one of the functions above


def test_a_proof_carries_the_cosignatures_of_its_checkpoint() -> None:
    witness = ed25519("witness", kind=SignatureType.COSIGNATURE)
    note = open_checkpoint(FILES[CHECKPOINT], [LOG.key]).note
    cosigned = Note(note.text, (*note.signatures, cosign(note.text, witness.key, witness.sign, time=9)))
    proof = Proof.parse(prove(TILES, 7, checkpoint=cosigned.encode()).encode())
    assert proof.check(ENTRIES[7], [LOG.key], witnesses=[witness.key]).witnessed == {"witness": 9}
    with pytest.raises(NotSigned):
        PROOF.check(ENTRIES[7], [LOG.key], witnesses=[witness.key])
