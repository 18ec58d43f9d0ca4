"""Tables for a person to read. Apart from `output`, because loading rich takes as long as `holdfast --help`."""

import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from rich import box
from rich.console import Console
from rich.table import Table

from holdfast.cli.output import data, say

_WIDE = 10_000
"""Columns where the output goes to a pipe or a file."""


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """Rows for a person to read; `empty` is said instead where there are none."""
    lines = [tuple(row) for row in rows]
    if not lines:
        say(empty)
        return
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for position, name in enumerate(columns):
        cells = [name, *(line[position] for line in lines)]
        # What has spaces wraps at them. A name or an id stays whole as long as the rest can give way, and is folded
        # after that, never cut: a key id that ends in dots cannot be copied.
        whole = 0 if any(" " in cell for cell in cells) else max(map(len, cells))
        grid.add_column(name, overflow="fold", min_width=whole)
    for line in lines:
        grid.add_row(*line)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDE
    Console(highlight=False, markup=False, width=width).print(grid)


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
