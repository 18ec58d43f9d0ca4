"""Keeps one worker's Snapshot fresh from a thread of its own, so that no request waits for the database."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from holdfast.catalog.counting import EncryptionBudget
from holdfast.catalog.snapshot import Generation, Snapshot
from holdfast.catalog.store import Catalog
from holdfast.catalog.warnings import Warnings
from holdfast.threads import LivingThread
from holdfast.xks.types import KeyStatus

POLL = 0.2
"""Seconds between two looks at the version. A block must stop a key everywhere within a second."""
_FLUSH = 5.0
_HEARTBEAT = 10.0
_RETRY_SECRETS = 5.0
_SILENT = 1.0


class CatalogFeed:
    """Polls the catalog: new snapshots, reservations of encryptions, last use of credentials, heartbeats.

    `snapshot`, `used` and `stale_for` are for the event loop and never block. A catalog that is down leaves the
    last snapshot serving for `stale_limit` seconds; after that every keystore is blocked. `on_warning` is called
    on the feed's thread.
    """

    def __init__(  # noqa: PLR0913 (what one worker gives it)
        self,
        catalog: Catalog,
        budget: EncryptionBudget,
        *,
        proxy_id: str,
        stale_limit: float,
        monotonic: Callable[[], float],
        on_warning: Callable[[str], None],
    ) -> None:
        self._catalog = catalog
        self._budget = budget
        self._proxy_id = proxy_id
        self._stale_limit = stale_limit
        self._monotonic = monotonic
        self._warnings = Warnings(on_warning, monotonic)
        self._publish(Snapshot(0))
        self._confirmed_at = monotonic()
        self._unprepared: list[Generation] = []
        self._used: dict[str, datetime] = {}
        self._flush_at = self._heartbeat_at = self._retry_at = 0.0
        self._stopping = False
        self._was_silent = False
        self.thread = LivingThread("catalog-feed", self._run, on_failure=on_warning)

    def start(self) -> None:
        """Load the first snapshot, reserve for its enabled keys, and go on in the thread. Raises CatalogError."""
        self._load()
        self.thread.start()

    def stop(self) -> None:
        """End the thread, write the last uses that are not written yet, and close the catalog.

        Takes no longer than the database's own timeouts.
        """
        self._stopping = True
        self._budget.low.set()
        if self.thread.is_alive():
            self.thread.join()
        with self._warnings.instead_of_errors("the latest uses of credentials are not recorded"):
            self._flush()
        self._catalog.close()

    @property
    def snapshot(self) -> Snapshot:
        """The latest snapshot; with every keystore blocked once the catalog was silent for too long.

        Decided here and not in the thread, which may itself hang in the database.
        """
        return self._blocked if self.stale_for() > self._stale_limit else self._latest

    def stale_for(self) -> float:
        """Seconds since the catalog last confirmed the snapshot. Up to twice POLL is normal."""
        return self._monotonic() - self._confirmed_at

    def used(self, access_key_id: str, at: datetime) -> None:
        """The credential signed a request."""
        self._used[access_key_id] = at

    def _run(self) -> None:
        while not self._stopping:
            with self._warnings.instead_of_errors("the proxy goes on with what it last read"):
                self._poll()
            self._tell_silence()
            self._budget.low.wait(POLL)
            self._budget.low.clear()

    def _poll(self) -> None:
        now = self._monotonic()
        if self._catalog.version() == self._latest.version:
            self._confirmed_at = now
        else:
            self._load()
        self._prepare()
        self._budget.refill()
        # Each time is set before its work: what fails is tried again at its next time, not five times a second.
        if self._latest.unreadable and now >= self._retry_at:
            self._retry_at = now + _RETRY_SECRETS
            self._load()
        if now >= self._heartbeat_at:
            self._heartbeat_at = now + _HEARTBEAT
            self._heartbeat()
        if now >= self._flush_at:
            self._flush_at = now + _FLUSH
            self._flush()

    def _load(self) -> None:
        asked_at = self._monotonic()
        snapshot = self._catalog.snapshot()
        self._unprepared = [
            key.current
            for keystore in snapshot.keystores.values()
            for key in keystore.keys.values()
            if key.status is KeyStatus.ENABLED
        ]
        try:
            # Before the swap: a request should not find a key that has nothing reserved.
            self._prepare()
        finally:
            # In any case: the change may be a block, and a database that takes no writes must not hold it up.
            self._publish(snapshot)
            self._confirmed_at = asked_at
            for text in snapshot.unreadable:
                self._warnings.say(text)

    def _prepare(self) -> None:
        self._budget.prepare(self._unprepared)
        self._unprepared = []

    def _publish(self, snapshot: Snapshot) -> None:
        blocked = {prefix: replace(keystore, blocked=True) for prefix, keystore in snapshot.keystores.items()}
        self._blocked = replace(snapshot, keystores=blocked)
        self._latest = snapshot

    def _heartbeat(self) -> None:
        """Tell the others of this proxy, and hear of them: neither changes the version."""
        self._catalog.heartbeat(self._proxy_id)
        self._budget.refresh()
        fleet_size = self._catalog.fleet_size()
        if fleet_size != self._latest.fleet_size:
            self._publish(replace(self._latest, fleet_size=fleet_size))

    def _flush(self) -> None:
        used = self._used.copy()
        self._catalog.record_use(used)
        for access_key_id, at in used.items():
            # A later use that came in meanwhile stays for the next time; at worst it lags by a flush.
            if self._used.get(access_key_id) == at:
                self._used.pop(access_key_id, None)

    def _tell_silence(self) -> None:
        if self.stale_for() > self._stale_limit:
            self._warnings.say(
                f"ALARM: the catalog has been silent for {self._stale_limit:g} s (stale_limit_s):"
                " every keystore is blocked until it answers"
            )
        silent = self.stale_for() > _SILENT
        if self._was_silent and not silent:
            self._warnings.say("the catalog answers again; the proxy serves with what it holds now")
        self._was_silent = silent
