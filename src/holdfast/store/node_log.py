"""A node's audit log: what the workers have spooled becomes segments, and the log is signed.

The order of the steps is what makes a crash harmless. The segment is durable before its record, the record before the
spooled file is deleted, and the deletion before the next records. So what is spooled is not in the log yet, or stands
among its last records: there `NodeLog` looks before it logs anything.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path

from holdfast.audit.checkpoint import SignedCheckpoint
from holdfast.audit.records import Actor, Lost, Pruned, Segment, decode, encode
from holdfast.store.log_directory import LogDirectory
from holdfast.store.spool import Piece, SpooledStream, spooled

SPOOL = "spool"
"""The directory of the spool in that of the log."""
KILLED = "the worker ended without a word: what it had not written is lost"
DAMAGED = "the file of these events was damaged before it was logged"
_MISSING = "the file of these events is missing: it was lost in a crash of the machine, or deleted"


@dataclass(slots=True)
class Counts:
    """What this process has logged."""

    events: int = 0
    lost: int = 0
    cut: int = 0


class NodeLog:
    """Logs what is spooled. From one thread; `now` gives aware times."""

    def __init__(self, log: LogDirectory, spool: Path, *, now: Callable[[], datetime]) -> None:
        self._log = log
        self._spool = spool
        self._now = now
        self._next: dict[str, int | None] = {}
        self.counts = Counts()

    @property
    def size(self) -> int:
        """Entries on disk, signed or not."""
        return self._log.size

    @property
    def log(self) -> LogDirectory:
        """Where it is written."""
        return self._log

    @property
    def signed(self) -> SignedCheckpoint:
        """The last checkpoint."""
        return self._log.signed

    def seal(self) -> int:
        """Log everything that is complete; the number of new records. Raises OSError, LogDamaged, LogUnusable."""
        before = self._log.size
        for stream in spooled(self._spool):
            if stream.name not in self._next:
                self._next[stream.name] = self._logged(stream)
            self._take(stream)
        return self._log.size - before

    def sign(self) -> SignedCheckpoint:
        """Sign what is logged. Raises as `LogDirectory.checkpoint`."""
        return self._log.checkpoint()

    def prune(self, before: datetime, *, actor: Actor) -> int:
        """Delete the segments of entries older than `before`; how many. Their records and all tiles stay.

        First the log says so, signed; then the oldest go first, so that what a crash leaves is deleted the next time.
        Raises OSError, LogDamaged, LogUnusable, and what the signers raise.
        """
        below = self._first_since(before)
        doomed: list[str] = []
        for entry in self._log.backwards(below):
            record = decode(entry)
            if isinstance(record, Segment):
                if not self._log.has_segment(record.sha256):
                    break
                doomed.append(record.sha256)
        if doomed:
            reason = f"older than {before:%Y-%m-%d}"
            self._log.append([encode(Pruned(time=self._now(), actor=actor, segments_below=below, reason=reason))])
            self._log.checkpoint()
        for digest in reversed(doomed):
            self._log.delete_segment(digest)
        return len(doomed)

    def _first_since(self, before: datetime) -> int:
        """The index of the first entry that is not older. Times are out of order by seconds at most."""
        low, high = 0, self._log.size
        while low < high:
            middle = (low + high) // 2
            if decode(next(self._log.entries(middle))).time < before:
                low = middle + 1
            else:
                high = middle
        return low

    def _take(self, stream: SpooledStream) -> None:
        at = 0
        while at < len(stream.pieces) or (stream.over and self._next[stream.name] is not None):
            pieces = stream.pieces[at : at + _BATCH]
            at += _BATCH
            batch = _Batch(stream, self._next[stream.name])
            for piece in pieces:
                self._seal(piece, batch)
            if stream.over and at >= len(stream.pieces):
                self._end(batch)
            self._log.append(batch.entries)
            self._next[stream.name] = batch.next
            self.counts.events += batch.counts.events
            self.counts.lost += batch.counts.lost
            self.counts.cut += batch.counts.cut
            if batch.next is not None:
                stream.remove(pieces)
        if self._next[stream.name] is None:
            stream.remove_all()
            del self._next[stream.name]

    def _end(self, batch: "_Batch") -> None:
        stream = batch.stream
        if batch.next is not None and stream.last is not None and batch.next < stream.last:
            batch.lose(batch.next, stream.last - 1, _MISSING, self._now())
        if batch.next is not None and stream.cut:
            batch.lose(batch.next, None, KILLED, self._now())
        batch.next = None

    def _seal(self, piece: Piece, batch: "_Batch") -> None:
        if batch.next is None or piece.first < batch.next:
            return  # logged already, before a crash
        if piece.first > batch.next:
            batch.lose(batch.next, piece.first - 1, _MISSING, self._now())
        lines = piece.lines()
        last = piece.first + len(lines) - 1 if piece.last is None else piece.last
        if len(lines) > last - piece.first + 1:
            batch.lose(piece.first, last, DAMAGED, self._now())
        elif not lines:
            if last >= piece.first:
                batch.lose(piece.first, last, _DROPPED, self._now())
        else:
            record = Segment.of(lines, stream=batch.stream.name, first=piece.first, last=last, time=self._now())
            self._log.store_segment(record.sha256, lines)
            batch.add(record)

    def _logged(self, stream: SpooledStream) -> int | None:
        """The number that follows what is logged of this stream; None if the stream has ended there."""
        # Where the first events are still spooled, only a crash can have left records, and then among the last ones.
        within = _RECENT if stream.first == 1 else self._log.size
        for entry in islice(self._log.backwards(), within):
            if stream.name.encode() in entry:
                record = decode(entry)
                if isinstance(record, Segment | Lost) and record.stream == stream.name:
                    return None if record.last is None else record.last + 1
        return 1


_BATCH = 64
_RECENT = 4 * _BATCH
_DROPPED = "no line could be written for these events"


@dataclass(slots=True)
class _Batch:
    """The records of one stream that are appended together. `next` is the number that follows them."""

    stream: SpooledStream
    next: int | None
    entries: list[bytes] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)

    def add(self, record: Segment) -> None:
        self.entries.append(encode(record))
        self.counts.events += record.count
        self.counts.lost += record.lost
        self.next = record.last + 1

    def lose(self, first: int, last: int | None, reason: str, time: datetime) -> None:
        self.entries.append(encode(Lost(time=time, stream=self.stream.name, first=first, last=last, reason=reason)))
        if last is None:
            self.counts.cut += 1
            self.next = None
        else:
            self.counts.lost += last - first + 1
            self.next = last + 1
