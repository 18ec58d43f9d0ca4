"""Finds in a log what a proof is asked for, and makes the proof."""

from collections.abc import Iterator
from contextlib import suppress

import msgspec

from holdfast.audit.checkpoint import Checkpoint
from holdfast.audit.faults import Malformed
from holdfast.audit.note import Note
from holdfast.audit.proof import Proof, prove
from holdfast.audit.records import Change, Exhibit, Segment, decode, segment_lines, segment_path
from holdfast.audit.tiles import CHECKPOINT, WIDTH, Read, Tiles


class _Event(msgspec.Struct):
    kmsRequestId: str | None = None  # noqa: N815 (the event's own name of the field)


class SignedLog:
    """A log as its checkpoint has it. Nothing is verified here: the reader of a proof does that."""

    def __init__(self, read: Read) -> None:
        """Raises Malformed where the checkpoint is missing, or is not one."""
        raw = read(CHECKPOINT)
        if raw is None:
            raise Malformed("there is no log here: it has no checkpoint")
        self._read = read
        self._checkpoint = raw
        self._tiles = Tiles(read, Checkpoint.parse(Note.parse(raw).text).size)

    @property
    def size(self) -> int:
        """Entries that the checkpoint signs."""
        return self._tiles.size

    def find(self, name: str) -> Iterator[tuple[int, int | None]]:
        """Where the change with this id, or the events with this `kmsRequestId`, stand.

        As the index of the entry, and for an event its line in the segment. Segments that were deleted are passed
        over. Raises LogDamaged and Malformed.
        """
        for bundle in range(-(-self.size // WIDTH)):
            for index, entry in enumerate(self._tiles.bundle(bundle), bundle * WIDTH):
                match decode(entry):
                    case Change(id=found) if found == name:
                        yield index, None
                    case Segment() as segment:
                        yield from ((index, line) for line in self._events(segment, name))

    def changes(self) -> Iterator[tuple[int, Change]]:
        """Every change, with the index of its entry. Raises LogDamaged and Malformed."""
        for bundle in range(-(-self.size // WIDTH)):
            for index, entry in enumerate(self._tiles.bundle(bundle), bundle * WIDTH):
                if isinstance(record := decode(entry), Change):
                    yield index, record

    def events(self) -> Iterator[bytes]:
        """Every event of the segments that are there. Raises LogDamaged and Malformed."""
        for bundle in range(-(-self.size // WIDTH)):
            for entry in self._tiles.bundle(bundle):
                record = decode(entry)
                if isinstance(record, Segment):
                    yield from self._lines(record)

    def prove(self, index: int, line: int | None = None) -> Proof:
        """The proof of an entry, or of one event of the segment that it records.

        Raises LogDamaged, Malformed, and ValueError for what is not there.
        """
        entry = self._tiles.entry(index)
        if line is None:
            exhibit = Exhibit(entry=entry.decode())
        else:
            record = decode(entry)
            lines = self._lines(record) if isinstance(record, Segment) else []
            if not 0 <= line < len(lines):
                raise ValueError(f"entry {index} records no segment with an event {line}, or the segment was deleted")
            exhibit = Exhibit.of_event(entry, lines, line)
        return prove(self._tiles, index, checkpoint=self._checkpoint, extra=exhibit.encode())

    def _events(self, segment: Segment, request_id: str) -> Iterator[int]:
        wanted = request_id.encode()
        for number, line in enumerate(self._lines(segment)):
            with suppress(msgspec.DecodeError):  # a line that is not an event cannot be the one
                if wanted in line and msgspec.json.decode(line, type=_Event).kmsRequestId == request_id:
                    yield number

    def _lines(self, segment: Segment) -> list[bytes]:
        return segment_lines(self._read(segment_path(segment.sha256)) or b"")
