"""Sends a worker's reports from a thread: a supervisor that does not read must not stop the event loop."""

from contextlib import suppress
from multiprocessing.connection import Connection
from queue import Empty, Full, Queue
from threading import Thread

from holdfast.gateway.observe.messages import FromWorker

_WAITING = 8
_CLOSE_TIMEOUT = 1.0


class Reporter:
    """The worker's end of the control connection, for sending."""

    def __init__(self, control: Connection) -> None:
        self._control = control
        self._queue: Queue[FromWorker | None] = Queue(_WAITING)
        self._thread = Thread(target=self._run, name="reporter", daemon=True)
        self._thread.start()

    def send(self, message: FromWorker) -> None:
        """Send soon. A report that finds no room is dropped: the next one holds its counts too."""
        with suppress(Full):
            self._queue.put_nowait(message)

    def close(self) -> None:
        """Send what waits, for a second at most."""
        with suppress(Full):
            self._queue.put(None, timeout=_CLOSE_TIMEOUT)
        self._thread.join(_CLOSE_TIMEOUT)

    def _run(self) -> None:
        with suppress(OSError, Empty):
            while (message := self._queue.get()) is not None:
                self._control.send(message)
