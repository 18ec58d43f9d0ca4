"""The audit log of control: each change that the catalog records becomes one leaf, exactly once.

A change and its record are one transaction of the catalog. From there the record goes into the log: first it is
appended, then the catalog is told. A crash between the two leaves a record that waits although the log has it, among
its last entries: there `ControlLog` looks first. It recognises the record itself, byte for byte.
"""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from holdfast.audit.faults import Malformed
from holdfast.audit.records import Actor, Change, decode, encode
from holdfast.store.log_directory import LogDirectory
from holdfast.store.records import Records, Waiting

BATCH = 64
"""Records that are appended before the catalog is told."""
_SKEW = timedelta(hours=1)
"""How far the clocks of hosts that make changes may differ."""
UNREADABLE = "unreadable"
"""The outcome of a record that the catalog holds and that is none: somebody has changed the row by hand."""


class ControlLog:
    """Takes records from the catalog into a log that this process has open."""

    def __init__(self, log: LogDirectory, catalog: Records) -> None:
        self._log = log
        self._catalog = catalog

    @property
    def log(self) -> LogDirectory:
        """The log."""
        return self._log

    def pump(self) -> int:
        """Log what waits; the number of new entries. Raises CatalogError, OSError, LogDamaged, LogUnusable."""
        before = self._log.size
        while waiting := self._catalog.unlogged(limit=BATCH):
            entries = [_entry(one) for one in waiting]
            known = self._since(min(one.time for one in waiting))
            self._log.append([entry for entry in entries if entry not in known])
            self._catalog.mark_logged([one.number for one in waiting])
        return self._log.size - before

    def _since(self, time: datetime) -> set[bytes]:
        """The entries that can be of a change of `time` or later: at least the last BATCH."""
        found: set[bytes] = set()
        for number, entry in enumerate(self._log.backwards()):
            if number >= BATCH and _time(entry) < time - _SKEW:
                break
            found.add(entry)
        return found


def _entry(waiting: Waiting) -> bytes:
    """The record; or for what is none a record that says so, so that the others do not wait for ever."""
    with suppress(Malformed, ValueError):
        record = decode(waiting.record)
        if isinstance(record, Change) and encode(record) == waiting.record:
            return waiting.record
    text = sha256(waiting.record).hexdigest()
    return encode(
        Change(
            time=waiting.time,
            id=f"row-{waiting.number}",
            action="unknown",
            subject=f"row {waiting.number} of the table of changes, whose content has the SHA-256 {text}",
            actor=Actor(name="unknown", known_by="nothing"),
            outcome=UNREADABLE,
        )
    )


def _time(entry: bytes) -> datetime:
    with suppress(Malformed):
        return decode(entry).time
    return datetime.min.replace(tzinfo=UTC)
