"""A report in its formats: what strangers have named does nothing in any of them."""

import csv
import io
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.control.reports.document import Cell, Facts, Report, Table
from holdfast.control.reports.render import WIDTH, Format, render

NOW = datetime(2026, 11, 25, 18, 24, 20, tzinfo=UTC)
FACTS = Facts("/etc/holdfast/holdfast.toml", "sqlite:////c.db", 7, "madrid-1", NOW, "alice (os-user)", "1.0")
EVIL = [
    "<script>alert(1)</script>",
    '=HYPERLINK("http://evil")',
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "a|b",
    "[click](http://evil)",
    "![x](http://evil/p.png)",
    "# heading\n## another",
    "\x1b]0;title\x07",
    "`code`",
    "_underlined_ *bold*",
    "&lt;b&gt;",
]


def report(*rows: tuple[Cell, ...], columns: tuple[str, ...] = ("Name", "What")) -> Report:
    table = Table("things", "Things", columns, rows, "There are none.")
    return Report("test", "A test", "What is there?", FACTS, (table,), ("It shows `nothing`.",))


class _Page(HTMLParser):
    """The tags of a page, and its texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.mark.parametrize("evil", EVIL)
def test_no_name_becomes_markup_in_html(evil: str) -> None:
    page = _Page(render(report((evil, "x")), Format.HTML))
    tame = _Page(render(report(("tame", "x")), Format.HTML))
    assert (page.tags, page.attributes) == (tame.tags, tame.attributes)
    assert (evil if evil.isprintable() else ascii(evil)[1:-1]) in page.texts


@pytest.mark.parametrize("evil", EVIL)
def test_no_name_becomes_a_formula_in_csv(evil: str) -> None:
    rows = list(csv.reader(io.StringIO(render(report((evil, -5)), Format.CSV))))
    name, number = rows[rows.index(["Name", "What"]) + 1]
    assert not name.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert number == "-5"  # a number stays one


@pytest.mark.parametrize("evil", EVIL)
def test_no_name_becomes_markup_in_markdown(evil: str) -> None:
    text = render(report((evil, "x")), Format.MD)
    line = text[text.index("## Things") :]
    assert not re.search(r"(?<!\\)[<\[`*]", line.partition("## What")[0].replace("**", ""))
    assert [one for one in text.splitlines() if one.startswith("#")] == [
        "# A test",
        "## Things",
        "## What this report does not show",
    ]
    assert text.isascii()
    assert "\x1b" not in text


@given(st.lists(st.tuples(st.text(max_size=300), st.text(max_size=300)), max_size=4))
def test_every_format_holds_every_row_whatever_is_in_it(rows: list[tuple[str, str]]) -> None:
    document: Any = msgspec.json.decode(render(report(*rows), Format.JSON))
    assert [(row["name"], row["what"]) for row in document["tables"]["things"]] == rows
    page = _Page(render(report(*rows), Format.HTML))
    assert page.tags.count("td") == 2 * len(rows)
    lines = render(report(*rows), Format.MD).splitlines()
    assert sum(line.startswith("#") for line in lines) == 3


def test_markdown_has_80_columns_also_where_a_row_is_longer() -> None:
    row = ("name", " ".join(["word"] * 60))
    text = render(report(row), Format.MD)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "- What: word word" in text


def test_a_table_that_fits_is_one_in_markdown() -> None:
    text = render(report(("one", 1), ("two", None)), Format.MD)
    assert "| Name | What      |\n| ---- | --------- |\n| one  | 1         |\n| two  | not known |\n" in text


@pytest.mark.parametrize("format_", Format)
def test_each_format_says_of_what_when_by_whom_and_what_is_missing(format_: Format) -> None:
    text = render(report(), format_)
    for fact in ("holdfast.toml", "c.db", "madrid-1", "2026-11-25", "alice", "1.0", "nothing"):
        assert fact in text
    if format_ in {Format.MD, Format.HTML}:
        assert "There are none." in text


def test_what_is_not_known_is_said_and_null_in_json() -> None:
    assert "not known" in render(report(("a", None)), Format.CSV)
    assert '"what": null' in render(report(("a", None)), Format.JSON)
