"""Tables for a person to read."""

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import zip_longest

from holdfast.cli.output import data, say

_WIDE = 10_000
"""Columns where the output goes to a pipe or a file."""
_GAP = "  "


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """Rows for a person to read; `empty` is said instead where there are none.

    Nothing is ever cut: a key id that ends in dots cannot be copied. Where a terminal is too narrow, cells wrap
    between words; where that is not enough, each row becomes a paragraph.
    """
    lines = [tuple(row) for row in rows]
    if not lines:
        say(empty)
        return
    is_watched = sys.stdout.isatty() or "COLUMNS" in os.environ
    width = shutil.get_terminal_size().columns if is_watched else _WIDE
    for line in _laid_out(tuple(columns), lines, width):
        data(line)


def _laid_out(columns: tuple[str, ...], rows: list[tuple[str, ...]], width: int) -> Iterator[str]:
    every = [(name, *cells) for name, *cells in zip(columns, *rows, strict=True)]
    widths = [max(map(len, cells)) for cells in every]
    excess = sum(widths) + len(_GAP) * (len(widths) - 1) - width
    for position in sorted(range(len(widths)), key=lambda position: -widths[position]):
        longest_word = max(len(word) for cell in every[position] for word in cell.split())
        given = max(0, min(excess, widths[position] - longest_word))
        widths[position] -= given
        excess -= given
    if excess > 0:
        for row in rows:
            yield from (f"{name}: {cell}" for name, cell in zip(columns, row, strict=True))
            yield ""
        return
    for row in (columns, *rows):
        cells = [
            textwrap.wrap(cell, room, break_long_words=False, break_on_hyphens=False)
            for cell, room in zip(row, widths, strict=True)
        ]
        for parts in zip_longest(*cells, fillvalue=""):
            yield _GAP.join(part.ljust(room) for part, room in zip(parts, widths, strict=True)).rstrip()


def fields(row: Mapping[str, object]) -> None:
    """One row for a person to read: a field per line."""
    for name, value in row.items():
        data(f"{name.replace('_', ' ')}: {_in_words(value)}")


def _in_words(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case datetime():
            return f"{value:%Y-%m-%d %H:%M:%S} UTC"
        case _:
            return str(value)
