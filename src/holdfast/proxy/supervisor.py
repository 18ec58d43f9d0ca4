"""The parent process: binds the ports, keeps the workers alive, applies new configurations, serves /metrics."""

import signal
import socket
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import TYPE_CHECKING, Self

from holdfast.certificate_rules import Rule, Weight, judge
from holdfast.config.errors import ConfigurationError
from holdfast.config.load import load
from holdfast.config.model import Address, Configuration
from holdfast.proxy.messages import Failed, Fault, Refresh, RefreshTls, Report, StopKeys, ToWorker
from holdfast.proxy.metrics import Fleet, serve_metrics
from holdfast.proxy.notify import notify, say, serving
from holdfast.proxy.process import LONGEST_BACK_OFF, Slot, WorkerProcess
from holdfast.proxy.sockets import CannotListen, bind
from holdfast.proxy.start import InheritedFile, WorkerStart, cpu_of
from holdfast.proxy.tls import TlsUnusable, build_context, certificate_chain, certificate_expiry
from holdfast.proxy.watch import FileWatch, configuration_files, watched_files

if TYPE_CHECKING:
    from http.server import HTTPServer

_TURN = 0.25
"""Seconds between two looks at clocks and files, when nothing else happens."""
_GRACE = 5.0
"""Seconds beyond `drain_timeout` for a worker to close its HSM sessions."""


def serve(configuration: Configuration) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. Not to be called twice in a process: it owns the signals."""
    try:
        with Supervisor(configuration) as supervisor:
            return supervisor.run()
    except (CannotListen, TlsUnusable) as error:
        say("error", str(error))
        return Fault.CONFIGURATION


class Supervisor:
    """A context manager, so that ports and processes end with it."""

    def __init__(self, configuration: Configuration) -> None:
        self._good: Configuration | None = None
        self._target = configuration
        self._sockets: dict[Address, list[socket.socket]] = {}
        self._slots: list[Slot] = []
        self._leaving: list[WorkerProcess] = []
        self._fleet = Fleet()
        self._metrics: tuple[Address, HTTPServer] | None = None
        self._spawned = 0
        self._stop_signals = 0
        self._hangup = False
        self._stopping = False
        self._held = False
        self._failure: Failed | None = None
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._enter()
        except BaseException:
            self._cleanup.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def run(self) -> int:
        """Supervise until a signal ends it, or no worker can start."""
        while not self._finished():
            self._wait()
            now = time.monotonic()
            self._receive(now)
            self._bury(now)
            if self._stop_signals:
                self._stop(now)
            elif self._failure is not None:
                say("error", self._failure.reason)
                return self._failure.fault
            else:
                self._watch_files(now)
                self._converge(now)
            self._kill_overdue(now)
        notify("STOPPING=1")
        return 0

    # ---- beginning

    def _enter(self) -> None:
        self._turn_file = self._cleanup.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 (entered here)
        self._cleanup.callback(self._kill_all)
        self._cleanup.callback(self._close_sockets, keep=())
        self._cleanup.callback(self._close_metrics)
        self._check(self._target)
        self._open(self._target)
        self._note_certificate()
        self._fleet.note_limits(self._target)
        self._watch = FileWatch(watched_files(self._target))
        self._listen_to_signals()

    def _check(self, configuration: Configuration) -> None:
        """Raises TlsUnusable."""
        if configuration.tls is None:
            return
        build_context(configuration.tls, now=lambda: datetime.now(UTC))
        for breach in judge(certificate_chain(configuration.tls), host=None, now=datetime.now(UTC)):
            if breach.weight is Weight.REFUSED and breach.rule is not Rule.SELF_SIGNED:
                file = configuration.tls.certificate
                say("warning", f"{file}: {breach.what}: KMS will not connect. {breach.remedy}")

    def _open(self, configuration: Configuration) -> None:
        """Bind what the configuration listens on and is not bound yet. Raises CannotListen."""
        for address in _addresses(configuration):
            if address not in self._sockets:
                self._sockets[address] = bind(address)
        wanted = configuration.server.metrics_listen
        if self._metrics is not None and self._metrics[0] != wanted:
            self._close_metrics()
        if wanted is not None and self._metrics is None:
            self._metrics = (wanted, serve_metrics(wanted, self._fleet, now=_now)[0])

    def _listen_to_signals(self) -> None:
        reading, writing = socket.socketpair()
        for end in (reading, writing):
            end.setblocking(False)
            self._cleanup.enter_context(end)
        self._signals, self._waker = reading, writing
        previous = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        self._cleanup.callback(signal.set_wakeup_fd, previous)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self._cleanup.callback(signal.signal, number, signal.signal(number, self._on_signal))

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._hangup = True
        else:
            self._stop_signals += 1

    # ---- one turn

    def _wait(self) -> None:
        wait([self._signals, *(worker.process.sentinel for worker in self._workers())], _TURN)
        with suppress(BlockingIOError):
            self._signals.recv(4096)

    def _workers(self) -> Iterable[WorkerProcess]:
        for slot in self._slots:
            yield from (worker for worker in (slot.current, slot.successor) if worker is not None)
        yield from self._leaving

    def _receive(self, now: float) -> None:
        for worker in self._workers():
            worker.receive(now)
            if worker.report is not None:
                self._stop_keys(worker.report)
                with self._fleet.lock:
                    self._fleet.reports[worker.number] = worker.report
        for slot in self._slots:
            if slot.successor is not None and slot.successor.ready:
                self._promote(slot, slot.successor, now)

    def _stop_keys(self, report: Report) -> None:
        """What one worker may not encrypt with, no other may, and none that replaces it."""
        for name, key, reason in self._fleet.stop(report):
            say(
                "warning",
                f"ALARM: no worker encrypts with the key {key.label!r} in the HSM {name} any more: {reason}",
            )
            self._tell(StopKeys({name: {key: reason}}))

    def _promote(self, slot: Slot, successor: WorkerProcess, now: float) -> None:
        if slot.current is not None:
            self._dismiss(slot.current, now)
        slot.current, slot.successor = successor, None
        if self._good is None:
            self._good = successor.configuration
            notify("READY=1")
            say("notice", serving(successor.configuration))
        if all(s.current is not None and s.current.configuration == self._target for s in self._slots):
            self._committed()

    def _committed(self) -> None:
        """Every worker runs the target."""
        if self._good != self._target:
            say("notice", f"the configuration {self._target.path} is applied")
            self._fleet.reloads["applied"] += 1
            self._good = self._target
            self._note_certificate()
            self._fleet.note_limits(self._good)
            self._close_sockets(keep=_addresses(self._good))

    def _bury(self, now: float) -> None:
        """Take note of every process that has ended."""
        for worker in [worker for worker in self._leaving if not worker.process.is_alive()]:
            self._leaving.remove(worker)
            self._forget(worker)
        for slot in self._slots:
            if slot.successor is not None and not slot.successor.process.is_alive():
                failed, slot.successor = slot.successor, None
                self._start_failed(slot, failed, now)
            if slot.current is not None and not slot.current.process.is_alive():
                dead, slot.current = slot.current, None
                say("warning", f"worker {dead.process.pid} {dead.death()}; it is replaced")
                self._fleet.replaced += 1
                if now - dead.started > LONGEST_BACK_OFF:
                    slot.failures = 0
                else:
                    slot.back_off(now)
                self._forget(dead)

    def _start_failed(self, slot: Slot, worker: WorkerProcess, now: float) -> None:
        failure = worker.failure or Failed(Fault.FAILED, f"a worker {worker.death()} before it was ready")
        self._forget(worker)
        slot.back_off(now)
        if self._good is None:
            # The other workers are still trying: what one of them can do, this one may do at a second attempt.
            if not any(slot.successor for slot in self._slots):
                self._failure = failure
        elif self._target != self._good:
            self._refuse(f"the new configuration is not applied: {failure.reason}")
            self._target = self._good
        elif failure.fault is Fault.LOGIN_REFUSED:
            self._held = True
            say("error", f"no worker is started until SIGHUP or a changed configuration: {failure.reason}")
        else:
            say("warning", f"a worker cannot start, and is tried again: {failure.reason}")

    def _forget(self, worker: WorkerProcess) -> None:
        worker.receive_last(time.monotonic())
        if worker.report is not None:
            self._fleet.reports[worker.number] = worker.report
        self._fleet.retire(worker.number)
        worker.close()

    def _converge(self, now: float) -> None:
        """Come closer to the target: first replace the missing, then one outdated worker at a time."""
        wanted = self._target.server.workers
        while len(self._slots) < wanted:
            self._slots.append(Slot(len(self._slots)))
        for slot in self._slots[wanted:]:
            for worker in (slot.current, slot.successor):
                if worker is not None:
                    self._dismiss(worker, now)
        del self._slots[wanted:]
        # Until one worker has started nobody knows that the PIN is right: tokens lock after a few refusals.
        for slot in self._slots if self._good is not None else self._slots[:1]:
            first = self._good is None and slot.failures == 0
            due = first or (self._good is not None and now >= slot.retry_at and not self._held)
            if slot.current is None and slot.successor is None and due:
                slot.successor = self._spawn(slot, now)
        if not any(slot.successor for slot in self._slots):
            for slot in self._slots:
                if not self._held and slot.wants_successor(self._target, now):
                    slot.successor = self._spawn(slot, now)
                    break
        self._fleet.workers_wanted = wanted
        self._fleet.workers_ready = sum(slot.current is not None for slot in self._slots)

    def _spawn(self, slot: Slot, now: float) -> WorkerProcess:
        self._spawned += 1
        number, target = self._spawned, self._target
        server = target.server

        def start(control: Connection) -> WorkerStart:
            return WorkerStart(
                number=number,
                configuration=target,
                listening=self._sockets[server.listen],
                health=self._sockets[server.health_listen] if server.health_listen else [],
                turn_file=InheritedFile(self._turn_file.fileno()),
                control=control,
                cpu=cpu_of(slot.number, len(self._slots)),
                stopped=self._fleet.stopped,
                proven=target == self._good,
            )

        return WorkerProcess.spawn(start, target, now=now, wake=self._wake)

    def _wake(self) -> None:
        # A full pipe wakes as well; a closed one wakes nobody any more.
        with suppress(OSError):
            self._waker.send(b"\0")

    def _dismiss(self, worker: WorkerProcess, now: float) -> None:
        worker.drain(until=now + worker.configuration.server.drain_timeout + _GRACE)
        self._leaving.append(worker)

    def _kill_overdue(self, now: float) -> None:
        for worker in self._workers():
            reason = worker.overdue(now)
            if reason is not None and worker.process.is_alive():
                say("warning", f"worker {worker.process.pid} is killed: {reason}")
                worker.process.kill()

    # ---- new configurations

    def _watch_files(self, now: float) -> None:
        if self._hangup:
            self._hangup = False
            self._watch.forget()
            self._reload(refresh=Refresh())
            return
        changed = self._watch.changed(now)
        if configuration_files(self._target).intersection(changed):
            self._reload(refresh=RefreshTls())
        elif changed:
            self._reload_tls()

    def _reload(self, *, refresh: Refresh | RefreshTls) -> None:
        notify("RELOADING=1")
        try:
            fresh = load(self._target.path)
            self._check(fresh)
            self._open(fresh)
        except (ConfigurationError, TlsUnusable, CannotListen) as error:
            self._refuse(f"the new configuration is not applied:\n{error}")
        else:
            self._held = False
            if fresh == self._target:
                self._tell(refresh)
                self._note_certificate()
            self._target = fresh
            self._watch.watch(watched_files(fresh))
        notify("READY=1")

    def _reload_tls(self) -> None:
        try:
            self._check(self._target)
        except TlsUnusable as error:
            self._refuse(f"the new TLS files are not used: {error}")
        else:
            self._tell(RefreshTls())
            self._note_certificate()
            say("notice", "the TLS files have changed and are used for new connections")

    def _refuse(self, text: str) -> None:
        say("error", text)
        self._fleet.reloads["refused"] += 1
        self._close_sockets(keep={*_addresses(self._target), *_addresses(self._good or self._target)})

    def _tell(self, message: ToWorker) -> None:
        for worker in self._workers():
            worker.send(message)

    def _note_certificate(self) -> None:
        tls = self._target.tls
        # The file was good when it was checked, and may be half replaced by now. That is no reason to stop: the
        # workers have their certificate, and a new one is noted when it has been checked in its turn.
        with suppress(TlsUnusable):
            self._fleet.certificate_expires = None if tls is None else certificate_expiry(tls).timestamp()

    # ---- ending

    def _stop(self, now: float) -> None:
        if not self._stopping:
            self._stopping = True
            notify("STOPPING=1")
            self._close_sockets(keep=())
            for slot in self._slots:
                for worker in (slot.current, slot.successor):
                    if worker is not None:
                        self._dismiss(worker, now)
            self._slots.clear()
        if self._stop_signals > 1:
            self._kill_all()

    def _finished(self) -> bool:
        return self._stopping and not self._leaving

    def _kill_all(self) -> None:
        for worker in self._workers():
            worker.process.kill()

    def _close_sockets(self, *, keep: Iterable[Address]) -> None:
        for address in self._sockets.keys() - set(keep):
            for sock in self._sockets.pop(address):
                sock.close()

    def _close_metrics(self) -> None:
        if self._metrics is not None:
            self._metrics[1].shutdown()
            self._metrics[1].server_close()
            self._metrics = None


def _addresses(configuration: Configuration) -> set[Address]:
    server = configuration.server
    return {address for address in (server.listen, server.health_listen) if address is not None}


def _now() -> float:
    return datetime.now(UTC).timestamp()
