"""Identifiers: what exists is valid."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.xks.errors import ErrorName, XksError
from holdfast.xks.types import AccessKeyId, ExternalKeyId, SecretAccessKey, UriPathPrefix

SECRET = "FYtE5EFA5FT0mCc3DrGUe2sti527BitkQ0Zr9MO9fvE"  # the spec's own example


@pytest.mark.parametrize("text", ["a", "A.b_c-9", "x" * 128, "...", "-"])
def test_external_key_ids_of_the_grammar_exist(text: str) -> None:
    assert str(ExternalKeyId.parse(text)) == text


@pytest.mark.parametrize("text", ["", "x" * 129, "a/b", "a b", "a\n", "é", "a%41", "٣", "\u212a"])
def test_other_external_key_ids_are_refused(text: str) -> None:
    with pytest.raises(XksError) as caught:
        ExternalKeyId.parse(text)
    assert caught.value.name is ErrorName.VALIDATION


@pytest.mark.parametrize("text", [".", ".."])
def test_an_external_key_id_that_is_a_relative_path_segment_is_refused(text: str) -> None:
    """HTTP clients and SigV4 signers remove such a segment, so no signed request could ever name the key."""
    with pytest.raises(XksError, match="segment"):
        ExternalKeyId.parse(text)


@pytest.mark.parametrize("text", ["", "/a", "/a/b-c/D_9", "/" + "x" * 116])
def test_path_prefixes_of_the_grammar_exist(text: str) -> None:
    prefix = UriPathPrefix.parse(text)
    assert str(prefix) == text
    assert prefix.xks_proxy_uri_path == text + "/kms/xks/v1"
    assert len(prefix.xks_proxy_uri_path) <= 128


@pytest.mark.parametrize("text", ["/", "a", "a/", "/a/", "//a", "/a//b", "/a.b", "/a%20", "/a\n", "/é"])
def test_other_path_prefixes_are_refused(text: str) -> None:
    with pytest.raises(XksError, match="a path prefix is empty, or segments") as caught:
        UriPathPrefix.parse(text)
    assert caught.value.name is ErrorName.INVALID_URI_PATH


def test_a_prefix_that_makes_the_uri_path_over_128_characters_is_refused() -> None:
    with pytest.raises(XksError, match="117"):
        UriPathPrefix.parse("/" + "x" * 117)


@pytest.mark.parametrize("text", ["A" * 20, "Z2" * 15, "AKIAI2SFODNN7EXAMPLE"])
def test_access_key_ids_of_the_grammar_exist(text: str) -> None:
    assert str(AccessKeyId.parse(text)) == text


@pytest.mark.parametrize("text", ["A" * 19, "A" * 31, "a" * 20, "A" * 19 + "1", "A" * 19 + "8", "A" * 20 + "\n"])
def test_other_access_key_ids_are_refused(text: str) -> None:
    with pytest.raises(XksError):
        AccessKeyId.parse(text)


@pytest.mark.parametrize("text", [SECRET, "a" * 43, "Az09/+=" + "a" * 57])
def test_secret_access_keys_of_43_to_64_characters_exist(text: str) -> None:
    assert SecretAccessKey.parse(text).reveal() == text.encode()


@given(st.text(max_size=70).filter(lambda text: not (43 <= len(text) <= 64 and text.isalnum())))
def test_a_refused_secret_access_key_is_not_in_the_message(text: str) -> None:
    secret = "Marked-" + text
    with pytest.raises(XksError) as caught:
        SecretAccessKey.parse(secret)
    assert "Marked" not in caught.value.message


@pytest.mark.parametrize("text", ["a" * 42, "a" * 65, "a" * 42 + "-", "a" * 42 + "é", "a" * 43 + "\n"])
def test_other_secret_access_keys_are_refused(text: str) -> None:
    with pytest.raises(XksError):
        SecretAccessKey.parse(text)
