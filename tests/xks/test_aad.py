"""AAD framing, ciphertext metadata and the CDIV, against vectors that were computed by hand or are the spec's."""

from hashlib import sha256
from itertools import combinations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from holdfast.xks.aad import (
    MAX_CIPHERTEXT_METADATA,
    AadFraming,
    CiphertextMetadata,
    aws_sample_hsm_aad,
    ciphertext_data_integrity_value,
    hsm_aad,
    is_foreign_metadata,
    is_key_tag,
    key_tag,
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
    """docs/hsm-notes.md, 1.1: an absent AAD adds nothing, an empty one is hashed."""
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


TAGS = st.binary(min_size=12, max_size=12).map(key_tag)


@given(st.sampled_from(AadFraming), st.integers(0, 2**32 - 1), st.none() | TAGS)
def test_ciphertext_metadata_is_read_back(framing: AadFraming, generation: int, tag: bytes | None) -> None:
    metadata = CiphertextMetadata(framing, generation, tag)
    raw = metadata.to_bytes()
    assert CiphertextMetadata.parse(raw) == metadata
    assert not is_foreign_metadata(raw)
    assert len(raw) == (5 if tag is None else 20) <= MAX_CIPHERTEXT_METADATA


def test_format_1_is_the_framing_and_the_generation_big_endian() -> None:
    assert CiphertextMetadata(AadFraming.DIGEST, 0x01020304).to_bytes().hex() == "0201020304"


@pytest.mark.parametrize(
    ("framing", "tag", "generation", "expected"),
    [
        (AadFraming.SPEC, "80" * 12, 1, "21" + "91d4b6" + "80" * 12 + "00000001"),
        (AadFraming.DIGEST, "ff" * 12, 2**32 - 1, "22" + "abf093" + "ff" * 12 + "ffffffff"),
        (AadFraming.SPEC, "8192a3b4c5d6e7f8899aabbc", 258, "21" + "cd89a2" + "8192a3b4c5d6e7f8899aabbc" + "00000102"),
    ],
)
def test_format_2_is_framing_check_tag_generation(
    framing: AadFraming, tag: str, generation: int, expected: str
) -> None:
    """The check is SHA-256 of the other bytes, with zeros in its own place; its first three bytes, high bits set."""
    raw = CiphertextMetadata(framing, generation, bytes.fromhex(tag)).to_bytes()
    digest = sha256(raw[:1] + bytes(3) + raw[4:]).digest()
    assert raw[1:4] == bytes(octet | 0x80 for octet in digest[:3])
    assert raw.hex() == expected


@pytest.mark.parametrize("place", range(20))
def test_metadata_of_format_2_with_one_changed_byte_is_an_invalid_ciphertext(place: int) -> None:
    """A changed generation is not taken for one that this node does not know yet."""
    for change in range(1, 256):
        raw = bytearray(CiphertextMetadata(AadFraming.SPEC, 1, b"\x80" * 12).to_bytes())
        raw[place] ^= change
        with pytest.raises(XksError) as caught:
            CiphertextMetadata.parse(bytes(raw))
        assert caught.value.name is ErrorName.INVALID_CIPHERTEXT


@given(st.binary(max_size=20).filter(lambda raw: len(raw) != 5 or raw[0] not in (1, 2)))
def test_other_ciphertext_metadata_is_an_invalid_ciphertext(raw: bytes) -> None:
    with pytest.raises(XksError) as caught:
        CiphertextMetadata.parse(raw)
    assert caught.value.name is ErrorName.INVALID_CIPHERTEXT


@given(st.binary(max_size=14))
def test_a_tag_has_12_bytes_with_their_high_bits(raw: bytes) -> None:
    assert is_key_tag(key_tag(raw)) == (len(raw) == 12)
    assert not is_key_tag(bytes(12))


ANY, HIGH = -1, -2
"""In a pattern: any byte, and one of 0x80 or more."""
ENDINGS = {
    (1, AadFraming.SPEC): [5, 0x01, *[ANY] * 4],
    (1, AadFraming.DIGEST): [5, 0x02, *[ANY] * 4],
    (2, AadFraming.SPEC): [20, 0x21, *[HIGH] * 15, *[ANY] * 4],
    (2, AadFraming.DIGEST): [20, 0x22, *[HIGH] * 15, *[ANY] * 4],
}
"""How what is bound ends: len8, then the metadata."""


def can_be_equal(one: list[int], other: list[int]) -> bool:
    """Whether some bytes fit both patterns, laid over each other at their ends. Before the shorter any byte fits."""
    return all(
        a == b or ANY in (a, b) or (a == HIGH and b >= 0x80) or (b == HIGH and a >= 0x80)
        for a, b in zip(reversed(one), reversed(other), strict=False)
    )


@pytest.mark.parametrize(("one", "other"), list(combinations(ENDINGS, 2)))
def test_no_two_formats_and_framings_bind_the_same(
    one: tuple[int, AadFraming], other: tuple[int, AadFraming]
) -> None:
    """Decision 0020: even if an AAD and a digest could be chosen, nothing under one key is bound in two ways."""
    same_framing = one[1] is other[1]
    # What is bound begins with the AAD's length: with the same framing, formats of two lengths never meet.
    assert (same_framing and len(ENDINGS[one]) != len(ENDINGS[other])) or not can_be_equal(
        ENDINGS[one], ENDINGS[other]
    )


@pytest.mark.parametrize("length", range(MAX_CIPHERTEXT_METADATA + 1))
def test_no_metadata_of_awss_sample_is_bound_as_format_2(length: int) -> None:
    """Decision 0020: only what `is_foreign_metadata` refuses, or with no generation from 1 to 255."""
    sample = [length, *[ANY] * length]  # before it a digest, whose bytes might be chosen
    for number in range(1, 256):
        ours = [*ENDINGS[2, AadFraming.SPEC][:-4], 0, 0, 0, number]
        assert can_be_equal(sample, ours) == (length == 20)


# ---- ciphertexts of AWS's sample beside Holdfast's, under one HSM key

DIGESTS = st.one_of(
    st.binary(min_size=32, max_size=32),
    st.builds(lambda head, own: head + own, st.binary(min_size=26, max_size=26), st.just(b"\5\1\0\0\0\1")),
    st.builds(lambda head, own: head + own, st.binary(min_size=27, max_size=27), st.just(b"\5\1\0\0\0")),
)
OWN_ENDINGS = st.builds(
    lambda before, length, framing, generation: before + length + framing + generation,
    st.binary(max_size=14),
    st.sampled_from([b"", b"\4", b"\5", b"\6"]),
    st.sampled_from([b"\1", b"\2", b"\3"]),
    st.integers(0, 300).map(lambda number: number.to_bytes(4)),
).filter(lambda raw: len(raw) <= MAX_CIPHERTEXT_METADATA)


@given(st.integers(0, 60), st.none() | DIGESTS, st.binary(max_size=20) | OWN_ENDINGS)
def test_no_ciphertext_of_awss_sample_is_bound_as_one_of_ours(
    length: int, digest: bytes | None, metadata: bytes
) -> None:
    """Decision 0013: even if the digest could be chosen, foreign metadata never gives an AAD that Holdfast binds."""
    assume(is_foreign_metadata(metadata))
    bound = (bytes(2) if digest is None else length.to_bytes(2) + digest) + len(metadata).to_bytes() + metadata
    assert not _is_spec_framed(bound)
    # Framing DIGEST: equal only with the sample's own digest and metadata of Holdfast's format.
    assert not (len(bound) == 40 and bound[-6:-4] == b"\5\2")


def _is_spec_framed(bound: bytes) -> bool:
    """Whether some AAD and a generation from 1 to 255 give this under framing SPEC, by its layout alone."""
    return (
        len(bound) == int.from_bytes(bound[:2]) + 8
        and bound[-6:-4] == b"\5\1"
        and 0 < int.from_bytes(bound[-4:]) < 256
    )


def test_metadata_that_ends_as_ours_would_collide() -> None:
    """Why `is_foreign_metadata` looks at the end: one ciphertext would open under two different AADs."""
    metadata = b"v=1" + b"\5" + CiphertextMetadata(AadFraming.SPEC, 1).to_bytes()
    aad = b"a" * 36
    other = sha256(aad).digest() + b"\x09v=1"
    assert aws_sample_hsm_aad(aad, metadata) == hsm_aad(other, metadata[-5:], AadFraming.SPEC)
    assert not is_foreign_metadata(metadata)


@pytest.mark.parametrize("metadata", [b"", b"v0.0.1", b"\3\0\0\0\1", b"\1\0\0\0", b"\1" * 20, b"\5\1\0\0\1\1"])
def test_other_metadata_is_foreign(metadata: bytes) -> None:
    assert is_foreign_metadata(metadata)
