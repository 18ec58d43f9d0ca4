"""The local stop: keys are refused on this node, without database, network or free disk space.

A file beside what this machine remembers of the catalog has its full size from the first start on, so that a stop is
written over what is there: no block is allocated, and the directory may be read-only. Workers look at it ten times a
second. Blank is no stop; what cannot be read as one is a stop of everything. What was stopped is stopped until a
blank file says otherwise: a file that vanishes lifts nothing.

When the catalog answers, the stop is recorded there as a block, once: its id is that of the change.
"""

import os
from datetime import UTC, datetime
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


_DECODER = msgspec.json.Decoder(Stop)
