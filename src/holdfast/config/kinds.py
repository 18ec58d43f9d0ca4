"""Kinds of values that TOML has no type for, and how a value is shown in a message."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any


class Refused(ValueError):
    """The value is not of its kind. The text continues the sentence "`key` in [table] ..."."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Metadata of a field's type: how pydantic reads it. `words` names the kind in the reference.

    `parse` is given the value and the directory of the file, at which relative paths start. It raises Refused.
    """

    words: str
    parse: Callable[[Any, Path], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Pydantic's protocol for metadata."""
        from pydantic_core import core_schema  # noqa: PLC0415 (a worker is sent the values, and reads no file)

        del source, handler
        return core_schema.with_info_plain_validator_function(lambda value, info: self.parse(value, info.context))


def parse_text(value: Any, folder: Path) -> str:
    """A string that is not empty."""
    del folder
    if not isinstance(value, str):
        raise Refused(f"must be a string, not {shown(value)}")
    if not value or "\x00" in value:
        raise Refused("must not be empty" if not value else "must not hold a NUL")
    return value


TEXT = Kind("string", parse_text)
PATH = Kind("path", lambda value, folder: folder / (value if isinstance(value, Path) else parse_text(value, folder)))


def choice(values: type[StrEnum] | tuple[str, ...]) -> Kind:
    """One of a few strings."""
    words = " or ".join(map(literal, values))
    make = values if isinstance(values, type) else str

    def parse(value: Any, folder: Path) -> str:
        del folder
        if value not in tuple(values):
            raise Refused(f"must be {words}, not {shown(value)}")
        return make(value)

    return Kind(words, parse)


def only_entry(value: Any, names: tuple[str, ...], example: str) -> tuple[str, Any]:
    """The key and the value of a table that must have exactly one of the keys `names`."""
    if not isinstance(value, dict):
        raise Refused(f"must be a table: {example}")
    if len(value) != 1 or not set(value) <= set(names):
        raise Refused(f"must have exactly one of {', '.join(names)}: {example}")
    return next(iter(value.items()))


def shown(value: Any) -> str:
    """A wrong value in an error: its kind where it is long or has parts."""
    match value:
        case dict():
            return "a table"
        case list():
            return "an array"
        case str() if len(value) > 40:  # noqa: PLR2004 (what fits in a line)
            return "that string"
        case _:
            return literal(value)


def literal(value: Any) -> str:
    """A value as TOML writes it, if that is short and can be shown."""
    match value:
        case bool():
            return str(value).lower()
        case str() | Path():
            return f'"{value}"'
        case tuple():
            return str(list(value))
        case int() if value.bit_length() > 64:  # noqa: PLR2004 (Python refuses to write out very long numbers)
            return "a number of more than 64 bits"
        case _:
            return str(value)


def nearest(name: str, known: list[str], form: str) -> str:
    """The end of a sentence on an unknown name: the known one that is most like it, or all of them."""
    near = difflib.get_close_matches(name.lower(), known, n=1)
    return f"; did you mean {form.format(near[0])}?" if near else f"; known are {', '.join(known)}"
