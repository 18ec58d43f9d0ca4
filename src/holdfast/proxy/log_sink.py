"""Where event lines go: a file, or standard output."""

import fcntl
import os
import select
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STANDARD_OUTPUT = 1
_MODE = 0o640
_PATIENCE = 1000
"""Milliseconds for a full non-blocking standard output, once per write."""


class LogSink:
    """Appends whole lines, so that the lines of several workers never mix.

    A file takes each write whole (O_APPEND). A pipe does so up to 4,096 bytes only, a socket not at all: there
    the workers take turns, by a record lock on `turn_file`, which the kernel releases when its holder dies.
    """

    def __init__(self, path: Path | None, *, turn_file: int) -> None:
        self._path = path
        self._turn_file = turn_file
        self._descriptor = _STANDARD_OUTPUT if path is None else _open(path)
        self._torn = False

    def write(self, lines: bytes) -> None:
        """Append the lines. Raises OSError if they could not all be written."""
        if self._torn:
            lines = b"\n" + lines
        with self._turn():
            while lines:
                written = self._write_some(lines)
                # A disk that fills up takes half a line; the next one must not continue it.
                self._torn = lines[written - 1 : written] != b"\n"
                lines = lines[written:]

    def reopen(self) -> None:
        """Open the file again by its name; standard output stays. Raises OSError, and goes on as before."""
        if self._path is not None:
            fresh = _open(self._path)
            old, self._descriptor = self._descriptor, fresh
            os.close(old)

    def _write_some(self, lines: bytes) -> int:
        try:
            return os.write(self._descriptor, lines)
        except BlockingIOError:
            # Somebody who shares our standard output has made it non-blocking.
            poll = select.poll()
            poll.register(self._descriptor, select.POLLOUT)
            poll.poll(_PATIENCE)
            return os.write(self._descriptor, lines)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            yield
            return
        fcntl.lockf(self._turn_file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._turn_file, fcntl.LOCK_UN)


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)
