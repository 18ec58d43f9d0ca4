"""The local stop as a worker sees it: looks at the file, blocks what it says, records it in the catalog."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from threading import Event

from holdfast.keys.model import Snapshot
from holdfast.store.errors import CatalogError
from holdfast.store.local_stop import Presence, Stop, StopFile
from holdfast.store.store import Catalog
from holdfast.threads import LivingThread

LOOK = 0.1
"""Seconds between two looks at the file."""
_RETRY = 2.0
"""Seconds between two attempts to record a stop."""


class LocalStop:
    """Two threads: one looks at the file and at nothing else, one may hang in the database.

    `applied` and `words` are for the event loop. What is stopped stays so until the file says otherwise.
    """

    def __init__(  # noqa: PLR0913 (what one worker gives it)
        self,
        file: StopFile,
        catalog: Catalog,
        *,
        node: str,
        place: int,
        snapshot: Callable[[], Snapshot],
        on_alarm: Callable[[str], None],
        on_notice: Callable[[str], None],
    ) -> None:
        self._file = file
        self._catalog = catalog
        self._node = node
        self._snapshot = snapshot
        self._presence = Presence(file.path, place)
        self._on_alarm = on_alarm
        self._on_notice = on_notice
        self._stop: Stop | None = None
        self._recorded: Stop | None = None
        self._applied: tuple[Snapshot, Stop, Snapshot] | None = None
        self._stopping = Event()
        self._wake = Event()
        self.threads = (
            LivingThread("local-stop", self._watch, on_failure=on_alarm),
            LivingThread("local-stop-record", self._record, on_failure=on_alarm),
        )

    def start(self) -> None:
        """Make the file where there is none, look at it, and go on in the threads."""
        try:
            self._file.prepare()
        except OSError as error:
            self._on_alarm(
                f"`holdfast emergency stop` cannot work: {self._file.path} cannot be made ({error.strerror})"
            )
        # Said before the first look: who writes a stop after that look sees a worker that has not taken it over.
        self._say()
        self._look()
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        """End the threads. One that hangs in the database is left behind."""
        self._stopping.set()
        self._wake.set()
        for thread in self.threads:
            thread.join(1.0)
        self._presence.close()

    def applied(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot with what is stopped here blocked."""
        stop = self._stop
        if stop is None:
            return snapshot
        applied = self._applied
        if applied is None or applied[0] is not snapshot or applied[1] is not stop:
            keystores = {
                prefix: keystore.blocked_without_end() if stop.covers(keystore.name) else keystore
                for prefix, keystore in snapshot.keystores.items()
            }
            applied = self._applied = snapshot, stop, replace(snapshot, keystores=keystores)
        return applied[2]

    def words(self) -> str | None:
        """What is stopped here, by whom; None: nothing."""
        stop = self._stop
        return None if stop is None else stop.words()

    def _watch(self) -> None:
        while not self._stopping.wait(LOOK):
            self._look()

    def _look(self) -> None:
        try:
            found = self._file.read()
        except OSError:
            return  # what is not read lifts nothing
        changed, self._stop = found != self._stop, found
        self._say()
        if not changed:
            return
        if found is None:
            self._on_notice("the emergency stop is lifted: this node serves what the catalog allows")
        else:
            self._on_alarm(f"ALARM: EMERGENCY STOP: {found.words()}. `holdfast emergency lift` ends it")
            self._wake.set()

    def _say(self) -> None:
        """Tell `holdfast emergency` what is refused here by now."""
        stop = self._stop
        names = () if stop is None else stop.keystores or ()
        known = {keystore.name for keystore in self._snapshot().keystores.values()} if names else set()
        with suppress(OSError):  # the command then says that nothing is confirmed
            self._presence.say(stop, unknown=not known.issuperset(names))

    def _record(self) -> None:
        while not self._stopping.is_set():
            stop = self._stop
            if stop is None or stop == self._recorded:
                self._wake.wait()
                self._wake.clear()
                continue
            try:
                blocked = self._catalog.record_local_stop(stop, node=self._node)
            except CatalogError:
                self._stopping.wait(_RETRY)  # the feed says that the catalog is silent
            else:
                self._recorded = stop
                if blocked:
                    self._on_notice(f"the emergency stop is recorded in the catalog; blocked: {', '.join(blocked)}")
