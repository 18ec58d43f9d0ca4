"""A report as Markdown, CSV, JSON or one HTML page. What others have named does nothing in any of them."""

import csv
import io
import re
import textwrap
from collections.abc import Iterator
from enum import StrEnum
from xml.etree import ElementTree as ET

import msgspec

from holdfast.control.reports.document import Cell, Report, Table, shown

WIDTH = 80
"""Columns of Markdown."""
_MARKS = re.compile(r"[\\`*\[\]<>|~&]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
"""What Markdown may take for more than itself. An underscore within a word is none."""
_BEGINS = re.compile(r"[#+=\->]|[0-9]+[.)]")
"""What makes a line of Markdown a heading, a list or a rule, where a word with it begins one."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1b1b1b}"
    "table{border-collapse:collapse;margin:1rem 0;display:block;overflow-x:auto}"
    "th,td{border:1px solid #ccc;padding:.25rem .5rem;text-align:left;vertical-align:top;overflow-wrap:anywhere}"
    "th{background:#f3f3f3}dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem}dd{margin:0}"
)


class Format(StrEnum):
    """Of a report."""

    MD = "md"
    CSV = "csv"
    JSON = "json"
    HTML = "html"


def render(report: Report, format_: Format) -> str:
    """The whole text, with a newline at its end."""
    return {Format.MD: markdown, Format.CSV: comma_separated, Format.JSON: json, Format.HTML: html}[format_](report)


def plain(cell: Cell) -> str:
    """For a person, in one line without control characters."""
    text = shown(cell)
    return text if text.isprintable() else ascii(text)[1:-1]


# ---- Markdown


def markdown(report: Report) -> str:
    """Lines of at most 80 columns where words allow it: a table where it fits, else a list for each row."""
    lines = [f"# {report.title}", "", *_wrapped(report.question), ""]
    for name, value in report.facts.lines:
        lines += _item(name, value)
    for table in report.tables:
        lines += ["", f"## {table.title}", "", *_rows(table)]
    lines += ["", "## What this report does not show", ""]
    for limit in report.limits:
        lines += _wrapped(_escaped(limit).replace("\\`", "`"), first="- ", then="  ")
    return "\n".join(lines) + "\n"


def _rows(table: Table) -> Iterator[str]:
    if not table.rows:
        yield from _wrapped(table.empty)
        return
    cells = [tuple(_escaped(plain(cell)) for cell in row) for row in table.rows]
    widths = [max(map(len, column)) for column in zip(table.columns, *cells, strict=True)]
    if sum(widths) + 3 * len(widths) + 1 <= WIDTH:
        for row in (table.columns, tuple("-" * width for width in widths), *cells):
            yield "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        return
    for number, values in enumerate(table.rows):
        if number:
            yield ""
        yield from _wrapped(f"**{_escaped(plain(values[0]))}**")
        yield ""
        for name, cell in zip(table.columns[1:], values[1:], strict=True):
            yield from _item(name, cell)


def _item(name: str, cell: Cell) -> Iterator[str]:
    yield from _wrapped(f"{_escaped(name)}: {_escaped(plain(cell))}", first="- ", then="  ")


def _wrapped(text: str, *, first: str = "", then: str = "") -> list[str]:
    wrapped = textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=then, break_long_words=False, break_on_hyphens=False
    )
    # A word that begins a line must not make it a heading or a list.
    return wrapped[:1] + [
        f"{then}\\{line.removeprefix(then)}" if _BEGINS.match(line.removeprefix(then)) else line
        for line in wrapped[1:]
    ]


def _escaped(text: str) -> str:
    return _MARKS.sub(lambda match: f"\\{match[0]}", text)


# ---- CSV


def comma_separated(report: Report) -> str:
    """RFC 4180: the facts, then each table under its title, with an empty line before it; last the limits."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["report", report.name])
    writer.writerows([name, _safe(value)] for name, value in report.facts.lines)
    for table in report.tables:
        writer.writerow([])
        writer.writerow([table.title])
        writer.writerow(table.columns)
        writer.writerows(map(_safe, row) for row in table.rows)
    writer.writerow([])
    writer.writerows(["limit", limit] for limit in report.limits)
    return text.getvalue()


def _safe(cell: Cell) -> str:
    """A text that a spreadsheet would take for a formula gets an apostrophe in front; numbers stay numbers."""
    text = plain(cell)
    return f"'{text}" if isinstance(cell, str) and text.startswith(_FORMULA) else text


# ---- JSON


def json(report: Report) -> str:
    """One document; times are RFC 3339 in UTC, and null is what is not known."""
    document = {
        "report": report.name,
        "title": report.title,
        "question": report.question,
        **{name.lower().replace(" ", "_"): value for name, value in report.facts.lines},
        "tables": {
            table.name: [dict(zip(map(_key, table.columns), row, strict=True)) for row in table.rows]
            for table in report.tables
        },
        "limits": report.limits,
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def _key(column: str) -> str:
    return column.lower().replace(" ", "_")


# ---- HTML


def html(report: Report) -> str:
    """One page without scripts, fonts or links: fit to be mailed. Every text is a node of the tree, never markup."""
    page = ET.Element("html", lang="en")
    head = ET.SubElement(page, "head")
    ET.SubElement(head, "meta", charset="utf-8")
    policy = {"http-equiv": "Content-Security-Policy", "content": "default-src 'none'; style-src 'unsafe-inline'"}
    ET.SubElement(head, "meta", policy)
    _text(head, "title", report.title)
    _text(head, "style", _STYLE)
    body = ET.SubElement(page, "body")
    _text(body, "h1", report.title)
    _text(body, "p", report.question)
    facts = ET.SubElement(body, "dl")
    for name, value in report.facts.lines:
        _text(facts, "dt", name)
        _text(facts, "dd", plain(value))
    for table in report.tables:
        _text(body, "h2", table.title)
        _html_rows(body, table)
    _text(body, "h2", "What this report does not show")
    limits = ET.SubElement(body, "ul")
    for limit in report.limits:
        _text(limits, "li", limit)
    return f"<!doctype html>\n{ET.tostring(page, encoding='unicode', method='html')}\n"


def _html_rows(body: ET.Element, table: Table) -> None:
    if not table.rows:
        _text(body, "p", table.empty)
        return
    rows = ET.SubElement(body, "table")
    head = ET.SubElement(ET.SubElement(rows, "thead"), "tr")
    for name in table.columns:
        _text(head, "th", name)
    inner = ET.SubElement(rows, "tbody")
    for row in table.rows:
        line = ET.SubElement(inner, "tr")
        for cell in row:
            _text(line, "td", plain(cell))


def _text(parent: ET.Element, tag: str, text: str) -> None:
    ET.SubElement(parent, tag).text = text
