"""Data goes to standard output, all else to standard error, so that `holdfast ... | jq` and scripts get data only."""

import shutil
import sys
import textwrap
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgspec


def data(text: str) -> None:
    """What was asked for, for a person or a script to read."""
    print(text)


def json(value: Any) -> None:
    """What was asked for, as one JSON document; times are RFC 3339 in UTC."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def say(text: str = "") -> None:
    """Anything but what was asked for. On a terminal, long lines are wrapped between words.

    It never fails: a stop is made also where nobody reads what is said of it, or a full disk does not take it.
    """
    if sys.stderr.isatty():
        text = "\n".join(map(_wrapped, text.split("\n")))
    with suppress(OSError):
        print(text, file=sys.stderr)


def warning(text: str) -> None:
    """Something that the operator should know though the command goes on."""
    say(f"holdfast: warning: {text}")


def error(text: str, *, hint: str = "") -> None:
    """Why the command stops, and what to do next."""
    say(f"holdfast: error: {text}")
    if hint:
        say(f"hint: {hint}")


def _wrapped(line: str) -> str:
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.fill(
        line,
        shutil.get_terminal_size().columns,
        subsequent_indent=f"{indent}  ",
        # Paths and commands are copied: they stay whole.
        break_long_words=False,
        break_on_hyphens=False,
    )


def printable(text: str) -> str:
    """Text that others wrote, fit for a terminal: one with control characters is shown escaped."""
    return text if text.isprintable() else ascii(text)[1:-1]


def utc_now() -> datetime:
    """The current time, in UTC."""
    return datetime.now(UTC)
