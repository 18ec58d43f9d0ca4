"""Event lines on their way from the workers to the node's audit log, in files that outlive both ends.

    spool/STREAM/lock        locked by the worker for as long as it lives
    spool/STREAM/1.jsonl     the lines of the events from number 1 on
    spool/STREAM/4097.jsonl  the same from 4,097 on: the file that is written now
    spool/STREAM/end         the worker has ended, and nothing is missing before the number of the last file

A stream is one run of one worker, and only that worker writes it. A file is complete as soon as there is a later one:
it has the numbers up to those of the later file, without the ones that were lost. The last file is complete when the
lock is free, since the kernel releases it however the worker ends. So neither end waits for the other, and each can
be killed at any moment: what a worker has written, the log will have.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from holdfast import durable

MAX_LINES = 4_096
"""Lines of a file, and so of a segment."""
_MAX_BYTES = 4 << 20
_PROBE = 8192
"""More than what a full disk may still have free in the last block of a file."""
_DIRECTORY_MODE = 0o750
_FILE_MODE = 0o640
_LOCK = "lock"
_END = "end"
_SUFFIX = ".jsonl"


class SpoolWriter:
    """The worker's end; belongs to one thread. `age` is how long a file may grow, in seconds."""

    def __init__(self, directory: Path, stream: str, *, age: float, monotonic: Callable[[], float]) -> None:
        """Begin the stream. Raises OSError."""
        self.stream = stream
        self._directory = directory / stream
        self._age = age
        self._monotonic = monotonic
        self._next = self._first = 1
        self._began = 0.0
        self._size = 0
        durable.make_directory(directory, mode=_DIRECTORY_MODE)
        # Under another name until it is locked: a stream without a lock is one whose worker has ended.
        fresh = directory / f".{stream}"
        fresh.mkdir(mode=_DIRECTORY_MODE)
        self._lock = os.open(fresh / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._file = _create(fresh / f"1{_SUFFIX}")
        fresh.rename(self._directory)

    def write(self, lines: list[bytes]) -> None:
        """Append lines, each with its newline: all of them, or none and OSError."""
        data = b"".join(lines)
        written = 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise
        if self._next == self._first:
            self._began = self._monotonic()
        self._size += written
        self._next += len(lines)

    def probe(self) -> None:
        """Raises OSError where a line could not be written now. Leaves nothing in the file."""
        try:
            written = 0
            while written < _PROBE:
                written += os.write(self._file, b" " * (_PROBE - written))
        finally:
            os.ftruncate(self._file, self._size)

    def skip(self, count: int) -> None:
        """So many events have no line, and never will."""
        if count and self._next == self._first:
            self._began = self._monotonic()
        self._next += count

    def due_in(self) -> float | None:
        """Seconds until `rotate` has something to do; None while nothing waits."""
        if self._next == self._first:
            return None
        if self._next - self._first >= MAX_LINES or self._size >= _MAX_BYTES:
            return 0.0
        return max(0.0, self._began + self._age - self._monotonic())

    def rotate(self) -> None:
        """Begin another file if this one is full or old. Raises OSError, and goes on in the same file."""
        if self.due_in() == 0.0:
            self._rotate()

    def close(self) -> None:
        """End the stream. Raises OSError; then it ends as if the worker had been killed."""
        try:
            if self._next > self._first:
                self._rotate()
            os.close(_create(self._directory / _END))
        finally:
            os.close(self._file)
            os.close(self._lock)

    def _rotate(self) -> None:
        fresh = _create(self._directory / f"{self._next}{_SUFFIX}")
        old, self._file = self._file, fresh
        self._first, self._size = self._next, 0
        os.close(old)


@dataclass(frozen=True, slots=True)
class Piece:
    """A complete file: the events `first` to `last` of its stream without those that were lost.

    `last` None: it is the last file of a worker that was killed, so that its lines alone say how many they are.
    """

    path: Path
    first: int
    last: int | None

    def lines(self) -> list[bytes]:
        """Its lines without newlines; half a line at the end, left by a crash, is dropped. Raises OSError."""
        whole, _, _ = self.path.read_bytes().rpartition(b"\n")
        return whole.split(b"\n") if whole else []


@dataclass(frozen=True, slots=True)
class SpooledStream:
    """What there is of a stream.

    `over`: its worker has ended; `cut`: without saying so. `first` and `last` are the numbers with which its earliest
    and its latest file begin, None where there is no file.
    """

    name: str
    directory: Path
    pieces: tuple[Piece, ...]
    over: bool
    cut: bool
    first: int | None
    last: int | None

    def remove(self, pieces: Iterable[Piece]) -> None:
        """Delete files, durably: what is in the log must not be found here again. Raises OSError."""
        for piece in pieces:
            piece.path.unlink(missing_ok=True)
        durable.sync_directory(self.directory)

    def remove_all(self) -> None:
        """Delete the whole stream, durably. Raises OSError."""
        shutil.rmtree(self.directory)
        durable.sync_directory(self.directory.parent)


def spooled(directory: Path) -> Iterator[SpooledStream]:
    """The streams of a spool, in the order of their names. Raises OSError."""
    if not directory.is_dir():
        return
    for path in sorted(directory.iterdir()):
        if not path.name.startswith(".") and path.is_dir():
            yield _look(path)


def _look(path: Path) -> SpooledStream:
    over = not _is_locked(path / _LOCK)  # before its files are listed: afterwards it writes no more
    firsts = sorted(int(file.stem) for file in path.glob(f"*{_SUFFIX}") if file.stem.isdecimal())
    cut = over and not (path / _END).exists()
    pieces = [Piece(path / f"{first}{_SUFFIX}", first, following - 1) for first, following in pairwise(firsts)]
    if cut and firsts:
        pieces.append(Piece(path / f"{firsts[-1]}{_SUFFIX}", firsts[-1], None))
    first, last = (firsts[0], firsts[-1]) if firsts else (None, None)
    return SpooledStream(path.name, path, tuple(pieces), over=over, cut=cut, first=first, last=last)


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
