"""Request paths."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.xks.errors import ErrorName, XksError
from holdfast.xks.types import ExternalKeyId, Operation
from holdfast.xks.uri import MAX_URI_LENGTH, Target, parse_path, request_path

PREFIXES = st.from_regex(r"(?:/[A-Za-z0-9_-]{1,9}){0,3}", fullmatch=True)
KEY_IDS = st.from_regex(r"[A-Za-z0-9._-]{1,128}", fullmatch=True).map(ExternalKeyId)
KEY_OPERATIONS = st.sampled_from([Operation.GET_KEY_METADATA, Operation.ENCRYPT, Operation.DECRYPT])
TARGETS = st.builds(Target, PREFIXES, st.just(Operation.GET_HEALTH_STATUS), st.none()) | st.builds(
    Target, PREFIXES, KEY_OPERATIONS, KEY_IDS
)


@given(TARGETS)
def test_a_path_names_the_target_that_it_was_made_for(target: Target) -> None:
    assert parse_path(request_path(target).encode()) == target


@given(st.binary(max_size=300) | TARGETS.map(lambda target: request_path(target).encode() + b"/"))
def test_what_is_parsed_gives_the_same_path_again(path: bytes) -> None:
    """No two paths mean the same: nothing is normalised or decoded."""
    with suppress(XksError):
        assert request_path(parse_path(path)).encode() == path


@pytest.mark.parametrize(
    ("path", "target"),
    [
        (b"/kms/xks/v1/health", Target("", Operation.GET_HEALTH_STATUS, None)),
        (b"/a/b/kms/xks/v1/health", Target("/a/b", Operation.GET_HEALTH_STATUS, None)),
        (b"/kms/xks/v1/keys/k/metadata", Target("", Operation.GET_KEY_METADATA, ExternalKeyId("k"))),
        (b"/a/kms/xks/v1/keys/K.1_-/encrypt", Target("/a", Operation.ENCRYPT, ExternalKeyId("K.1_-"))),
        (b"/kms/xks/v1/keys/health/decrypt", Target("", Operation.DECRYPT, ExternalKeyId("health"))),
        (b"/kms/xks/v1/kms/xks/v1/health", Target("/kms/xks/v1", Operation.GET_HEALTH_STATUS, None)),
    ],
)
def test_the_four_operations_are_found(path: bytes, target: Target) -> None:
    assert parse_path(path) == target


@pytest.mark.parametrize(
    "path",
    [
        b"",
        b"/",
        b"*",
        b"/kms/xks/v1",
        b"/kms/xks/v1/",
        b"/kms/xks/v2/health",
        b"/KMS/xks/v1/health",
        b"/kms/xks/v1/health/",
        b"/kms/xks/v1/health\n",
        b"//kms/xks/v1/health",
        b"/kms//xks/v1/health",
        b"/a/../kms/xks/v1/health",
        b"/./kms/xks/v1/health",
        b"/kms/xks/v1/%68ealth",
        b"/kms/xks/v1/health;a=b",
        b"/kms/xks/v1/health#a",
        b"/kms/xks/v1/keys/k",
        b"/kms/xks/v1/keys//encrypt",
        b"/kms/xks/v1/keys/k/Encrypt",
        b"/kms/xks/v1/keys/k/encrypt/",
        b"/kms/xks/v1/keys/k/sign",
        b"/kms/xks/v1/keys/a%2Fb/encrypt",
        b"/kms/xks/v1/keys/a b/encrypt",
        b"/kms/xks/v1/keys/\xe9/encrypt",
        b"/kms/xks/v1/keys/" + b"x" * 129 + b"/encrypt",
        b"http://h/kms/xks/v1/health",
        b"/" + b"x" * MAX_URI_LENGTH + b"/kms/xks/v1/health",
    ],
)
def test_every_other_path_is_an_invalid_uri_path(path: bytes) -> None:
    with pytest.raises(XksError) as caught:
        parse_path(path)
    assert caught.value.name is ErrorName.INVALID_URI_PATH


def test_the_longest_path_is_the_longest_uri() -> None:
    """Spec, "API operations": the total URI length is at most 256 characters."""
    rest = b"/kms/xks/v1/health"
    longest = b"/" + b"x" * (MAX_URI_LENGTH - len(rest) - 1) + rest
    assert parse_path(longest).operation is Operation.GET_HEALTH_STATUS
    with pytest.raises(XksError):
        parse_path(b"/x" + longest[1:])
