"""Finds the line of every table and key in a TOML document, which tomllib does not give.

A document is a sequence of statements (TOML 1.0.0: a header, or a key with its value), and each of them is a document
of its own to tomllib. So the first line is read alone, and with the next ones until tomllib takes it.
"""

import re
import tomllib
from collections.abc import Iterator
from typing import Any

Path = tuple[str, ...]
"""From the top: names of tables and keys."""

_LAST = re.compile(r"""[\]}"'][ \t]*(?:#.*)?$""")
"""How the last of several lines ends: those of an array, or of a string."""


def lines_of(document: str) -> dict[Path, int]:
    """The line, from 1, of the statement in which each table and each key of a valid document first stands."""
    found: dict[Path, int] = {}
    table: Path = ()
    for line, statement in _statements(document.replace("\r\n", "\n").split("\n")):
        paths = list(_paths(tomllib.loads(statement), ()))
        is_header = statement.lstrip(" \t").startswith("[")
        for path in paths:
            found.setdefault(path if is_header else table + path, line)
        table = paths[-1] if is_header else table
    return found


def _statements(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Each statement with its first line; a blank line or a comment counts as one."""
    first, statement = 1, ""
    for number, line in enumerate(lines, 1):
        if statement and not _LAST.search(line):
            statement += f"{line}\n"
            continue
        first, statement = (first if statement else number), f"{statement}{line}\n"
        try:
            tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        yield first, statement
        statement = ""


def _paths(value: Any, above: Path) -> Iterator[Path]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield (*above, name)
            yield from _paths(inner, (*above, name))
