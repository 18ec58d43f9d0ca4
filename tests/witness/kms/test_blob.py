"""The ciphertext blob: what it carries comes back, and nothing else is taken for one."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.witness.kms.blob import Blob, InvalidBlob, associated_data, seal, unseal
from holdfast.witness.kms.records import Key, KeyStore
from holdfast.xks.messages import EncryptResponse

responses = st.builds(
    EncryptResponse,
    ciphertext=st.binary(max_size=4300),
    initialization_vector=st.binary(min_size=12, max_size=12) | st.binary(min_size=16, max_size=16),
    authentication_tag=st.binary(min_size=16, max_size=16),
    ciphertext_metadata=st.none() | st.binary(max_size=20),
)
contexts = st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=4)


@given(st.uuids().map(str), st.binary(max_size=200) | responses)
def test_a_blob_comes_back(key_id: str, sealed: bytes | EncryptResponse) -> None:
    """Absent and empty ciphertext metadata stay different."""
    assert Blob.parse(Blob(key_id, sealed).to_bytes()) == Blob(key_id, sealed)


@given(st.binary(max_size=120), st.sampled_from([b"", b"\x01\x00", b"\x01\x01"]))
def test_any_bytes_are_a_blob_or_refused(raw: bytes, start: bytes) -> None:
    try:
        parsed = Blob.parse(start + raw)
    except InvalidBlob:
        return
    assert parsed.to_bytes() == start + raw


@given(contexts, contexts)
def test_different_contexts_have_different_associated_data(one: dict[str, str], other: dict[str, str]) -> None:
    """No pair can be moved into its neighbour."""
    assert (associated_data(b"h", one) == associated_data(b"h", other)) == (one == other)


def test_the_inner_layer_is_bound_to_key_and_associated_data() -> None:
    sealed = seal(bytes(32), b"x", b"aad", iv=bytes(12))
    assert unseal(bytes(32), sealed, b"aad") == b"x"
    for material, changed, aad in (
        (b"\x01" * 32, sealed, b"aad"),
        (bytes(32), sealed, b"other"),
        (bytes(32), sealed[:-1], b"aad"),
        (bytes(32), b"", b"aad"),
    ):
        with pytest.raises(InvalidBlob):
            unseal(material, changed, aad)


def test_a_key_store_and_a_key_do_not_show_their_secrets() -> None:
    """What a traceback or a log line would print."""
    secret = "c2VjcmV0" * 6
    store = KeyStore("cks-1", "n", 0.0, "PUBLIC_ENDPOINT", "https://a", "/kms/xks/v1", "A" * 20, secret, 0.0)
    assert secret not in repr(store)
    assert "material" not in repr(Key(str(uuid.uuid4()), 0.0, "", "{}", b"material"))
