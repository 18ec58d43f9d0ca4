import tomllib
from collections.abc import Iterator
from typing import Any

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


def test_keys_of_inline_tables_and_arrays_have_lines() -> None:
    text = "[t]\nx = [ # {\n  { a = 1, 'b' = \"]\" },\n  '''\n}''',\n]\ny = 2\n"
    tomllib.loads(text)
    found = lines_of(text)
    assert (found["t", "x", 0, "b"], found["t", "x", 1], found["t", "y"]) == (3, 4, 7)


def test_tables_in_an_array_of_tables_are_told_apart() -> None:
    text = "[[a]]\nx = 1\n[[a]]\nx = 2\n[a.b]\ny = 3\n"
    found = lines_of(text)
    assert (found["a", 0, "x"], found["a", 1, "x"], found["a", 1, "b", "y"]) == (2, 4, 6)


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
    assert set(paths(read)) == set(found)
    rows = text.replace("\r\n", "\n").split("\n")
    for path, line in found.items():
        if isinstance(path[-1], str) and path[-1].isascii() and path[-1].isalnum():
            assert path[-1] in rows[line - 1]


@given(st.text(st.sampled_from("ab.=[]{}\"'# \n\r\t\\,1_-"), max_size=60))
def test_whatever_tomllib_reads_has_lines(text: str) -> None:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert set(paths(document)) == set(lines_of(text))


def paths(value: Any, above: Path = ()) -> Iterator[Path]:
    """The path of every table, key and array element below a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield (*above, name)
        yield from paths(inner, (*above, name))
