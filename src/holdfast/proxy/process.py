"""One worker process as the supervisor sees it."""

import multiprocessing
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from holdfast.config.model import Configuration
from holdfast.proxy.messages import Drain, Failed, FromWorker, Ready, Report, ToWorker
from holdfast.proxy.start import WorkerStart, run

START_TIMEOUT = 120.0
"""Seconds for the HSMs' libraries to load and log in."""
HANG_TIMEOUT = 10.0
"""Seconds without a report after which a worker's event loop counts as hung. Reports come twice a second."""
LONGEST_BACK_OFF = 5.0
"""Seconds between two attempts to start a worker that cannot."""
_FIRST_BACK_OFF = 0.25
_SPAWN = multiprocessing.get_context("spawn")


@dataclass(slots=True)
class WorkerProcess:
    """A spawned worker. `seen` is when it last reported, on the supervisor's clock."""

    number: int
    process: SpawnProcess
    control: Connection
    configuration: Configuration
    started: float
    seen: float
    ready: bool = False
    draining_until: float | None = None
    failure: Failed | None = None
    report: Report | None = None

    @classmethod
    def spawn(
        cls, make: Callable[[Connection], WorkerStart], configuration: Configuration, *, now: float
    ) -> "WorkerProcess":
        """Start a process; it reports Ready or Failed. `make` is given the worker's end of the connection."""
        ours, theirs = _SPAWN.Pipe()
        start = make(theirs)
        process = _SPAWN.Process(target=run, args=(start,), name=f"holdfast-worker-{start.number}")
        process.start()
        theirs.close()
        return cls(start.number, process, ours, configuration, started=now, seen=now)

    def receive(self, now: float) -> None:
        """Take in what the worker has sent."""
        with suppress(EOFError, OSError):
            while self.control.poll():
                self._take(self.control.recv(), now)

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
                self.report = message


class Slot:
    """The place of one worker: who serves, and who is about to."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.current: WorkerProcess | None = None
        self.successor: WorkerProcess | None = None
        self.failures = 0
        self.retry_at = 0.0

    def back_off(self, now: float) -> None:
        """Wait longer after each failure in a row."""
        self.retry_at = now + min(LONGEST_BACK_OFF, _FIRST_BACK_OFF * 2**self.failures)
        self.failures += 1
