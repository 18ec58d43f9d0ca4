"""Keeps one worker's Snapshot fresh from threads of their own, so that no request waits for the database.

A reader only reads: what stands still must be heard of while the database takes no writes. A writer does the rest.
"""

import asyncio
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from threading import Event

from msgspec import structs

from holdfast.keys.budget import EncryptionBudget
from holdfast.keys.model import Snapshot
from holdfast.store.differences import Notices
from holdfast.store.entries import KEYSTORE
from holdfast.store.errors import NoVersion
from holdfast.store.memory import Memory, MemoryFile
from holdfast.store.nodes import NodeReporter
from holdfast.store.store import Catalog
from holdfast.store.view import States, View
from holdfast.store.warnings import REPEAT, Warnings
from holdfast.threads import LivingThread

POLL = 0.15
"""Seconds between two looks at the version. A block must stop a key everywhere within a second."""
_WRITE = 0.5
_FLUSH = 5.0
_HEARTBEAT = 10.0
_RETRY_HEARTBEAT = 2.0
_RETRY_SECRETS = 5.0
_SILENT = 1.0
_SWITCH = 0.0005
"""Seconds after which a busy thread gives up the interpreter's lock to one that waits; Python's default is 0.005."""
_MOST = 20
"""Wrong rows that are named, so that a table full of them does not fill the log."""


class CatalogFeed:
    """Polls the catalog: new snapshots, reservations of encryptions, last use of credentials, heartbeats.

    `snapshot`, `used` and `stale_for` are for the event loop and never block. A catalog that is down
    leaves the last snapshot serving for `stale_limit` seconds; after that every keystore is blocked. `on_warning` and
    `on_notice` are called on the feed's threads; notices say what changed.
    """

    def __init__(  # noqa: PLR0913 (what one worker gives it)
        self,
        catalog: Catalog,
        budget: EncryptionBudget,
        *,
        node: NodeReporter,
        stale_limit: float,
        state: MemoryFile,
        monotonic: Callable[[], float],
        on_warning: Callable[[str], None],
        on_notice: Callable[[str], None],
    ) -> None:
        self._catalog = catalog
        self._budget = budget
        self._node = node
        self._stale_limit = stale_limit
        self._file = state
        self._monotonic = monotonic
        self._warnings = Warnings(on_warning, monotonic)
        self._notices = Notices(on_notice)
        # The reader's.
        self._view = View()
        self._states = States(0, 0, {}, {})
        self._memory: Memory | None = None
        self._confirmed_at = monotonic()
        self._retry_at = self._say_at = 0.0
        self._was_silent = False
        self._look_now = Event()
        self._looking: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[bool]]] = []
        # The writer's.
        self._used: dict[str, datetime] = {}
        self._unsaved: Memory | None = None
        self._fleet_size = 1
        self._flush_at = self._heartbeat_at = 0.0
        self._stopping = Event()
        self.threads = (
            LivingThread("catalog-reader", self._read, on_failure=on_warning),
            LivingThread("catalog-writer", self._write, on_failure=on_warning),
        )
        self._publish()

    def start(self) -> None:
        """Read the first snapshot and go on in the threads. Raises CatalogError."""
        with self._warnings.instead_of_errors("what this machine had seen of the catalog is not compared"):
            self._memory = self._file.read()
        self._budget.warn_without_stop()
        self._fleet_size = self._catalog.fleet_size()
        self._look()
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        """End the threads, give back what was reserved and not used, write the last uses, close the catalog.

        Takes no longer than the database's own timeouts. Nothing may encrypt any more.
        """
        self._stopping.set()
        self._look_now.set()
        self._budget.low.set()
        for thread in self.threads:
            if thread.is_alive():
                thread.join()
        with self._warnings.instead_of_errors("encryptions that were reserved and not made stay counted"):
            self._budget.give_back()
        with self._warnings.instead_of_errors("the latest uses of credentials are not recorded"):
            self._flush()
        with self._warnings.instead_of_errors("commands wait for this node until its lease ends"):
            self._node.forget()
        self._save_memory()
        self._catalog.close()

    @property
    def snapshot(self) -> Snapshot:
        """The latest snapshot; with every keystore blocked once the catalog was silent for too long.

        Decided here and not in a thread, which may itself hang in the database.
        """
        return self._blocked if self.stale_for() > self._stale_limit else self._latest

    def stale_for(self) -> float:
        """Seconds since the catalog last confirmed the snapshot. Up to twice POLL is normal."""
        return self._monotonic() - self._confirmed_at

    async def look_again(self, deadline: float) -> bool:
        """Have the catalog read now; whether a look that began after this call has ended well before `deadline`."""
        loop = asyncio.get_running_loop()
        looked: asyncio.Future[bool] = loop.create_future()
        self._looking.append((loop, looked))
        self._look_now.set()
        try:
            return await asyncio.wait_for(looked, deadline - self._monotonic())
        except TimeoutError:
            return False

    def owner(self, generation_id: int) -> tuple[str, str, int] | None:
        """The keystore's name, the external key id and the number of a generation; None: it is not there any more."""
        place = self._view.owners.get(generation_id)
        keystore = None if place is None else self._view.keystores.get(place[0])
        return None if place is None or keystore is None else (keystore.name, place[1], place[2])

    def used(self, access_key_id: str, at: datetime) -> None:
        """The credential signed a request."""
        self._used[access_key_id] = at

    def _read(self) -> None:
        while True:
            self._look_now.wait(POLL)
            self._look_now.clear()
            if self._stopping.is_set():
                return
            looking, self._looking = self._looking, []
            looked = False
            with self._warnings.instead_of_errors("the proxy goes on with what it last read"):
                self._look()
                looked = True
            for loop, future in looking:
                with suppress(RuntimeError):  # the event loop has ended, and with it all that waited
                    loop.call_soon_threadsafe(_settle, future, looked)
            self._say_silence()

    def _look(self) -> None:
        """Read what stands still, then what changed."""
        asked_at = self._monotonic()
        # In this order: the writer of the file had seen its version in the catalog before.
        with self._warnings.instead_of_errors("the proxy goes on with what it remembers of the catalog"):
            self._hear_of_others()
        states = self._catalog.states()
        news = self._latest.fleet_size != self._fleet_size or states != self._states
        self._states = states
        if news:
            self._publish()
        if not states.version:
            raise NoVersion
        retry = bool(self._view.unreadable) and asked_at >= self._retry_at
        if states.version != self._view.version or retry:
            self._retry_at = asked_at + _RETRY_SECRETS
            self._refresh()
            news = True
        if news:
            self._compare()
            self._publish()
        self._confirmed_at = max(self._confirmed_at, asked_at)  # `_pulse` may have looked since
        if self._has_news():
            self._budget.low.set()
        if news or asked_at >= self._say_at:
            self._say_at = asked_at + REPEAT
            self._say_what_is_wrong()

    def _say_what_is_wrong(self) -> None:
        unexplained = self._view.unexplained
        for text in unexplained[:_MOST]:
            self._warnings.say(f"ALARM: {text}")
        if len(unexplained) > _MOST:
            self._warnings.say(
                f"ALARM: {len(unexplained) - _MOST} more entries of the catalog are not as recorded:"
                " `holdfast doctor` names them"
            )
        wrong = (*self._view.bad_rows, *self._view.unreadable)
        for text in wrong[:_MOST]:
            self._warnings.say(text)
        if len(wrong) > _MOST:
            self._warnings.say(
                f"{len(wrong) - _MOST} more rows of the catalog are wrong: `holdfast doctor` names them"
            )
        if self._memory is not None and self._memory.doubt is not None:
            self._warnings.say(
                f"ALARM: the catalog is not believed: {self._memory.doubt}. What was blocked, disabled, stopped or"
                " retired stays so on this machine, and new credentials are refused, until a person accepts the"
                " catalog as it is: `holdfast catalog accept`"
            )

    def _refresh(self) -> None:
        before, version = self._view.keystores, self._view.version
        with _in_the_background():
            differences = self._catalog.refresh(self._view, self._pulse)
        self._states = self._view.states
        if version:
            self._notices.differences(before, self._view, differences, since=version)

    def _pulse(self) -> None:
        """Look for blocks while very many keys are read."""
        now = self._monotonic()
        if now - self._confirmed_at >= POLL:
            self._states = self._catalog.states()
            self._publish()
            self._confirmed_at = now

    def _hear_of_others(self) -> None:
        """Take over what another worker, or a person who accepts the catalog, has written to the file."""
        if not self._file.changed():
            return
        heard = self._file.read()
        mine = self._memory
        if mine is None:
            self._memory = heard
        elif heard is None or (heard.version < mine.version and heard.doubt is None and mine.doubt is None):
            self._remember(mine)  # the file was deleted or set back
            return
        elif mine.doubt is not None and heard.doubt is None:
            self._memory = heard
            self._notices.notice(f"the catalog is accepted as it is, at version {heard.version}")
        elif heard.doubt is not None:
            self._memory = mine.with_stricter(heard, heard.doubt)
        elif heard.version > mine.version:
            self._memory = heard
        else:
            return
        if self._unsaved is not None:
            # What waited was made before this was heard, and must not replace it in the file.
            self._unsaved = None if self._memory == heard else self._memory
        self._publish()

    def _compare(self) -> None:
        """Doubt a catalog that went back; else remember what stands still in it."""
        found = Memory.of(self._view)
        memory = self._memory
        if memory is None:
            self._memory = found
        else:
            doubt = memory.doubt or memory.doubt_of(self._as_states_say(found)) or self._view.comparison.mismatch
            self._memory = found if doubt is None else memory.with_stricter(found, doubt)
        if self._memory != memory:
            self._remember(self._memory)

    def _remember(self, memory: Memory) -> None:
        self._unsaved = memory
        self._budget.low.set()

    def _as_states_say(self, found: Memory) -> Memory:
        """With the keystores open that the latest look found open, though the version is the same.

        Not those that are blocked because no record explains why they are open.
        """
        opened = {
            keystore.name
            for identity, keystore in self._view.keystores.items()
            if not self._states.blocked.get(identity, True)
            and (KEYSTORE.name, str(identity)) not in self._view.comparison.deviations
        }
        return structs.replace(found, blocked=found.blocked - opened)

    def _publish(self) -> None:
        """Swap the snapshot. Whatever says that something stands still is right."""
        keystores = self._view.keystores
        if self._memory is not None and self._memory.doubt is not None:
            keystores = self._memory.applied_to(keystores)
        open_or_not = {
            keystore.prefix.value: keystore.blocked_at_least(self._states.ends.get(identity))
            if self._states.blocked.get(identity, True)
            else keystore
            for identity, keystore in keystores.items()
        }
        self._latest = Snapshot(
            self._view.version,
            open_or_not,
            self._fleet_size,
            self._view.unreadable,
            self._view.bad_rows,
            self._view.unexplained,
        )
        blocked = {prefix: keystore.blocked_without_end() for prefix, keystore in open_or_not.items()}
        self._blocked = replace(self._latest, keystores=blocked)

    def _write(self) -> None:
        while not self._stopping.is_set():
            with self._warnings.instead_of_errors("keys encrypt with what is reserved for them"):
                self._budget.refill()
            now = self._monotonic()
            if self._has_news():
                self._heartbeat_at = now
            self._save_memory()
            # Each time is set before its work: what fails is tried again at its next time, not twice a second.
            if now >= self._heartbeat_at:
                self._heartbeat_at = now + _RETRY_HEARTBEAT
                with self._warnings.instead_of_errors("the other proxies do not hear of this one"):
                    self._heartbeat()
                    self._heartbeat_at = now + _HEARTBEAT
            if now >= self._flush_at:
                self._flush_at = now + _FLUSH
                with self._warnings.instead_of_errors("the latest uses of credentials are recorded later"):
                    self._flush()
            self._budget.low.wait(_WRITE)
            self._budget.low.clear()

    def _save_memory(self) -> None:
        memory = self._unsaved
        if memory is not None:
            with self._warnings.instead_of_errors("it is tried again"):
                if self._file.write(memory) and self._unsaved is memory:
                    self._unsaved = None

    def _has_news(self) -> bool:
        return self._node.news(self._latest.version, self._doubt)

    @property
    def _doubt(self) -> str | None:
        return None if self._memory is None else self._memory.doubt

    def _heartbeat(self) -> None:
        """Tell the others of this proxy, and hear of them: neither changes the version."""
        self._catalog.heartbeat(self._node.node.name, self._node.node.workers)
        self._node.report(self._latest.version, self._doubt)
        self._budget.refresh()
        self._fleet_size = self._catalog.fleet_size()

    def _flush(self) -> None:
        used = self._used.copy()
        self._catalog.record_use(used)
        for access_key_id, at in used.items():
            # A later use that came in meanwhile stays for the next time; at worst it lags by a flush.
            if self._used.get(access_key_id) == at:
                self._used.pop(access_key_id, None)

    def _say_silence(self) -> None:
        if self.stale_for() > self._stale_limit:
            self._warnings.say(
                f"ALARM: the catalog has been silent for {self._stale_limit:g} s (stale_limit_s):"
                " every keystore is blocked until it answers"
            )
        silent = self.stale_for() > _SILENT
        if silent and not self._was_silent:
            self._warnings.say(
                f"the catalog has not answered for {_SILENT:g} s; the proxy goes on with what it last read"
            )
        if self._was_silent and not silent:
            self._notices.notice("the catalog answers again; the proxy serves what it holds now")
        self._was_silent = silent


def _settle(future: asyncio.Future[bool], looked: bool) -> None:  # noqa: FBT001 (what the future is given)
    if not future.done():
        future.set_result(looked)


@contextmanager
def _in_the_background() -> Iterator[None]:
    """While very many rows are read the event loop gets the interpreter's lock soon when it asks.

    The cycle collector would stop every thread again and again, to look at objects that stay.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH)
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        if collecting:
            gc.enable()
