from pathlib import Path

import pytest

from holdfast.config.tables import TABLES, Key, Table
from holdfast.config.validation import validate

KEYS = [pytest.param(table, key, id=f"{table.name}.{key.name}") for table in TABLES for key in table.keys]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_default_is_a_value_that_could_be_written(table: Table) -> None:
    values, mistakes = validate(table.settings, {}, Path("/"))
    assert mistakes.keys() == {key.name for key in table.keys if key.is_required}
    assert mistakes or values.keys() == {key.name for key in table.keys}


@pytest.mark.parametrize(("table", "key"), KEYS)
def test_every_key_is_documented_in_sentences(table: Table, key: Key) -> None:
    del table
    assert key.meaning.endswith(".")
    assert key.words


def test_no_key_stands_twice() -> None:
    names = [(table.name, key.name) for table in TABLES for key in table.keys]
    assert len(names) == len(set(names))
