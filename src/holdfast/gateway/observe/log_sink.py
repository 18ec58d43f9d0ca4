"""Where event lines go: a file, or standard output."""

import fcntl
import os
import select
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_STANDARD_OUTPUT = 1
_MODE = 0o640
_PATIENCE = 1000
"""Milliseconds for a full non-blocking standard output, once per write."""


class NotWritten(OSError):
    """Not everything was written: the first `lines` whole lines were."""

    def __init__(self, error: OSError, lines: int) -> None:
        super().__init__(error.errno, error.strerror)
        self.lines = lines


class LogSink:
    """Appends whole lines, so that the lines of several workers never mix.

    A pipe takes up to 4,096 bytes in one piece, a socket not even that, and a disk that fills up takes half a line.
    So the workers take turns, by a record lock on `turn_file`, which the kernel releases when its holder dies. Half a
    line is cut off a file again; in a pipe, where it cannot be, the next line begins on a new line.
    """

    def __init__(self, path: Path | None, *, turn_file: int) -> None:
        self._path = path
        self._turn_file = turn_file
        self._descriptor = _STANDARD_OUTPUT if path is None else _open(path)
        self._torn = False

    def write(self, lines: bytes) -> None:
        """Append the lines. Raises NotWritten if they could not all be written."""
        data = b"\n" + lines if self._torn else lines
        written = 0
        with self._turn():
            try:
                while written < len(data):
                    written += self._write_some(data[written:])
                    self._torn = data[written - 1 : written] != b"\n"
            except OSError as error:
                whole = data.rfind(b"\n", 0, written) + 1
                self._cut_off(written - whole)
                raise NotWritten(error, data.count(b"\n", len(data) - len(lines), whole)) from error

    def reopen(self) -> None:
        """Open the file again by its name; standard output stays. Raises OSError, and goes on as before."""
        if self._path is not None:
            fresh = _open(self._path)
            old, self._descriptor = self._descriptor, fresh
            os.close(old)

    def _cut_off(self, count: int) -> None:
        """Remove the last bytes of a file again."""
        if count and self._is_file():
            with suppress(OSError):
                os.ftruncate(self._descriptor, os.lseek(self._descriptor, 0, os.SEEK_END) - count)
                self._torn = False

    def _is_file(self) -> bool:
        return stat.S_ISREG(os.fstat(self._descriptor).st_mode)

    def _write_some(self, lines: bytes) -> int:
        try:
            return os.write(self._descriptor, lines)
        except BlockingIOError:
            # A FIFO, or a standard output that another program shares and has made non-blocking.
            poll = select.poll()
            poll.register(self._descriptor, select.POLLOUT)
            poll.poll(_PATIENCE)
            return os.write(self._descriptor, lines)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        fcntl.lockf(self._turn_file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._turn_file, fcntl.LOCK_UN)


def _open(path: Path) -> int:
    # A FIFO without a reader would be waited for without end.
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, _MODE)
