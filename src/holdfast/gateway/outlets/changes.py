"""Takes changes from the catalog into the outlets, each at least once, and remembers how far each outlet is.

Every node whose outlets want changes does this for itself: a change is heard of although some nodes are down, cut off
or not to be trusted any more. All send it with the same id, by which a receiver can drop the copies.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from holdfast import durable
from holdfast.gateway.outlets.message import Message
from holdfast.gateway.outlets.outlet import Buffered, Mark
from holdfast.store.errors import CatalogError
from holdfast.store.records import ChangeRow, Records
from holdfast.threads import LivingThread

POLL = 1.0
"""Seconds between two looks at the catalog."""
_RETRY = 5.0
_BATCH = 100
_OTHER = "the catalog is another one than before, or an older one: changes until now were not sent"

_DECODER = msgspec.json.Decoder(dict[str, Mark])


class Changes:
    """A thread of its own: a database that hangs delays no event. `path` keeps the places."""

    def __init__(
        self,
        open_catalog: Callable[[], Records],
        outlets: list[Buffered],
        path: Path,
        *,
        node: str,
        say: Callable[[str, str], None],
    ) -> None:
        self._open_catalog = open_catalog
        self._catalog: Records | None = None
        self._outlets = outlets
        self._path = path
        self._node = node
        self._say = say
        self._ending = threading.Event()
        self._asked: dict[str, Mark] = {}
        self._written: dict[str, Mark] = {}
        self.trouble: str | None = None
        """Why changes do not reach the outlets."""
        self.thread = LivingThread("changes", self._run, on_failure=lambda text: say("error", text))

    def end(self) -> None:
        """Look at the catalog no more."""
        self._ending.set()

    def keep(self) -> None:
        """Write how far each outlet is, if that has changed. Raises OSError."""
        marks = self._written | {one.name: one.marked for one in self._outlets if one.marked is not None}
        if marks == self._written:
            return
        content = msgspec.json.encode(marks, order="sorted") + b"\n"
        durable.replace(self._path, content, like=self._path.parent)
        self._written = marks

    def _run(self) -> None:
        self._written = _read(self._path)
        if not self._outlets:
            return
        while not self._ending.wait(POLL):
            try:
                self._turn()
            except (CatalogError, OSError) as error:
                if self.trouble is None:
                    self._say("warning", f"changes do not reach the outlets: {error}")
                self.trouble = str(error)
                self._ending.wait(_RETRY)
            else:
                if self.trouble is not None:
                    self._say("notice", "changes reach the outlets again")
                self.trouble = None

    def _turn(self) -> None:
        """Raises CatalogError, OSError."""
        if self._catalog is None:
            self._catalog = self._open_catalog()
        found: dict[int, list[ChangeRow]] = {}
        for outlet in self._outlets:
            mark = self._asked.get(outlet.name) or self._begin(outlet, self._catalog)
            if mark.number not in found:
                found[mark.number] = self._catalog.changes_after(mark.number, limit=_BATCH)
            self._asked[outlet.name] = self._put(outlet, found[mark.number], mark)
        self.keep()

    def _begin(self, outlet: Buffered, catalog: Records) -> Mark:
        """Where this outlet was; for one that is new, behind the last change."""
        known, last = self._written.get(outlet.name), catalog.last_change()
        newest = Mark(*last) if last is not None else Mark(0, "")
        if known is None:
            outlet.marked = newest
            return newest
        if known.number and not catalog.has_change(known.number, known.id):
            self._say("warning", f"the outlet {outlet.name}: {_OTHER}")
            outlet.put(Message.of_loss(0, _OTHER, time=_now(), node=self._node))
            outlet.marked = newest
            return newest
        return known

    def _put(self, outlet: Buffered, rows: list[ChangeRow], mark: Mark) -> Mark:
        for row in rows:
            message = (
                Message.of_unreadable(row.number, row.time, node=self._node)
                if row.change is None
                else Message.of_change(row.change, node=self._node)
            )
            fresh = Mark(row.number, row.id)
            if not outlet.put_change(message, fresh):
                break
            mark = fresh
        return mark


def _read(path: Path) -> dict[str, Mark]:
    """What is kept; nothing where there is no file, or one that is damaged: then each outlet begins anew."""
    with suppress(OSError, msgspec.DecodeError, ValueError):
        return _DECODER.decode(path.read_bytes())
    return {}


def _now() -> datetime:
    return datetime.now(UTC)
