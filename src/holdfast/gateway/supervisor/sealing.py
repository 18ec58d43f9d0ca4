"""The sealer's process as the supervisor sees it: started, replaced when it dies, and ended last of all."""

from __future__ import annotations

import multiprocessing
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING

from holdfast.gateway.sealer.start import SealerStart, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    from holdfast.config.model import Configuration
    from holdfast.gateway.observe.messages import SealerReport

END_TIMEOUT = 10.0
"""Seconds for the last segments to be logged and signed."""
HANG_TIMEOUT = 60.0
"""Seconds without a report after which the process is replaced: a call into an HSM may never return."""
_BACK_OFF = 1.0
_SPAWN = multiprocessing.get_context("spawn")


class SealerPlace:
    """Times are the supervisor's clock, in seconds. `say` is given a level and a sentence."""

    def __init__(self, *, say: Callable[[str, str], None]) -> None:
        self._say = say
        self._process: SpawnProcess | None = None
        self._control: Connection
        self._configuration: Configuration | None = None
        self._report: SealerReport | None = None
        self._seen = self._heard = 0.0
        self._last_word = 0.0
        self._retry_at = 0.0
        self._ending_until: float | None = None
        self._trouble: str | None = None

    @property
    def report(self) -> SealerReport | None:
        """The last one; None where no audit log is configured, or none has come yet."""
        return self._report

    def converge(self, configuration: Configuration, now: float) -> None:
        """Have a sealer run where the configuration asks for one, and with this configuration."""
        self._look(now)
        if self._process is not None:
            if not _same(self._configuration, configuration):
                self.end(now)
        elif configuration.audit is None:
            self._report = None
        elif now >= self._retry_at:
            self._spawn(configuration, now)

    def end(self, now: float) -> None:
        """Let it log and sign what there is, and then end."""
        if self._process is not None and self._ending_until is None:
            self._ending_until = now + END_TIMEOUT
            with suppress(OSError):
                self._control.send(None)

    def ended(self, now: float) -> bool:
        """Whether it has ended since `end`."""
        self._look(now)
        return self._process is None

    def kill(self) -> None:
        """At once: whatever it has not logged is logged at the next start."""
        if self._process is not None:
            self._process.kill()

    def _look(self, now: float) -> None:
        process = self._process
        if process is None:
            return
        if self._heard != self._seen:
            self._seen = self._heard
            self._last_word = now
            self._tell_trouble()
        if process.is_alive():
            if self._ending_until is not None and now > self._ending_until:
                self._say("warning", f"the sealer of the audit log {process.pid} is killed: it did not end in time")
                process.kill()
            elif now - self._last_word > HANG_TIMEOUT:
                self._say("warning", f"the sealer of the audit log {process.pid} is killed: it hangs")
                self._last_word = now
                process.kill()
            return
        if self._ending_until is None:
            self._say("warning", f"the sealer of the audit log {process.pid} has ended; it is replaced")
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
                process = _SPAWN.Process(
                    target=run, args=(SealerStart(configuration, theirs),), name="holdfast-sealer"
                )
                process.start()
            Thread(target=self._read, args=(ours,), name="sealer-inbox", daemon=True).start()
        except (OSError, RuntimeError) as error:
            self._say("error", f"the sealer of the audit log cannot be started, and is tried again: {error}")
            return
        self._process, self._control, self._configuration = process, ours, configuration
        self._last_word = now

    def _read(self, control: Connection) -> None:
        with suppress(EOFError, OSError):
            while True:
                report = control.recv()
                self._report, self._heard = report, report.at

    def _tell_trouble(self) -> None:
        trouble = None if self._report is None else self._report.trouble
        if trouble is not None and trouble != self._trouble:
            self._say("error", f"ALARM: the audit log: {trouble}")
        if trouble is None and self._trouble is not None:
            self._say("notice", "the audit log is written and signed again")
        self._trouble = trouble


def _same(one: Configuration | None, other: Configuration) -> bool:
    return one is not None and (one.audit, one.hsms) == (other.audit, other.hsms)
