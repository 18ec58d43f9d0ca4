import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.audit.logs import ORIGIN, ecdsa, ed25519

from holdfast.audit.faults import Malformed, NotSigned
from holdfast.audit.keys import SignatureType, VerifierKey, cosign, cosigned_at, ecdsa_der, sign
from holdfast.audit.note import MAX_SIGNATURES, Note, Signature, encode_base64

NAMES = st.text(min_size=1).filter(
    lambda name: "+" not in name and not any(c.isspace() or c < " " or "\ud800" <= c <= "\udfff" for c in name)
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="".join(map(chr, range(32))))).map(
    lambda text: text + "\n"
)
SIGNATURES = st.builds(Signature, NAMES, st.binary(min_size=4, max_size=4), st.binary(min_size=1, max_size=80))
SIGNERS = [ecdsa(), ed25519()]


@settings(deadline=None)
@given(st.builds(Note, TEXTS, st.lists(SIGNATURES, min_size=1, max_size=5).map(tuple)))
def test_a_note_reads_back(note: Note) -> None:
    assert Note.parse(note.encode()) == note


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "empty line"),
        (b"text\n", "empty line"),
        (b"text\n\n", "empty line"),
        ("text\n\n— name AAAAAAA=".encode(), "empty line"),
        (b"text\n\n- name AAAAAAA=\n", "em dash"),
        ("text\n\n— AAAAAAA=\n".encode(), "em dash"),
        ("text\n\n— na+me AAAAAAA=\n".encode(), "em dash"),
        ("text\n\n— na\N{NO-BREAK SPACE}me AAAAAAA=\n".encode(), "em dash"),
        ("text\n\n— name AAAAAA==\n".encode(), "shorter"),
        ("text\n\n— name AAAAAAB=\n".encode(), "canonical"),
        ("text\n\n— name AAAA AAA=\n".encode(), "not Base64"),
        ("text\n\n— name AAAAAAA=\n\n".encode(), "empty line"),
        ("text\r\n\n— name AAAAAAA=\n".encode(), "control"),
        ("te\x00xt\n\n— name AAAAAAA=\n".encode(), "control"),
        (b"te\xffxt\n\n", "UTF-8"),
        (("text\n\n" + "— name AAAAAAA=\n" * (MAX_SIGNATURES + 1)).encode(), "101 signatures"),
        (b"x" * (1 << 20) + b"\n\n", "bytes"),
    ],
)
def test_what_is_no_note_is_malformed(raw: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        Note.parse(raw)


def test_the_text_ends_at_the_last_empty_line() -> None:
    assert Note.parse("a\n\nb\n\n— name AAAAAAA=\n".encode()).text == "a\n\nb\n"


@pytest.mark.parametrize("signer", [*SIGNERS, ed25519(kind=SignatureType.COSIGNATURE)], ids=lambda s: s.key.type.name)
def test_a_verifier_key_reads_back(signer: object) -> None:
    key = signer.key  # type: ignore[attr-defined]  # a Signer
    assert VerifierKey.parse(str(key)) == key


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "NAME"),
        ("name", "NAME"),
        ("name+0123456+AQ==", "NAME"),
        ("name+0123456G+AQ==", "NAME"),
        (str(ed25519().key).upper(), "NAME"),
        (str(ed25519().key).replace("node-1", "node-2"), "was changed"),
        (str(ed25519().key)[:-4], "no key of its type"),
        (f"name+00000000+{encode_base64(bytes([6]) + bytes(32))}", "type 6"),
        (str(ed25519().key).replace(ORIGIN, ""), "name of a verifier key"),
        (str(ecdsa().key).replace("+AjBZ", "+AjBY", 1), "no key of its type"),
        (str(ecdsa().key) + "\n", "not Base64"),
    ],
)
def test_what_is_no_verifier_key_is_malformed(text: str, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        VerifierKey.parse(text)


@pytest.mark.parametrize("signer", SIGNERS, ids=lambda s: s.key.type.name)
def test_a_signature_fits_its_text_and_key_alone(signer: object) -> None:
    key, private = signer.key, signer.sign  # type: ignore[attr-defined]  # a Signer
    made = sign("text\n", key, private)
    assert key.made(made)
    key.verify("text\n", made)
    other = (ecdsa if key.type is SignatureType.ECDSA else ed25519)(number=2).key
    assert not other.made(made)
    for text, by in (("other\n", key), ("text\n", other)):
        with pytest.raises(NotSigned):
            by.verify(text, made)
    for value in (made.value[:-1], made.value + b"\x00", b""):
        with pytest.raises(NotSigned):
            key.verify("text\n", Signature(made.name, made.key_id, value))


def test_a_cosignature_binds_its_time() -> None:
    witness = ed25519("witness", kind=SignatureType.COSIGNATURE)
    made = cosign("text\n", witness.key, witness.sign, time=1_700_000_000)
    witness.key.verify("text\n", made)
    assert cosigned_at(made) == 1_700_000_000
    later = Signature(made.name, made.key_id, (1_700_000_001).to_bytes(8) + made.value[8:])
    for wrong in (later, Signature(made.name, made.key_id, b"short")):
        with pytest.raises(NotSigned):
            witness.key.verify("text\n", wrong)


def test_the_same_key_has_another_id_as_a_witness() -> None:
    assert ed25519().key.key_id != ed25519(kind=SignatureType.COSIGNATURE).key.key_id


def test_a_signature_of_pkcs11_is_turned_into_der() -> None:
    """C_Sign with CKM_ECDSA gives r and s side by side."""
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature  # noqa: PLC0415 (one test)

    r, s = decode_dss_signature(sign("text\n", SIGNERS[0].key, SIGNERS[0].sign).value)
    ecdsa_key = SIGNERS[0].key
    made = sign("text\n", ecdsa_key, lambda _: ecdsa_der(r.to_bytes(32) + s.to_bytes(32)))
    ecdsa_key.verify("text\n", made)
    with pytest.raises(ValueError, match="64 bytes"):
        ecdsa_der(b"\x00" * 63)
