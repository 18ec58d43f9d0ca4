"""Messages to the operator, whatever becomes of standard error."""

from __future__ import annotations

import fcntl
import os
import re
import termios
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from holdfast.gateway.observe import notify
from holdfast.gateway.observe.notify import REPEATS_WRITTEN, Messages

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

PIPE = 16384
NEVER_OPENED = 2**30
"""A descriptor that no other thread can have opened meanwhile."""


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE)
    try:
        yield reading, writing
    finally:
        os.close(reading)
        os.close(writing)


def test_a_message_is_a_line_with_its_level() -> None:
    with pipe() as (reading, writing):
        Messages(writing).say("notice", "serving")
        assert os.read(reading, PIPE) == b"holdfast: notice: serving\n"


def test_nothing_is_raised_when_nobody_reads_the_pipe_any_more() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    messages = Messages(writing)
    messages.say("notice", "serving")
    os.close(writing)
    assert messages.lost == 1


def test_nothing_is_raised_on_a_full_disk_or_a_closed_descriptor() -> None:
    with open("/dev/full", "wb", buffering=0) as full:  # noqa: PTH123 (a device)
        messages = Messages(full.fileno())
        messages.say("notice", "one")
        assert messages.lost == 1
    closed = Messages(NEVER_OPENED)
    closed.say("notice", "two")
    assert closed.lost == 1


def test_a_reader_that_does_not_read_stops_nobody_and_later_hears_how_much_was_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notify, "_PATIENCE", 1)
    with pipe() as (reading, writing):
        messages = Messages(writing)
        for number in range(100):
            messages.say("warning", f"{number} {'x' * 1000}")
        written = os.read(reading, 2 * PIPE)
        lost = messages.lost
        assert 80 < lost < 100
        messages.say("warning", "read again")
        assert os.read(reading, PIPE).splitlines() == [
            b"holdfast: warning: %d messages before this one could not be written" % lost,
            b"holdfast: warning: read again",
        ]
    assert re.fullmatch(rb"(holdfast: warning: [0-9]+ x{1000}\n)+", written)


def test_the_same_message_is_written_a_few_times_and_then_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with pipe() as (reading, writing):
        messages = Messages(writing)
        for _ in range(270):
            messages.say("warning", "worker 1 hangs")
        assert os.read(reading, PIPE).splitlines() == [b"holdfast: warning: worker 1 hangs"] * REPEATS_WRITTEN
        now = 61.0
        messages.say("notice", "another")
        assert os.read(reading, PIPE).splitlines() == [
            b"holdfast: warning: worker 1 hangs (267 more times)",
            b"holdfast: notice: another",
        ]


def test_a_long_message_is_wrapped_between_words_on_a_terminal_only() -> None:
    text = (
        "this HSM is not served, for a reason that takes more than forty columns /and/a/path/that/stays/whole/at/all"
    )
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (24, 40))
    Messages(slave).say("error", text)
    shown = b""
    while not shown.endswith(b"at/all\r\n"):  # a terminal hands on what it has so far
        shown += os.read(master, 4096)
    lines = shown.decode().splitlines()
    os.close(slave)
    os.close(master)
    assert " ".join(map(str.strip, lines)) == f"holdfast: error: {text}"
    assert all(len(line) <= 40 for line in lines if "/and/" not in line)
    reader, writer = os.pipe()
    Messages(writer).say("error", text)
    assert os.read(reader, 4096).decode() == f"holdfast: error: {text}\n"
    os.close(reader)
    os.close(writer)
