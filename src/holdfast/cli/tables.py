"""Tables for a person to read. Apart from `output`, because loading rich takes as long as `holdfast --help`."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from rich import box
from rich.console import Console
from rich.table import Table

from holdfast.cli.output import data, say

_WIDE = 10_000


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """Rows for a person to read; `empty` is said instead where there are none."""
    lines = [tuple(row) for row in rows]
    if not lines:
        say(empty)
        return
    grid = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for line in lines:
        grid.add_row(*line)
    # Wide enough that nothing is cut: a key id that ends in dots cannot be copied.
    Console(highlight=False, markup=False, width=_WIDE).print(grid)


def fields(row: Mapping[str, object]) -> None:
    """One thing for a person to read: a field per line."""
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
