"""The spec's error table."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.xks.errors import ErrorName, XksError, printable_ascii

# Spec, "Error codes", transcribed from its table and not from the code.
TABLE = {
    "ValidationException": 400,
    "InvalidStateException": 400,
    "InvalidCiphertextException": 400,
    "InvalidKeyUsageException": 400,
    "AuthenticationFailedException": 401,
    "AccessDeniedException": 403,
    "KeyNotFoundException": 404,
    "InvalidUriPathException": 404,
    "ThrottlingException": 429,
    "UnsupportedOperationException": 501,
    "DependencyTimeoutException": 503,
    "InternalException": 500,
}
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"


def test_the_names_and_statuses_are_those_of_the_spec() -> None:
    assert {name.value: name.status for name in ErrorName} == TABLE


@pytest.mark.parametrize("name", ErrorName)
def test_every_name_has_a_row_in_the_docs_with_its_status(name: ErrorName) -> None:
    rows = re.findall(rf"^\| `{name}` \| ([0-9]+) \|", PAGE.read_text(), re.MULTILINE)
    assert rows == [str(int(name.status))]


@given(st.text(max_size=2000))
def test_an_error_message_is_short_printable_ascii(text: str) -> None:
    """Spec, "Error codes": less than 512 characters, 0x20 to 0x7e."""
    message = XksError(ErrorName.INTERNAL, text).message
    assert re.fullmatch(r"[\x20-\x7e]{0,511}", message)


def test_what_is_printable_stays_as_it_is() -> None:
    assert printable_ascii("plaintext: ~ 100 %") == "plaintext: ~ 100 %"


def test_what_is_not_printable_becomes_a_question_mark() -> None:
    assert printable_ascii("a\nb\x7fé") == "a?b??"
