"""What proves and what stops a generation."""

import pytest
from tests.administered import Catalog
from tests.store.samples import KEY, PREFIX

from holdfast.keys.model import Generation
from holdfast.store.errors import NotFound, Refused


@pytest.fixture
def filled(catalog: Catalog) -> Catalog:
    """A catalog with one key, whose generation is row 1."""
    catalog.create_keystore("main", PREFIX)
    catalog.register_key("main", KEY, hsm="hsm", label="label-1")
    return catalog


def current(catalog: Catalog) -> Generation:
    return catalog.snapshot().keystores["/main"].keys["key-1"].active


def test_the_first_canary_stays(filled: Catalog) -> None:
    """Two workers that see a key for the first time do not overwrite each other's."""
    assert filled.record_canary(1, b"first")
    version = filled.version()
    assert not filled.record_canary(1, b"second")
    assert (current(filled).canary, filled.version()) == (b"first", version)


def test_a_person_may_replace_a_canary(filled: Catalog) -> None:
    filled.record_canary(1, b"first")
    filled.replace_canary(1, None)
    assert current(filled).canary is None
    with pytest.raises(NotFound):
        filled.replace_canary(99, b"none")


def test_a_stop_keeps_its_first_reason_until_it_is_released(filled: Catalog) -> None:
    assert filled.stop_generation(1, "an unsafe IV")
    assert not filled.stop_generation(1, "another")
    assert current(filled).stopped == "an unsafe IV"
    assert [row.stopped for row in filled.keys(None)] == ["an unsafe IV"]
    filled.release_generation(1)
    assert current(filled).stopped is None


def test_a_long_reason_is_cut_and_not_refused(filled: Catalog) -> None:
    """Nothing may keep a key from being stopped."""
    assert filled.stop_generation(1, "x" * 5000)
    assert current(filled).stopped == "x" * 1024


def test_a_serial_is_recorded_once(filled: Catalog) -> None:
    assert filled.record_token_serial(1, "42")
    version = filled.version()
    assert not filled.record_token_serial(1, "42")
    assert (current(filled).token_serial, filled.version()) == ("42", version)
    for wrong in ("", "x" * 65):
        with pytest.raises(Refused):
            filled.record_token_serial(1, wrong)
