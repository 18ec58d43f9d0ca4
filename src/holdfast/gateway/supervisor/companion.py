"""A process beside the workers, as the supervisor sees it: started, replaced when it dies or hangs, ended last."""

from __future__ import annotations

import multiprocessing
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    from holdfast.config.model import Configuration

HANG_TIMEOUT = 60.0
"""Seconds without a report after which the process is replaced: a call into a library may never return."""
_BACK_OFF = 1.0
_SPAWN = multiprocessing.get_context("spawn")


class _Timed(Protocol):
    @property
    def at(self) -> float: ...


Report = TypeVar("Report", bound=_Timed)


@dataclass(frozen=True, slots=True)
class Kind:
    """What a process is for. `title` stands in messages, `needs` is the part of the configuration that it depends on.

    `needs` gives None where none is wanted. `make` makes what `run` is given; the process ends when it receives a
    message over its connection, or the connection ends, and has `end_timeout` seconds for it.
    """

    name: str
    title: str
    needs: Callable[[Configuration], Any]
    make: Callable[[Configuration, Connection], Any]
    run: Callable[[Any], None]
    end_timeout: float


class Companion(Generic[Report]):
    """Times are the supervisor's clock, in seconds. `say` is given a level and a sentence."""

    def __init__(
        self, kind: Kind, *, say: Callable[[str, str], None], on_report: Callable[[Report], None] | None = None
    ) -> None:
        self._kind = kind
        self._say = say
        self._on_report = on_report
        self._process: SpawnProcess | None = None
        self._control: Connection
        self._served: Any = None
        self._report: Report | None = None
        self._seen = self._heard = 0.0
        self._last_word = 0.0
        self._retry_at = 0.0
        self._ending_until: float | None = None

    @property
    def report(self) -> Report | None:
        """The last one; None where no such process is wanted, or none has come yet."""
        return self._report

    def converge(self, configuration: Configuration, now: float) -> None:
        """Have the process run where the configuration asks for one, and with this configuration."""
        self._look(now)
        wanted = self._kind.needs(configuration)
        if self._process is not None:
            if self._served != wanted:
                self.end(now)
        elif wanted is None:
            self._report = None
        elif now >= self._retry_at:
            self._spawn(configuration, now)

    def end(self, now: float) -> None:
        """Let it finish what there is, and then end."""
        if self._process is not None and self._ending_until is None:
            self._ending_until = now + self._kind.end_timeout
            with suppress(OSError):
                self._control.send(None)

    def ended(self, now: float) -> bool:
        """Whether it has ended since `end`."""
        self._look(now)
        return self._process is None

    def kill(self) -> None:
        """At once."""
        if self._process is not None:
            self._process.kill()

    def _look(self, now: float) -> None:
        process, title = self._process, self._kind.title
        if process is None:
            return
        if self._heard != self._seen:
            self._seen = self._heard
            self._last_word = now
            if self._on_report is not None and self._report is not None:
                self._on_report(self._report)
        if process.is_alive():
            if self._ending_until is not None and now > self._ending_until:
                self._say("warning", f"{title} {process.pid} is killed: it did not end in time")
                process.kill()
            elif now - self._last_word > HANG_TIMEOUT:
                self._say("warning", f"{title} {process.pid} is killed: it hangs")
                self._last_word = now
                process.kill()
            return
        if self._ending_until is None:
            self._say("warning", f"{title} {process.pid} has ended; it is replaced")
            self._retry_at = now + _BACK_OFF
        process.join()
        process.close()
        self._control.close()
        self._process = self._ending_until = None

    def _spawn(self, configuration: Configuration, now: float) -> None:
        self._retry_at = now + _BACK_OFF
        try:
            ours, theirs = _SPAWN.Pipe()
            with theirs:
                start = self._kind.make(configuration, theirs)
                process = _SPAWN.Process(target=self._kind.run, args=(start,), name=f"holdfast-{self._kind.name}")
                process.start()
            Thread(target=self._read, args=(ours,), name=f"{self._kind.name}-inbox", daemon=True).start()
        except (OSError, RuntimeError) as error:
            self._say("error", f"{self._kind.title} cannot be started, and is tried again: {error}")
            return
        self._process, self._control, self._served = process, ours, self._kind.needs(configuration)
        self._last_word = now

    def _read(self, control: Connection) -> None:
        with suppress(EOFError, OSError):
            while True:
                report = control.recv()
                self._report, self._heard = report, report.at
