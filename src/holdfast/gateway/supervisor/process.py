"""One worker process as the supervisor sees it."""

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.spawn import get_executable
from threading import Thread

from holdfast.config.model import Configuration
from holdfast.gateway.observe.messages import Drain, Failed, FromWorker, Ready, Report, ToWorker
from holdfast.gateway.worker.start import WorkerStart, run

START_TIMEOUT = 120.0
"""Seconds for the HSMs' libraries to load and log in."""
HANG_TIMEOUT = 10.0
"""Seconds without a report after which a worker's event loop counts as hung. Reports come twice a second."""
LONGEST_BACK_OFF = 5.0
"""Seconds between two attempts to start a worker that cannot."""
_FIRST_BACK_OFF = 0.25
_LAST_WORDS = 1.0
_NOT_EXECUTED = 255
"""Exit code of a spawned process whose interpreter could not be executed."""
_SPAWN = multiprocessing.get_context("spawn")


class CannotSpawn(Exception):
    """The operating system does not give what another process needs; the message says what."""


class Inbox:
    """What comes from one connection, read by a separate thread."""

    def __init__(self, connection: Connection, wake: Callable[[], None]) -> None:
        self._connection = connection
        self._wake = wake
        self._messages: deque[FromWorker] = deque()
        self._thread = Thread(target=self._read, name="inbox", daemon=True)
        self._thread.start()

    def take(self) -> Iterator[FromWorker]:
        """Everything that has arrived whole."""
        while self._messages:
            yield self._messages.popleft()

    def wait_for_end(self, timeout: float) -> None:
        """Wait until the other side has closed, and everything it sent has arrived; seconds."""
        self._thread.join(timeout)

    def _read(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                self._messages.append(self._connection.recv())
                self._wake()


@dataclass(slots=True)
class WorkerProcess:
    """A spawned worker. `seen` is when it last reported, on the supervisor's clock.

    A thread reads what it sends: a worker that is stopped in the middle of a message must not stop the supervisor,
    which is to replace it.
    """

    number: int
    process: SpawnProcess
    control: Connection
    inbox: Inbox
    configuration: Configuration
    started: float
    seen: float
    ready: bool = False
    draining_until: float | None = None
    killed_at: float | None = None
    failure: Failed | None = None
    report: Report | None = None

    @classmethod
    def spawn(
        cls,
        make: Callable[[Connection], WorkerStart],
        configuration: Configuration,
        *,
        now: float,
        wake: Callable[[], None],
    ) -> "WorkerProcess":
        """Start a process; it reports Ready or Failed. `make` is given the worker's end of the connection.

        `wake` is called by another thread when there is something to receive. Raises CannotSpawn.
        """
        with ExitStack() as undo:
            try:
                ours, theirs = _SPAWN.Pipe()
                undo.callback(ours.close)
                with theirs:
                    start = make(theirs)
                    process = _SPAWN.Process(target=run, args=(start,), name=f"holdfast-worker-{start.number}")
                    process.start()
                undo.callback(process.kill)
                inbox = Inbox(ours, wake)
            except (OSError, RuntimeError) as error:
                # Out of descriptors, processes, memory or threads.
                raise CannotSpawn(f"a worker process cannot be started: {error}") from error
            undo.pop_all()
        return cls(start.number, process, ours, inbox, configuration, started=now, seen=now)

    def receive(self, now: float) -> None:
        """Take in what the worker has sent."""
        for message in self.inbox.take():
            self._take(message, now)

    def receive_last(self, now: float) -> None:
        """Take in everything that a worker has sent which has ended."""
        self.inbox.wait_for_end(_LAST_WORDS)
        self.receive(now)

    def send(self, message: ToWorker) -> None:
        """Tell the worker; one that is gone is noticed elsewhere."""
        with suppress(OSError):
            self.control.send(message)

    def drain(self, *, until: float) -> None:
        """Let it finish what it has begun; after `until` it is killed."""
        if self.draining_until is None:
            self.draining_until = until
            self.send(Drain())

    def overdue(self, now: float) -> str | None:
        """Why the process must be killed, if it must."""
        if self.draining_until is not None:
            return "it did not end in time" if now > self.draining_until else None
        if not self.ready:
            late = now - self.started > START_TIMEOUT
            return f"it was not ready within {START_TIMEOUT:.0f} seconds" if late else None
        return f"its event loop hangs for {HANG_TIMEOUT:.0f} seconds" if now - self.seen > HANG_TIMEOUT else None

    def death(self) -> str:
        """How the process ended."""
        code = self.process.exitcode
        if code is not None and code < 0:
            # Real-time signals have numbers only.
            named = next((known.name for known in signal.Signals if known == -code), f"signal {-code}")
            return f"was killed by {named}"
        if code == _NOT_EXECUTED and not self.ready:
            return (
                f"could not run {get_executable()!r} (exit code {code}); "
                "the service's user must be able to execute it, and its virtual environment must be whole"
            )
        return f"ended with exit code {code}"

    def close(self) -> None:
        """Release what belonged to the process, which has ended."""
        self.process.join()
        self.process.close()
        self.control.close()

    def _take(self, message: FromWorker, now: float) -> None:
        self.seen = now
        match message:
            case Ready():
                self.ready = True
            case Failed():
                self.failure = message
            case Report():
                if message.encryptions is None and self.report is not None:
                    message = replace(message, encryptions=self.report.encryptions)
                self.report = message


class WorkerPlace:
    """The place of one worker: the process that serves, and the one that is about to replace it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.current: WorkerProcess | None = None
        self.successor: WorkerProcess | None = None
        self.failures = 0
        self.retry_at = 0.0

    def wants_successor(self, target: Configuration, now: float) -> bool:
        """Whether another process should take the current one's place as soon as it can serve."""
        current = self.current
        if current is None:
            return False
        stranded = current.report is not None and current.report.stranded
        return current.configuration != target or (stranded and now >= self.retry_at)

    def back_off(self, now: float) -> None:
        """Wait longer after each failure in a row."""
        self.retry_at = now + min(LONGEST_BACK_OFF, _FIRST_BACK_OFF * 2**self.failures)
        self.failures += 1
