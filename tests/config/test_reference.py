from pathlib import Path

import pytest

from holdfast.config.reference import TABLES, Absent, Key, Table

KEYS = [pytest.param(table, key, id=f"{table.name}.{key.name}") for table in TABLES for key in table.keys]


@pytest.mark.parametrize(("table", "key"), KEYS)
def test_every_default_is_a_value_that_could_be_written(table: Table, key: Key) -> None:
    del table
    if not isinstance(key.default, Absent):
        key.kind.parse(key.default, Path("/"))


@pytest.mark.parametrize(("table", "key"), KEYS)
def test_every_key_is_documented_in_sentences(table: Table, key: Key) -> None:
    del table
    assert key.meaning.endswith(".")
    assert key.kind.words


def test_no_key_stands_twice() -> None:
    names = [(table.name, key.name) for table in TABLES for key in table.keys]
    assert len(names) == len(set(names))
