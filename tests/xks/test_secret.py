"""A secret cannot be printed, pickled or copied into a log by accident."""

import copy
import pickle

import pytest

from holdfast.xks.secret import Secret

MARK = "marked-secret"
SECRET = Secret.of_text(MARK)


@pytest.mark.parametrize("shown", [repr(SECRET), str(SECRET), f"{SECRET}", f"{[SECRET]}", f"{SECRET!r:>40}"])
def test_no_form_of_it_shows_the_secret(shown: str) -> None:
    assert MARK not in shown
    assert "<secret, 13 bytes>" in shown


def test_it_can_be_revealed_on_purpose() -> None:
    assert SECRET.reveal() == MARK.encode()


@pytest.mark.parametrize("leave", [pickle.dumps, copy.copy, copy.deepcopy])
def test_it_is_not_pickled(leave: object) -> None:
    with pytest.raises(TypeError, match="not pickled") as caught:
        leave(SECRET)  # type: ignore[operator]  # three functions of one argument
    assert MARK not in str(caught.value)


def test_equal_secrets_are_equal_and_hash_alike() -> None:
    assert Secret(MARK.encode()) == SECRET
    assert hash(Secret(MARK.encode())) == hash(SECRET)
    assert Secret(b"other") != SECRET


def test_a_secret_is_not_equal_to_its_bytes() -> None:
    assert MARK.encode() != SECRET
