"""Times and lengths of time on the command line."""

import re
from datetime import UTC, datetime, timedelta

from holdfast.control.errors import Invalid

_LENGTH = re.compile(r"([1-9][0-9]{0,4})([smhd])")
_DAYS = re.compile(r"([1-9][0-9]{0,4})([dy])")
_YEAR = 365
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_length(text: str) -> timedelta:
    """As in 90s, 45m, 2h, 3d. Raises Invalid."""
    match = _LENGTH.fullmatch(text)
    if match is None:
        raise Invalid(f"{text!r} is not a length of time", hint="Write it as in 45m, 2h or 3d.")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def parse_days(text: str) -> int:
    """Whole days, as in 90d or 2y (of 365 days); 0 for `none`. Raises Invalid."""
    if text == "none":
        return 0
    match = _DAYS.fullmatch(text)
    if match is None:
        raise Invalid(f"{text!r} is not a number of days", hint="Write it as in 90d, 2y, or none.")
    return int(match[1]) * (_YEAR if match[2] == "y" else 1)


def parse_moment(text: str, now: datetime) -> datetime:
    """A time with its zone, as in 2026-11-25T18:00Z, and not over; in UTC. Raises Invalid."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise Invalid(
            f"{text!r} is not a time with its time zone", hint="Write it as in 2026-11-25T18:00Z, or ...T18:00+01:00."
        )
    if found <= now:
        raise Invalid(f"{text} is over", hint=f"It is {now:%Y-%m-%dT%H:%MZ} now.")
    return found.astimezone(UTC)
