"""The local stop: keys are refused on this node, without database, network or free disk space.

A file beside what this machine remembers of the catalog has its full size from the first start on, so that a stop is
written over what is there: no block is allocated, and the directory may be read-only. Workers look at it ten times a
second. Blank is no stop; what cannot be read as one is a stop of everything. What was stopped is stopped until a
blank file says otherwise: a file that vanishes lifts nothing.

Each worker says what it has taken over by a lock on a byte of the file, which needs neither disk space nor network
and ends with the process; so `holdfast emergency stop` knows that it is obeyed.

When the catalog answers, the stop is recorded there as a block, once: its id is that of the change.
"""

import fcntl
import os
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import msgspec

from holdfast import durable

SIZE = 4096
"""Bytes of the file: one page, one block."""
_EVERYTHING = "every keystore"


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """Who stopped what on this node, and why. `keystores` None: all.

    `id` is that of the change in the catalog; empty: the file is damaged, and nobody else is to stop for that.
    """

    id: str
    time: datetime
    actor: str
    reason: str = ""
    keystores: tuple[str, ...] | None = None

    def covers(self, keystore: str) -> bool:
        """Whether it stops this keystore."""
        return self.keystores is None or keystore in self.keystores

    def what(self) -> str:
        """As in "every keystore"."""
        return _EVERYTHING if self.keystores is None else f"keystore {', '.join(self.keystores)}"

    def words(self) -> str:
        """For people, as the end of a sentence."""
        why = f" ({self.reason})" if self.reason else ""
        return f"{self.what()} was stopped on this node by {self.actor} at {self.time:%Y-%m-%d %H:%M:%S} UTC{why}"


class TooLong(ValueError):
    """So many keystores do not fit into the file."""


class StopFile:
    """The file of one node."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(self) -> None:
        """Make the file, unless it is there with its full size. Raises OSError."""
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            durable.make_directory(self.path.parent)
            try:
                durable.create(self.path, b" " * SIZE, like=self.path.parent)
            except FileExistsError:
                return  # another worker was first
            durable.sync_directory(self.path.parent)
        else:
            if size == 0:
                self._overwrite(None)

    def read(self) -> Stop | None:
        """What is stopped; None: the file says that nothing is. Raises OSError.

        What is no stop, or is cut short, stops everything.
        """
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            content = os.pread(descriptor, SIZE, 0)
            changed = os.fstat(descriptor).st_mtime
        finally:
            os.close(descriptor)
        if len(content) == SIZE and not content.strip(b" \n\0"):
            return None
        try:
            return _DECODER.decode(content)
        except (msgspec.DecodeError, ValueError):
            when = datetime.fromtimestamp(changed, UTC)
            return Stop(id="", time=when, actor="nobody", reason=f"{self.path} is damaged")

    def write(self, stop: Stop | None) -> None:
        """Stop, or with None lift. Raises OSError, and TooLong for more keystores than fit."""
        try:
            self._overwrite(stop)
        except FileNotFoundError:
            self.prepare()
            self._overwrite(stop)

    def _overwrite(self, stop: Stop | None) -> None:
        content = b"" if stop is None else msgspec.json.encode(stop)
        if len(content) > SIZE:
            raise TooLong
        descriptor = os.open(self.path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.pwrite(descriptor, content.ljust(SIZE), 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def workers(self) -> list["Standing"]:
        """What each worker that runs has taken over. Raises OSError."""
        found: list[Standing] = []
        # The kernel names any lock of a range, not the first: so look on both sides of it.
        ranges = [(_FIRST, _BEYOND)]
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            while ranges:
                start, end = ranges.pop()
                asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, end - start, 0)
                kind, _, at, _, _ = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked))
                if kind != fcntl.F_UNLCK:
                    found.append(Standing.at(at))
                    ranges += [(one, other) for one, other in ((start, at), (at + 1, end)) if one < other]
        finally:
            os.close(descriptor)
        return found


@dataclass(frozen=True, slots=True)
class Standing:
    """What the worker in this place has taken over: `digest` of the stop.

    `unknown`: it names a keystore that the worker does not know.
    """

    digest: int
    place: int
    unknown: bool

    @classmethod
    def at(cls, offset: int) -> "Standing":
        """What a lock on this byte says."""
        number, unknown = divmod((offset - _FIRST) // 2, 2)
        return cls(*divmod(number, _PLACES), bool(unknown))

    @property
    def offset(self) -> int:
        """The byte whose lock says this."""
        # Every second byte: the kernel makes one lock of two that touch.
        return _FIRST + ((self.digest * _PLACES + self.place) * 2 + self.unknown) * 2


def digest_of(stop: Stop | None) -> int:
    """24 bits that stand for a stop; 0: none."""
    return 0 if stop is None else int.from_bytes(sha256(msgspec.json.encode(stop)).digest()[:3]) or 1


class Presence:
    """Says what one worker has taken over, from one thread."""

    def __init__(self, path: Path, place: int) -> None:
        self._path = path
        self._place = place
        self._file: tuple[int, tuple[int, int]] | None = None
        self._said: Standing | None = None

    def say(self, stop: Stop | None, *, unknown: bool) -> None:
        """Replace what was said, or say it again where the file was replaced. Raises OSError."""
        standing, found = Standing(digest_of(stop), self._place, unknown), self._path.stat()
        identity = found.st_dev, found.st_ino
        if self._file is None or self._file[1] != identity:
            self.close()
            self._file = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), identity
        if standing != self._said:
            self._lock(fcntl.F_RDLCK, standing)
            before, self._said = self._said, standing
            if before is not None:
                self._lock(fcntl.F_UNLCK, before)

    def close(self) -> None:
        """Say nothing any more: the worker serves nothing."""
        if self._file is not None:
            os.close(self._file[0])
        self._file = self._said = None

    def _lock(self, kind: int, standing: Standing) -> None:
        if self._file is not None:
            # Shared: a worker that drains, and the one in its place, may say the same.
            fcntl.fcntl(self._file[0], fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, standing.offset, 1, 0))


_DECODER = msgspec.json.Decoder(Stop)
_FLOCK = struct.Struct("@hhqqi4x")
"""struct flock of Linux on 64 bits: type, whence, start, length, process."""
_FIRST = 1 << 32
"""The byte that the first worker locks where nothing is stopped. It is far beyond the end of the file."""
_PLACES = 1024
_BEYOND = _FIRST + (_PLACES << 26)
