"""Writes to the catalog who uses which key, on a separate thread: a database that hangs delays no request."""

from collections.abc import Callable
from queue import Empty, SimpleQueue

from holdfast.gateway.observe.usage_tally import UsageTally
from holdfast.protocols.xks.event import Event
from holdfast.store.errors import CatalogError
from holdfast.store.store import Catalog
from holdfast.store.usage import AnotherKmsKey, Used
from holdfast.store.warnings import Warnings
from holdfast.threads import LivingThread

INTERVAL = 10.0
"""Seconds from one transaction to the next, at least."""
MOST_AT_ONCE = 1_000
"""Counts that one transaction takes: in SQLite, nobody else writes meanwhile."""
_FORGET_EVERY = 86_400.0
_OWN_TESTS = "arn:aws:iam::123456789012:user/holdfast-"
"""How `holdfast prove` and `check` call themselves. What they ask for is no use."""


class UsageWriter:
    """Counts requests, and writes the counts. `add` and `turn` belong to the event loop.

    What cannot be written is kept, within the bounds of UsageTally, and written later. `on_warning` is given
    sentences for the operator.
    """

    def __init__(
        self, catalog: Catalog, *, monotonic: Callable[[], float], on_warning: Callable[[str], None]
    ) -> None:
        self._catalog = catalog
        self._monotonic = monotonic
        self._on_warning = on_warning
        self._warnings = Warnings(on_warning, monotonic)
        self._tally = UsageTally()
        self._due = 0.0
        self._given: SimpleQueue[UsageTally] = SimpleQueue()
        self._busy = self._stopping = False
        self.lost = 0
        """Requests that are missing from the counts."""
        # The thread's.
        self._pending = UsageTally()
        self._unwritten_loss = 0
        self._write_at = 0.0
        self._forget_at = 0.0
        self.thread = LivingThread("usage-writer", self._run, on_failure=on_warning)

    def start(self) -> None:
        """Write from now on."""
        self.thread.start()

    def add(self, event: Event, ended: float) -> None:
        """Count a request that has ended, seconds since 1970; cheap, and never blocks."""
        self._tally.add(event, ended)

    def turn(self) -> None:
        """Hand over what was counted, if it is time to write and the thread has nothing to do."""
        tally = self._tally
        if tally.rows and not self._busy and self._monotonic() >= self._due:
            self._due = self._monotonic() + INTERVAL
            self._busy = True
            self._given.put(tally.take())

    def stop(self) -> None:
        """Write what is there, once, and end. Nothing is counted any more."""
        self._stopping = True
        self._given.put(self._tally.take())
        self.thread.join()

    # ---- the thread

    def _run(self) -> None:
        while True:
            self._busy = False
            self._take()
            if self._stopping:
                self._write(len(self._pending.rows))
                if left := sum(int(row[0]) for row in self._pending.rows.values()):
                    self._on_warning(f"{left} requests are missing from what the catalog knows of the use of keys")
                return
            if self._monotonic() >= self._write_at:
                self._write_at = self._monotonic() + INTERVAL
                self._write(MOST_AT_ONCE)

    def _take(self) -> None:
        """Wait for counts, or until it is time to try again, and take what has come."""
        wait: float | None = None
        if self._stopping:
            wait = 0.0
        elif self._pending.rows:
            wait = max(0.0, self._write_at - self._monotonic())
        try:
            given = self._given.get(timeout=wait)
            while True:
                for key, row in given.rows.items():
                    if not (key[6] or "").startswith(_OWN_TESTS):
                        self._pending.merge(key, row)
                self._pending.lost += given.lost
                given = self._given.get_nowait()
        except Empty:
            return

    def _write(self, most: int) -> None:
        pending = self._pending
        self.lost += pending.lost
        self._unwritten_loss += pending.lost
        if pending.lost:
            self._warnings.say(
                "requests are missing from what is known of the keys' use: more different ones than fit into memory"
            )
            pending.lost = 0
        keys = list(pending.rows)[:most]
        if not keys:
            return
        used = [Used(*key, int(row[0]), row[1], row[2]) for key in keys for row in (pending.rows[key],)]
        try:
            another = self._catalog.record_usage(used, lost=self._unwritten_loss)
            self._unwritten_loss = 0
            for key in keys:
                del pending.rows[key]
            if self._monotonic() >= self._forget_at:
                self._forget_at = self._monotonic() + _FORGET_EVERY
                self._catalog.forget_usage_days()
        except CatalogError as error:
            self._warnings.say(f"{error.message}; the use of keys is recorded later")
            return
        for found in another:
            self._on_warning(_in_words(found))


def _in_words(found: AnotherKmsKey) -> str:
    return (
        f"the external key {found.keystore}/{found.external_key_id} is used by another KMS key, {found.kms_key_arn}:"
        f" before, it was {' and '.join(found.others)}. One external key is meant for one KMS key;"
        f" `holdfast key usage {found.keystore} {found.external_key_id}` shows who asked"
    )
