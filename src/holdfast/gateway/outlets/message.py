"""What an outlet sends, before it has a format: an event, a change, or word of what was lost."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from functools import cached_property
from typing import Any

import msgspec

from holdfast.audit.records import Change

MAX_MESSAGE = 8_192
"""Bytes of a message's text. RFC 5425, section 4.3: receivers should take 8,192, and rsyslog's default is that."""
_LONG = (256, 64, 16)
"""Characters to which texts are cut in a message that is too long, until it is not."""


class Kind(StrEnum):
    """What a message tells of."""

    REQUEST = "request"
    CHANGE = "change"
    LOST = "lost"


class Severity(IntEnum):
    """RFC 5424, table 2."""

    ALERT = 1
    ERROR = 3
    WARNING = 4
    NOTICE = 5
    INFORMATIONAL = 6


_OF_DECISION = {"allow": Severity.INFORMATIONAL, "deny": Severity.WARNING}


@dataclass(frozen=True)
class Message:
    """`fields` is a JSON object; `time` its time, RFC 3339 in UTC with milliseconds. `node` sends it."""

    kind: Kind
    time: str
    severity: Severity
    fields: dict[str, Any]
    node: str

    @classmethod
    def of_event(cls, fields: dict[str, Any], *, node: str) -> "Message":
        """Of a line of the event log."""
        severity = _OF_DECISION.get(fields["decision"], Severity.ERROR)
        return cls(Kind.REQUEST, fields["timestamp"], severity, fields, node)

    @classmethod
    def of_change(cls, change: Change, *, node: str) -> "Message":
        """Of the record of a change."""
        fields = msgspec.to_builtins(change)
        fields["outcome"] = change.outcome
        del fields["kind"]
        return cls(Kind.CHANGE, timestamp(change.time), Severity.NOTICE, fields, node)

    @classmethod
    def of_unreadable(cls, number: int, time: datetime, *, node: str) -> "Message":
        """Of a row in the table of changes that is no record: somebody has written there."""
        fields = {"outcome": "unreadable", "subject": f"row {number} of the table of changes"}
        return cls(Kind.CHANGE, timestamp(time), Severity.ALERT, fields, node)

    @classmethod
    def of_loss(cls, count: int, reason: str, *, time: datetime, node: str) -> "Message":
        """So many messages were not sent and never will be."""
        return cls(Kind.LOST, timestamp(time), Severity.WARNING, {"lost": count, "reason": reason}, node)

    @cached_property
    def seconds(self) -> float:
        """`time` in seconds since 1970."""
        return datetime.fromisoformat(self.time).timestamp()

    def fitting(self, render: "Render") -> str:
        """The text in a format, without what makes it too long: first the effects of a change, then long texts."""
        text = render(self)
        if len(text) <= MAX_MESSAGE:
            return text
        fields = dict(self.fields)
        effects = fields.pop("effects", ())
        if effects:
            fields["effects_left_out"] = fields.get("effects_left_out", 0) + len(effects)
        text = render(replace(self, fields=fields))
        if len(text) <= MAX_MESSAGE:
            return text
        for longest in _LONG:
            # The signatures of approvals are in the audit log.
            cut = {name: _cut(value, longest) for name, value in fields.items() if name != "approvals"}
            text = render(replace(self, fields=cut))
            if len(text) <= MAX_MESSAGE:
                break
        return text[:MAX_MESSAGE]


Render = Callable[[Message], str]
"""A format: the text of a message, in printable ASCII."""


def timestamp(time: datetime) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def printable(text: str) -> str:
    """In printable ASCII, all else as backslash escapes: it can neither end a line nor move a cursor."""
    if text.isascii() and text.isprintable():
        return text
    escaped = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
    return escaped.encode("ascii", "backslashreplace").decode()


def _cut(value: Any, longest: int) -> Any:
    match value:
        case str() if len(value) > longest:
            return f"{value[:longest]}..."
        case list() | tuple():
            return [_cut(each, longest) for each in value[:longest]]
        case _:
            return value
