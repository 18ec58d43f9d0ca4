"""The audit log's copy of a worker's event lines. It belongs to the event log's thread."""

from collections import deque
from collections.abc import Callable

from holdfast.store.spool import SpoolWriter

CAPACITY = 20_000
"""Lines that wait while none can be spooled; what comes on top is lost, and the audit log will say how many."""


class AuditSpool:
    """Spools lines, and keeps those that it cannot spool yet. `on_warning` is given a sentence for the operator."""

    def __init__(self, writer: SpoolWriter, *, on_warning: Callable[[str], None]) -> None:
        self._writer = writer
        self._on_warning = on_warning
        self._waiting: deque[bytes] = deque()
        self._failure: str | None = None

    def trouble(self) -> str | None:
        """Why lines cannot be spooled at present; None if they can."""
        return None if self._failure is None else f"the audit log cannot be written: {self._failure}"

    def write(self, lines: list[bytes]) -> bool:
        """Spool these lines now, after those that wait; False where that fails: then nothing keeps them."""
        pending = [*self._waiting, *lines]
        try:
            if pending:
                self._writer.write(pending)
            elif self._failure is not None:
                # Lines whose answers were withheld do not wait: that nothing failed proves nothing.
                self._writer.probe()
        except OSError as error:
            self._fail(error)
            return False
        self._waiting.clear()
        try:
            self._writer.rotate()
        except OSError as error:
            self._fail(error)
        else:
            self._recover()
        return True

    def keep(self, lines: list[bytes]) -> None:
        """Spool these lines with the next that are written."""
        room = CAPACITY - len(self._waiting)
        self._waiting.extend(lines[:room])
        self.skip(len(lines[room:]))

    def skip(self, count: int) -> None:
        """So many events have no line, and never will."""
        self._writer.skip(count)

    def due_in(self) -> float | None:
        """Seconds after which `write` has something to do although nothing new has come; None if it has not."""
        return self._writer.due_in()

    def close(self) -> None:
        """End the stream, after what waits."""
        if not self.write([]):
            self.skip(len(self._waiting))
        try:
            self._writer.close()
        except OSError as error:
            self._on_warning(f"the audit log's spool cannot be ended as it should: {error}")

    def _fail(self, error: OSError) -> None:
        if self._failure is None:
            self._on_warning(
                f"the audit log's spool cannot be written: {error}; up to {CAPACITY} lines wait until it can"
            )
        self._failure = error.strerror or str(error)

    def _recover(self) -> None:
        if self._failure is not None:
            self._failure = None
            self._on_warning("the audit log's spool can be written again")
