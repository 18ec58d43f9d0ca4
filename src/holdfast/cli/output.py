"""Data goes to standard output, talk to standard error, so that `holdfast ... | jq` and scripts get data alone."""

import sys
from datetime import UTC, datetime
from typing import Any

import msgspec


def data(text: str) -> None:
    """What was asked for."""
    print(text)


def json(value: Any) -> None:
    """What was asked for, as one JSON document; times are RFC 3339 in UTC."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def say(text: str = "") -> None:
    """Talk."""
    print(text, file=sys.stderr)


def warning(text: str) -> None:
    """Something that the operator should know though the command goes on."""
    say(f"holdfast: warning: {text}")


def error(text: str, *, hint: str = "") -> None:
    """Why the command stops, and what to do next."""
    say(f"holdfast: error: {text}")
    if hint:
        say(f"hint: {hint}")


def utc_now() -> datetime:
    """The clock, read at the edge of the program."""
    return datetime.now(UTC)
