import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from holdfast.config.lines import Path, lines_of

DOCUMENT = '''\
# [comment]
top = 1
[server]
"quoted key" = """
[not.a.table]
fake = 1
"""
a.b = 'it''s' # x = 1
'''.replace("it''s", "its")


def test_keys_are_found_and_what_looks_like_them_is_not() -> None:
    assert lines_of(DOCUMENT) == {
        ("top",): 2,
        ("server",): 3,
        ("server", "quoted key"): 4,
        ("server", "a"): 8,
        ("server", "a", "b"): 8,
    }


def test_a_key_of_an_inline_table_is_on_the_line_of_its_statement() -> None:
    text = "[t]\nx = { a = 1, b = { c = 2 } }\ny = 2\n"
    tomllib.loads(text)
    found = lines_of(text)
    assert (found["t", "x", "a"], found["t", "x", "b", "c"], found["t", "y"]) == (2, 2, 3)


def test_a_value_of_many_lines_counts_once_and_what_looks_like_its_end_does_not() -> None:
    text = "[t]\nx = [ # ]\n  [ 1 ],\n  '''\n]\n''', # ]\n]\n\n# [u]\ny = 2\n"
    tomllib.loads(text)
    assert lines_of(text) == {("t",): 1, ("t", "x"): 2, ("t", "y"): 10}


def test_a_long_array_is_not_read_once_per_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a long file would be read for hours before its first mistake is told."""
    read: list[str] = []
    loads = tomllib.loads

    def counted(text: str) -> dict[str, Any]:
        read.append(text)
        return loads(text)

    monkeypatch.setattr(tomllib, "loads", counted)
    assert lines_of("x = [\n" + "'a',\n" * 1_000 + "]\ny = 1\n") == {("x",): 1, ("y",): 1_003}
    assert len(read) < 10


def test_windows_line_ends_count_once() -> None:
    assert lines_of("a = 1\r\nb = '''x\r\ny'''\r\nc = 2\r\n")["c",] == 4


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(_TEXT, st.integers(-(2**63), 2**63 - 1), st.booleans(), st.floats(), st.datetimes(), st.dates()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_TEXT, inner, max_size=3)),
    max_leaves=12,
)


@given(st.dictionaries(_TEXT, _VALUES, max_size=5), st.booleans())
def test_every_key_of_a_document_is_found_on_a_line_that_holds_it(
    document: dict[str, Any],
    multiline: bool,  # noqa: FBT001 (hypothesis passes by position)
) -> None:
    text = tomli_w.dumps(document, multiline_strings=multiline)
    found = lines_of(text)
    read = tomllib.loads(text)
    assert set(paths(read)) <= set(found)
    rows = text.replace("\r\n", "\n").split("\n")
    for path, line in found.items():
        if len(path) == 1 and path[0].isascii() and path[0].isalnum():
            assert path[0] in rows[line - 1]


@given(st.text(st.sampled_from("ab.=[]{}\"'# \n\r\t\\,1_-"), max_size=60))
def test_whatever_tomllib_reads_has_lines(text: str) -> None:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert set(paths(document)) <= set(lines_of(text))


def paths(value: Any, above: Path = ()) -> Iterator[Path]:
    """The path of every table and key below a value, those in arrays left out."""
    for name, inner in value.items() if isinstance(value, dict) else ():
        yield (*above, name)
        yield from paths(inner, (*above, name))
