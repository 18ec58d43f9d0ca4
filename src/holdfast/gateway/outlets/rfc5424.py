"""Syslog messages: RFC 5424, and what syslog(3) writes to the host's own receiver."""

from datetime import datetime

from holdfast.gateway.outlets.message import Message

APP_NAME = "holdfast"
_FACILITY = 10
"""Security and authorization messages (RFC 5424, table 1): `authpriv`."""
_MOST_SEQUENCE = 2**31 - 1
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def syslog(message: Message, text: str, *, host: str, process: int, sequence: int) -> bytes:
    """One message, without framing. `sequence` counts from 0 the messages of this process.

    RFC 5424, section 7.3.1: `sequenceId` begins with 1, and again with 1 after its greatest value. So a receiver sees
    what is missing. The text is ASCII, so that it needs no byte order mark (section 6.4).
    """
    number = sequence % _MOST_SEQUENCE + 1
    return (
        f"<{_priority(message)}>1 {message.time} {host} {APP_NAME} {process} {message.kind}"
        f' [meta sequenceId="{number}"] {text}'
    ).encode("ascii")


def octet_counted(frame: bytes) -> bytes:
    """For a stream (RFC 5425, section 4.3; RFC 6587, section 3.4.1)."""
    return b"%d %b" % (len(frame), frame)


def local(message: Message, text: str, *, process: int) -> bytes:
    """As syslog(3) writes to /dev/log: journald and rsyslog do not look for RFC 5424 there. Local time."""
    at = datetime.fromtimestamp(message.seconds).astimezone()
    stamp = f"{_MONTHS[at.month - 1]} {at.day:2d} {at:%H:%M:%S}"
    return f"<{_priority(message)}>{stamp} {APP_NAME}[{process}]: {text}".encode("ascii")


def _priority(message: Message) -> int:
    return _FACILITY * 8 + message.severity
