"""One worker process: its HSM sessions, its view of the catalog, its event loop.

Workers are spawned, never forked: a PKCS#11 library does not survive a fork.
"""

import asyncio
import faulthandler
import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import uvloop

from holdfast.config.errors import ConfigurationError
from holdfast.gateway.http.tls import TICKET_LIFE, TlsUnusable
from holdfast.gateway.observe.messages import Drain, ExitReason, Failed, Ready, Refresh, RefreshTls, StopKeys
from holdfast.gateway.worker.hardening import forbid_dumps
from holdfast.gateway.worker.parts import Parts
from holdfast.gateway.worker.readiness import Readiness
from holdfast.gateway.worker.reporter import Reporter
from holdfast.gateway.worker.server import Server
from holdfast.gateway.worker.start import WorkerStart
from holdfast.hsm.faults import HsmFault, LoginRefused
from holdfast.store.errors import CatalogError

_TICK = 0.1
"""Seconds between two looks at how late the event loop is."""
_HANGS = 8.0
"""Seconds without a report after which every thread's stack is written to standard error; at ten it is killed."""
_NEW_TICKET_KEYS = round(TICKET_LIFE / _TICK)
"""Ticks between two TLS contexts."""
_REPORT_EVERY = 5
"""Ticks between two reports to the supervisor."""


def run(start: WorkerStart) -> None:
    """The worker process, from its first line to its exit."""
    # A terminal's Ctrl-C and a `kill -HUP` to the group reach everybody; the supervisor decides for all.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    forbid_dumps()
    if start.cpu is not None:
        bind_to_cpu(start.cpu)
    try:
        parts = Parts.build(
            start.configuration,
            turn_file=start.turn_file.descriptor,
            outlets=start.outlets,
            worker=start.number,
            place=start.place,
            proven=start.proven,
        )
    except (HsmFault, CatalogError, ConfigurationError, TlsUnusable, OSError, RuntimeError) as error:  # no thread
        start.control.send(Failed(_exit_reason_of(error), str(error)))
        sys.exit(1)
    parts.stop_keys(start.stopped)
    # What exists now lives until the end: the cycle collector need not look at it again.
    gc.collect()
    gc.freeze()
    # A request leaves little garbage in cycles, and looking for it costs 2 % of its time (measured).
    gc.set_threshold(10_000, 20, 50)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_Worker(start, parts).run())
    parts.close()
    # A call that hangs in the HSM's library would keep the interpreter from ending.
    sys.stdout.flush()
    os._exit(0)


def bind_to_cpu(cpu: int) -> None:
    """Binds this process to one CPU. Where a sandbox forbids that, the worker serves unbound, a little slower."""
    with suppress(OSError):
        os.sched_setaffinity(0, {cpu})


def _exit_reason_of(error: Exception) -> ExitReason:
    match error:
        case LoginRefused():
            return ExitReason.LOGIN_REFUSED
        case HsmFault():
            return ExitReason.HSM
        case CatalogError():
            return ExitReason.CATALOG
        case TlsUnusable() | ConfigurationError():
            return ExitReason.CONFIGURATION
        case _:
            return ExitReason.FAILED


class _Worker:
    """The event loop's part of a worker."""

    def __init__(self, start: WorkerStart, parts: Parts) -> None:
        self._start = start
        self._parts = parts
        self._drain = asyncio.Event()
        self._ticks = 0
        self._refreshing: set[asyncio.Future[None]] = set()
        self._readiness = Readiness(parts.hsms, clock=time.monotonic, found=parts.key_records.generation_found)

    async def run(self) -> None:
        """Serve until the supervisor asks for a drain."""
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._server = Server(self._parts, self._start.listening, self._start.health, loop=loop)
        self._reporter = Reporter(self._start.control)
        loop.add_signal_handler(signal.SIGTERM, self._drain.set)
        loop.add_reader(self._start.control.fileno(), self._command)
        self._server.start()
        self._reporter.send(Ready())
        self._tick(time.monotonic())
        await self._drain.wait()
        await self._server.drain(self._start.configuration.server.drain_timeout_s)
        faulthandler.cancel_dump_traceback_later()
        self._reporter.send(self._server.report())
        self._reporter.close()

    def _command(self) -> None:
        try:
            command = self._start.control.recv()
        except (EOFError, OSError):
            # The supervisor is gone: without it this worker would never be replaced or stopped.
            self._loop.remove_reader(self._start.control.fileno())
            self._drain.set()
            return
        match command:
            case Drain():
                self._drain.set()
            case RefreshTls():
                self._in_thread(self._parts.refresh_tls)
            case Refresh():
                self._in_thread(self._parts.refresh_tls)
                self._parts.event_log.reopen()
                self._in_thread(self._parts.reload_keys)
            case StopKeys():
                self._parts.stop_keys(command.stopped)

    def _in_thread(self, work: Callable[[], None]) -> None:
        """Files and HSMs may take their time, and the event loop has none."""
        task = self._loop.run_in_executor(None, work)
        self._refreshing.add(task)
        task.add_done_callback(self._refreshing.discard)

    def _report(self) -> None:
        # Where a hanging worker hangs: function names only, no values. Without a thread for it, or without standard
        # error, there is no such help, and the worker goes on.
        with suppress(OSError, RuntimeError, ValueError):
            faulthandler.dump_traceback_later(_HANGS)
        self._reporter.send(self._server.report())

    def _tick(self, due: float) -> None:
        now = time.monotonic()
        self._parts.admission.lag = max(0.0, now - due)
        self._ticks += 1
        if self._ticks % _NEW_TICKET_KEYS == 0:
            self._in_thread(self._parts.refresh_tls)
        if self._ticks % _REPORT_EVERY == 0:
            self._report()
        self._parts.usage.turn()
        self._readiness.look(self._parts.key_records.ready)
        self._loop.call_later(_TICK, self._tick, now + _TICK)
