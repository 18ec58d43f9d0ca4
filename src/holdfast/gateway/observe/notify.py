"""Messages to the operator on standard error, and to systemd.

Nothing here raises or blocks for long: a fault must not become a second one because it could not be reported.
"""

import os
import select
import socket
import textwrap
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from holdfast.config.model import Configuration

REPEAT = 60.0
"""Seconds in which identical messages count as repeats of one."""
REPEATS_WRITTEN = 3
"""Identical messages that are written within REPEAT seconds; more are counted."""
_STANDARD_ERROR = 2
_PATIENCE = 100
"""Milliseconds to wait for a full pipe."""
_LONGEST_LINE = 4000
"""Bytes. A pipe takes up to 4,096 in one piece (PIPE_BUF), so the lines of several processes do not mix."""
_REMEMBERED = 500
"""Different messages whose repeats are counted."""


def notify(state: str) -> None:
    """Send `READY=1`, `RELOADING=1`, `STOPPING=1` or `STATUS=...` (sd_notify(3)); nothing without systemd."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.sendto(state.encode(), address)


def say(level: str, text: str) -> None:
    """A message on standard error, the service's journal; standard output may carry the event lines. Never raises."""
    _OUTPUT.say(level, text)


def messages_lost() -> int:
    """Messages of this process that could not be written."""
    return _OUTPUT.lost


def serving(configuration: Configuration) -> str:
    """What is served, and where."""
    listen = configuration.server.listen
    scheme = "plain HTTP" if configuration.tls is None else "HTTPS"
    return f"serving {scheme} on {listen.host} port {listen.port}"


@dataclass(slots=True)
class _Repeats:
    first: float
    count: int = 0


class Messages:
    """Writes messages to a file descriptor: each line whole or not at all, the same one only a few times a minute."""

    def __init__(self, descriptor: int) -> None:
        self.lost = 0
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._recent: dict[str, _Repeats] = {}
        self._lost_reported = 0
        self._torn = False

    def say(self, level: str, text: str) -> None:
        """Write the message, unless it is one repeat too many."""
        message = f"holdfast: {level}: {text}"
        with self._lock:
            now = time.monotonic()
            for repeated in self._take_old(now):
                self._write(repeated)
            repeats = self._recent.setdefault(message, _Repeats(now))
            repeats.count += 1
            if repeats.count <= REPEATS_WRITTEN:
                self._write(message)

    def _take_old(self, now: float) -> list[str]:
        """Forget what was said more than REPEAT seconds ago; a message for each that was repeated too often."""
        old = {message: r for message, r in self._recent.items() if now - r.first >= REPEAT}
        if len(self._recent) - len(old) >= _REMEMBERED:
            old = self._recent
        self._recent = {message: r for message, r in self._recent.items() if message not in old}
        return [
            f"{message} ({repeats.count - REPEATS_WRITTEN} more times)"
            for message, repeats in old.items()
            if repeats.count > REPEATS_WRITTEN
        ]

    def _write(self, message: str) -> None:
        if self.lost > self._lost_reported:
            lost = self.lost - self._lost_reported
            note = f"holdfast: warning: {lost} messages before this one could not be written"
            if self._write_line(note):
                self._lost_reported += lost
        for line in self._lines(message):
            if not self._write_line(line):
                self.lost += 1
                return

    def _lines(self, message: str) -> list[str]:
        lines = message.splitlines()
        try:
            width = os.get_terminal_size(self._descriptor).columns or 80
        except OSError:  # no terminal: what collects messages wants one line for each
            return lines
        wrapper = textwrap.TextWrapper(width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        return [part for line in lines for part in wrapper.wrap(line)]

    def _write_line(self, line: str) -> bool:
        data = line.encode("utf-8", "backslashreplace")[:_LONGEST_LINE] + b"\n"
        if self._torn:
            data = b"\n" + data
        try:
            poll = select.poll()
            poll.register(self._descriptor, select.POLLOUT)
            if not poll.poll(_PATIENCE):
                return False
            written = os.write(self._descriptor, data)
        except OSError:
            return False
        if written:
            self._torn = data[written - 1 : written] != b"\n"
        return written == len(data)


_OUTPUT = Messages(_STANDARD_ERROR)
