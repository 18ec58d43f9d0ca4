"""AAD framing, ciphertext metadata and the CDIV, against vectors that were computed by hand or are the spec's."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.xks.aad import (
    MAX_CIPHERTEXT_METADATA,
    AadFraming,
    CiphertextMetadata,
    aws_sample_hsm_aad,
    ciphertext_data_integrity_value,
    hsm_aad,
)
from holdfast.xks.encoding import decode_base64, encode_base64
from holdfast.xks.errors import ErrorName, XksError

# Spec, Appendix C.
AAD = b"project=nile,department=marketing"
METADATA = b"key_version=1"
CDIV = "qHA/ImC9h5HsLRXqCyPmWgYx7tzyoTplzILbP0fPXsc="
PARTS = {
    "initialization_vector": "HMrlRw85cAJUd5Ax",
    "ciphertext": "ghxkK1txeDNn3q8Y",
    "tag": "vBxN2ncH1oEkR8WVXpmyYQ==",
}

SHA256_OF_NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # FIPS 180-4
SHA256_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4, B.1


def test_the_cdiv_is_that_of_appendix_c() -> None:
    parts = {name: decode_base64(text, name) for name, text in PARTS.items()}
    assert encode_base64(ciphertext_data_integrity_value(AAD, METADATA, **parts)) == CDIV


@given(st.none() | st.binary(max_size=40), st.binary(max_size=20), *[st.binary(max_size=20)] * 3)
def test_the_cdiv_hashes_the_concatenation(
    aad: bytes | None, metadata: bytes, iv: bytes, text: bytes, tag: bytes
) -> None:
    cdiv = ciphertext_data_integrity_value(aad, metadata, initialization_vector=iv, ciphertext=text, tag=tag)
    assert cdiv == sha256((aad or b"") + metadata + iv + text + tag).digest()


@pytest.mark.parametrize(
    ("aad", "metadata", "framing", "expected"),
    [
        (None, b"", AadFraming.SPEC, "000000"),
        (b"", b"", AadFraming.SPEC, "000000"),
        (b"abc", b"", AadFraming.SPEC, "000361626300"),
        (b"abc", b"\x01\x00\x00\x00\x07", AadFraming.SPEC, "0003616263050100000007"),
        (None, b"\x01\x00\x00\x00\x07", AadFraming.SPEC, "0000050100000007"),
        (b"abc", b"\x02\x00\x00\x00\x01", AadFraming.DIGEST, "0003" + SHA256_OF_ABC + "050200000001"),
        (None, b"\x02\x00\x00\x00\x01", AadFraming.DIGEST, "0000" + SHA256_OF_NOTHING + "050200000001"),
        (b"", b"\x02\x00\x00\x00\x01", AadFraming.DIGEST, "0000" + SHA256_OF_NOTHING + "050200000001"),
    ],
)
def test_the_aad_of_the_hsm(aad: bytes | None, metadata: bytes, framing: AadFraming, expected: str) -> None:
    """Spec, "Encrypt": len16 || AAD || len8 || metadata; framing 2 has SHA-256(AAD) in its place."""
    assert hsm_aad(aad, metadata, framing).hex() == expected


def test_the_length_is_big_endian() -> None:
    assert hsm_aad(b"x" * 8192, b"", AadFraming.SPEC)[:2].hex() == "2000"


@pytest.mark.parametrize(
    ("aad", "metadata", "expected"),
    [
        (None, b"", "000000"),
        (b"", b"", "0000" + SHA256_OF_NOTHING + "00"),
        (b"abc", b"", "0003" + SHA256_OF_ABC + "00"),
        (b"abc", b"v=1", "0003" + SHA256_OF_ABC + "03763d31"),
        (None, b"v=1", "000003763d31"),
    ],
)
def test_the_aad_of_awss_sample(aad: bytes | None, metadata: bytes, expected: str) -> None:
    """hsm-facts, section 1.1: an absent AAD adds nothing, an empty one is hashed."""
    assert aws_sample_hsm_aad(aad, metadata).hex() == expected


@pytest.mark.parametrize("framing", AadFraming)
def test_an_aad_over_two_bytes_of_length_is_refused(framing: AadFraming) -> None:
    assert hsm_aad(b"x" * 65535, b"", framing)[:2] == b"\xff\xff"
    with pytest.raises(XksError, match="65535") as caught:
        hsm_aad(b"x" * 65536, b"", framing)
    assert caught.value.name is ErrorName.UNSUPPORTED_OPERATION


@given(
    st.tuples(st.binary(max_size=40), st.binary(max_size=20)),
    st.tuples(st.binary(max_size=40), st.binary(max_size=20)),
    st.sampled_from(AadFraming),
)
def test_different_inputs_never_give_the_same_aad(
    one: tuple[bytes, bytes], other: tuple[bytes, bytes], framing: AadFraming
) -> None:
    """Spec, "Encrypt", the note: metadata must not pass for AAD."""
    assert (hsm_aad(*one, framing) == hsm_aad(*other, framing)) == (one == other)


def test_metadata_does_not_pass_for_aad() -> None:
    assert hsm_aad(b"", b"meta", AadFraming.SPEC) != hsm_aad(b"meta", b"", AadFraming.SPEC)


@given(st.sampled_from(AadFraming), st.integers(0, 2**32 - 1))
def test_ciphertext_metadata_is_read_back(framing: AadFraming, generation: int) -> None:
    metadata = CiphertextMetadata(framing, generation)
    raw = metadata.to_bytes()
    assert CiphertextMetadata.parse(raw) == metadata
    assert CiphertextMetadata.made(raw)
    assert len(raw) == 5 <= MAX_CIPHERTEXT_METADATA


def test_ciphertext_metadata_is_the_framing_and_the_generation_big_endian() -> None:
    assert CiphertextMetadata(AadFraming.DIGEST, 0x01020304).to_bytes().hex() == "0201020304"


@given(st.binary(max_size=20).filter(lambda raw: len(raw) != 5 or raw[0] not in (1, 2)))
def test_other_ciphertext_metadata_is_an_invalid_ciphertext(raw: bytes) -> None:
    assert not CiphertextMetadata.made(raw)
    with pytest.raises(XksError) as caught:
        CiphertextMetadata.parse(raw)
    assert caught.value.name is ErrorName.INVALID_CIPHERTEXT
