"""The parent process: binds the ports, keeps the workers alive, applies new configurations, serves /metrics."""

import signal
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from ipaddress import ip_address
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Self

from holdfast.certificate_rules import Rule, Weight, judge
from holdfast.config.errors import ConfigurationError
from holdfast.config.listeners import Address
from holdfast.config.load import load
from holdfast.config.model import Configuration, differences
from holdfast.gateway.http.sockets import CannotListen, bind
from holdfast.gateway.http.tls import TlsUnusable, build_context, certificate_chain, certificate_expiry
from holdfast.gateway.observe.messages import ExitReason, Failed, Refresh, RefreshTls, Report, StopKeys, ToWorker
from holdfast.gateway.observe.metrics import Fleet, page_of
from holdfast.gateway.observe.notify import messages_lost, notify, say, serving
from holdfast.gateway.supervisor.emitting import EventChannel, outlets
from holdfast.gateway.supervisor.metrics_server import MetricsServer
from holdfast.gateway.supervisor.process import LONGEST_BACK_OFF, CannotSpawn, WorkerPlace, WorkerProcess
from holdfast.gateway.supervisor.sealing import sealer
from holdfast.gateway.supervisor.watch import FileWatch, configuration_files, watched_files
from holdfast.gateway.worker import descriptors
from holdfast.gateway.worker.descriptors import TooFewDescriptors
from holdfast.gateway.worker.hardening import forbid_dumps
from holdfast.gateway.worker.start import InheritedFile, WorkerStart, cpu_of

_TURN = 0.25
"""Seconds between two looks at clocks and files, when nothing else happens."""
_GRACE = 5.0
"""Seconds beyond `drain_timeout` for a worker to close its HSM sessions."""


def serve(configuration: Configuration) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. Not to be called twice in a process: it owns the signals."""
    forbid_dumps()
    try:
        with Supervisor(configuration) as supervisor:
            return supervisor.run()
    except (CannotListen, TlsUnusable, TooFewDescriptors) as error:
        say("error", str(error))
        return ExitReason.CONFIGURATION


class Supervisor:
    """A context manager, so that ports and processes end with it."""

    def __init__(self, configuration: Configuration) -> None:
        self._good: Configuration | None = None
        self._target = configuration
        self._sockets: dict[Address, list[socket.socket]] = {}
        self._places: list[WorkerPlace] = []
        self._leaving: list[WorkerProcess] = []
        self._fleet = Fleet()
        self._metrics: MetricsServer | None = None
        self._spawned = 0
        self._stop_signals = 0
        self._hangup = False
        self._stopping = False
        self._held = False
        self._failure: Failed | None = None
        self._cleanup = ExitStack()
        self._events = EventChannel()
        self._cleanup.callback(self._events.close)
        self._sealer = sealer(say=say)
        self._outlets = outlets(self._events, say=say)

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
            self._try(self._receive, now)
            self._try(self._bury, now)
            if self._stop_signals:
                self._try(self._stop, now)
            elif self._failure is not None:
                say("error", self._failure.reason)
                return self._failure.exit_reason
            else:
                self._try(self._watch_files, now)
                self._try(self._converge, now)
            self._try(self._accompany, now)
            self._try(self._kill_overdue, now)
            self._fleet.messages_lost = messages_lost()
        notify("STOPPING=1")
        say("notice", "stopped")
        return 0

    def _try(self, step: Callable[[float], None], now: float) -> None:
        """One step of a turn. Whatever goes wrong in it is reported, and tried again with the next turn."""
        try:
            step(now)
        except Exception as error:  # noqa: BLE001 (the supervisor is the only process that replaces workers)
            self._fleet.supervisor_failures += 1
            name = step.__name__.strip("_").replace("_", " ")
            say("error", f"the supervisor failed to {name}, and tries again: {type(error).__name__}: {error}")

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
        """Raises TlsUnusable, TooFewDescriptors."""
        self._check_descriptors(configuration)
        for table in (configuration.health_tls, configuration.metrics_tls):
            if table is not None:
                build_context(table, now=_utc_now)
        if configuration.tls is None:
            return
        build_context(configuration.tls, now=_utc_now)
        for breach in judge(certificate_chain(configuration.tls), host=None, now=datetime.now(UTC)):
            if breach.weight is Weight.REFUSED and breach.rule is not Rule.SELF_SIGNED:
                file = configuration.tls.certificate
                say("warning", f"{file}: {breach.what}: KMS will not connect. {breach.remedy}")

    def _check_descriptors(self, configuration: Configuration) -> None:
        """Raises TooFewDescriptors. The workers inherit the limit."""
        wanted = descriptors.needed(configuration)
        limit = descriptors.raise_limit(wanted)
        connections = descriptors.share_out(configuration, limit).connections
        if connections < configuration.server.max_connections:
            say(
                "warning",
                f"max_connections is lowered from {configuration.server.max_connections} to {connections} per worker:"
                f" a process may open {limit} files here (RLIMIT_NOFILE), and {wanted} are needed",
            )

    def _open(self, configuration: Configuration) -> None:
        """Bind what the configuration listens on and is not bound yet. Raises CannotListen."""
        for address in _addresses(configuration):
            if address not in self._sockets:
                self._sockets[address] = bind(address)
        wanted = configuration.server.metrics_listen
        if wanted is None:
            self._close_metrics()
        elif self._metrics is not None and self._metrics.address == wanted:
            self._metrics.tls = _metrics_tls(configuration)
        else:
            fresh = MetricsServer(wanted, page_of(self._fleet, now=_now), tls=_metrics_tls(configuration))
            fresh.start()
            self._close_metrics()
            self._metrics = fresh

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
        try:
            wait([self._signals, *(worker.process.sentinel for worker in self._workers())], _TURN)
        except (OSError, ValueError):
            # Never a loop without a pause.
            time.sleep(_TURN)
        with suppress(OSError):
            self._signals.recv(4096)

    def _workers(self) -> Iterable[WorkerProcess]:
        for place in self._places:
            yield from (worker for worker in (place.current, place.successor) if worker is not None)
        yield from self._leaving

    def _receive(self, now: float) -> None:
        for worker in self._workers():
            worker.receive(now)
            if worker.report is not None:
                self._note(worker.number, worker.report)
        for place in self._places:
            if place.successor is not None and place.successor.ready:
                self._promote(place, place.successor, now)

    def _note(self, number: int, report: Report) -> None:
        """Take a worker's report. What one worker may not encrypt with, no other may, and none that replaces it."""
        alarms, stopped = self._fleet.note(number, report)
        for alarm in alarms:
            say("error", alarm)
        if stopped:
            self._tell(StopKeys(stopped))

    def _promote(self, place: WorkerPlace, successor: WorkerProcess, now: float) -> None:
        if place.current is not None:
            self._dismiss(place.current, now)
        place.current, place.successor = successor, None
        if self._good is None:
            self._good = successor.configuration
            notify("READY=1")
            say("notice", serving(successor.configuration))
            if successor.configuration.tls is None and not _is_loopback(successor.configuration.server.listen):
                say(
                    "warning",
                    "requests and answers, with data keys in the clear, are not encrypted on the network;"
                    " add [tls], or listen on a loopback address behind something that ends TLS on this host",
                )
        if all(s.current is not None and s.current.configuration == self._target for s in self._places):
            self._committed()

    def _committed(self) -> None:
        """Every worker runs the target."""
        if self._good != self._target:
            before, self._good = self._good, self._target
            self._fleet.reloads["applied"] += 1
            self._say_what_changed(before, self._good)
            self._note_certificate()
            self._fleet.note_limits(self._good)
            self._close_sockets(keep=_addresses(self._good))

    def _say_what_changed(self, old: Configuration | None, new: Configuration) -> None:
        changed = ", ".join(differences(old, new)) if old is not None else ""
        say("notice", f"the configuration {new.path} is applied{changed and '; changed: '}{changed}")
        if old is None or old.authorization == new.authorization:
            return
        if new.authorization is None:
            say(
                "warning",
                "policies are off: [authorization] is gone from the configuration, and what KMS's key policies allow"
                " is done. `require_policies` in [server] would have refused this configuration",
            )
        else:
            before = "none" if old.authorization is None else old.authorization.digest
            say("notice", f"the policies in force are {new.authorization.digest} (SHA-256), before: {before}")

    def _bury(self, now: float) -> None:
        """Take note of every process that has ended."""
        for worker in [worker for worker in self._leaving if not worker.process.is_alive()]:
            self._leaving.remove(worker)
            self._forget(worker)
        for place in self._places:
            if place.successor is not None and not place.successor.process.is_alive():
                failed, place.successor = place.successor, None
                self._start_failed(place, failed, now)
            if place.current is not None and not place.current.process.is_alive():
                dead, place.current = place.current, None
                say("warning", f"worker {dead.process.pid} {dead.death()}; it is replaced")
                self._note_death(place, dead, now)
                self._forget(dead)

    def _note_death(self, place: WorkerPlace, dead: WorkerProcess, now: float) -> None:
        self._fleet.replaced += 1
        if now - dead.started > LONGEST_BACK_OFF:
            place.failures = 0
        else:
            place.back_off(now)

    def _start_failed(self, place: WorkerPlace, worker: WorkerProcess, now: float) -> None:
        failure = worker.failure or Failed(ExitReason.FAILED, f"before it was ready, a worker {worker.death()}")
        self._forget(worker)
        place.back_off(now)
        if self._good is None:
            # The other workers are still trying: what one of them can do, this one may do at a second attempt.
            if not any(place.successor for place in self._places):
                self._failure = failure
        elif self._target != self._good:
            self._refuse(f"the new configuration is not applied: {failure.reason}")
            self._target = self._good
            self._return_metrics()
        elif failure.exit_reason is ExitReason.LOGIN_REFUSED:
            self._held = True
            say("error", f"no worker is started until SIGHUP or a changed configuration: {failure.reason}")
        else:
            say("warning", f"a worker cannot start, and is tried again: {failure.reason}")

    def _return_metrics(self) -> None:
        """Serve metrics as before a configuration that turned out not to work."""
        try:
            self._open(self._target)
        except (CannotListen, TlsUnusable) as error:
            say("error", f"/metrics is not served as before: {error}")

    def _forget(self, worker: WorkerProcess) -> None:
        worker.receive_last(time.monotonic())
        if worker.report is not None:
            self._fleet.reports[worker.number] = worker.report
        self._fleet.retire(worker.number)
        worker.close()

    def _converge(self, now: float) -> None:
        """Come closer to the target: first replace the missing, then one outdated worker at a time."""
        wanted = self._target.server.workers
        while len(self._places) < wanted:
            self._places.append(WorkerPlace(len(self._places)))
        for place in self._places[wanted:]:
            for worker in (place.current, place.successor):
                if worker is not None:
                    self._dismiss(worker, now)
        del self._places[wanted:]
        # Until one worker has started the PIN may be wrong: tokens lock after a few refusals.
        for place in self._places if self._good is not None else self._places[:1]:
            first = self._good is None and place.failures == 0
            due = first or (self._good is not None and now >= place.retry_at and not self._held)
            if place.current is None and place.successor is None and due:
                self._start_successor(place, now)
        if not any(place.successor for place in self._places):
            for place in self._places:
                if not self._held and place.wants_successor(self._target, now):
                    self._start_successor(place, now)
                    break
        self._fleet.workers_wanted = wanted
        self._fleet.workers_ready = sum(place.current is not None for place in self._places)

    def _start_successor(self, place: WorkerPlace, now: float) -> None:
        try:
            place.successor = self._spawn(place, now)
        except CannotSpawn as error:
            place.back_off(now)
            if self._good is None:
                self._failure = Failed(ExitReason.FAILED, str(error))
            else:
                say("warning", f"{error}; it is tried again")

    def _spawn(self, place: WorkerPlace, now: float) -> WorkerProcess:
        self._spawned += 1
        number, target = self._spawned, self._target
        server = target.server

        def start(control: Connection) -> WorkerStart:
            return WorkerStart(
                number=number,
                place=place.number,
                configuration=target,
                listening=self._sockets[server.listen],
                health=self._sockets[server.health_listen] if server.health_listen else [],
                turn_file=InheritedFile(self._turn_file.fileno()),
                control=control,
                cpu=cpu_of(place.number, len(self._places)),
                outlets=self._events.sender if target.outlets else None,
                stopped=self._fleet.unrecorded(),
                proven=target == self._good,
            )

        return WorkerProcess.spawn(start, target, now=now, wake=self._wake)

    def _wake(self) -> None:
        # A full pipe wakes as well; a closed one means that the supervisor ends.
        with suppress(OSError):
            self._waker.send(b"\0")

    def _dismiss(self, worker: WorkerProcess, now: float) -> None:
        worker.drain(until=now + worker.configuration.server.drain_timeout_s + _GRACE)
        self._leaving.append(worker)

    def _kill_overdue(self, now: float) -> None:
        for worker in self._workers():
            reason = worker.overdue(now)
            if reason is not None and worker.killed_at is None and worker.process.is_alive():
                say("warning", f"worker {worker.process.pid} is killed: {reason}")
                worker.killed_at = now
                worker.process.kill()
        for place in self._places:
            stuck = place.current
            if stuck is not None and stuck.killed_at is not None and now - stuck.killed_at > _GRACE:
                # As in a driver that never returns: the kernel kills it when it does.
                say("warning", f"worker {stuck.process.pid} does not end although it was killed; it is replaced")
                place.current = None
                self._leaving.append(stuck)
                self._note_death(place, stuck, now)

    def _accompany(self, now: float) -> None:
        """Keep the audit log written and the outlets supplied, from when a worker serves until the last has ended."""
        for companion in (self._sealer, self._outlets):
            if self._stopping:
                if not self._leaving:
                    companion.end(now)
            elif self._good is not None:
                companion.converge(self._good, now)
        self._fleet.sealer, self._fleet.outlets = self._sealer.report, self._outlets.report

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
            self._load_again(refresh)
        finally:
            notify("READY=1")

    def _load_again(self, refresh: Refresh | RefreshTls) -> None:
        try:
            fresh = load(self._target.path)
            self._check(fresh)
            self._open(fresh)
        except (ConfigurationError, TlsUnusable, CannotListen, TooFewDescriptors) as error:
            self._refuse(f"the new configuration is not applied:\n{error}")
        else:
            self._held = False
            if fresh == self._target:
                self._tell(refresh)
                self._note_certificate()
                if isinstance(refresh, Refresh):
                    say(
                        "notice",
                        "SIGHUP: the configuration is unchanged; the TLS files, the event log's name and the"
                        " HSMs' keys are read again",
                    )
            else:
                say("notice", f"the configuration {fresh.path} has changed: one worker after the other is replaced")
            self._target = fresh
            self._watch.watch(watched_files(fresh))

    def _reload_tls(self) -> None:
        try:
            self._check(self._target)
        except TlsUnusable as error:
            self._refuse(f"the new TLS files are not used: {error}")
        else:
            self._tell(RefreshTls())
            if self._metrics is not None:
                self._metrics.tls = _metrics_tls(self._target)
            self._note_certificate()
            say("notice", "the TLS files have changed and are used for new connections")

    def _refuse(self, text: str) -> None:
        self._fleet.reloads["refused"] += 1
        say("error", text)
        self._close_sockets(keep={*_addresses(self._target), *_addresses(self._good or self._target)})

    def _tell(self, message: ToWorker) -> None:
        for worker in self._workers():
            worker.send(message)

    def _note_certificate(self) -> None:
        tls = self._target.tls
        # The file was good when it was checked, and may be half replaced by now. That must not stop the service: the
        # workers have their certificate, and a new one is noted when it has been checked in its turn.
        with suppress(TlsUnusable):
            self._fleet.certificate_expires = None if tls is None else certificate_expiry(tls).timestamp()

    # ---- ending

    def _stop(self, now: float) -> None:
        if not self._stopping:
            self._stopping = True
            notify("STOPPING=1")
            timeout = self._target.server.drain_timeout_s
            say("notice", f"stopping: running requests have {timeout:g} s to end")
            self._close_sockets(keep=())
            for place in self._places:
                for worker in (place.current, place.successor):
                    if worker is not None:
                        self._dismiss(worker, now)
            self._places.clear()
        if self._stop_signals > 1:
            self._kill_all()

    def _finished(self) -> bool:
        now = time.monotonic()
        return self._stopping and not self._leaving and self._sealer.ended(now) and self._outlets.ended(now)

    def _kill_all(self) -> None:
        for worker in self._workers():
            worker.process.kill()
        self._sealer.kill()
        self._outlets.kill()

    def _close_sockets(self, *, keep: Iterable[Address]) -> None:
        for address in self._sockets.keys() - set(keep):
            for sock in self._sockets.pop(address):
                sock.close()

    def _close_metrics(self) -> None:
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None


def _is_loopback(address: Address) -> bool:
    try:
        return ip_address(address.host).is_loopback
    except ValueError:
        return address.host == "localhost"


def _addresses(configuration: Configuration) -> set[Address]:
    server = configuration.server
    return {address for address in (server.listen, server.health_listen) if address is not None}


def _metrics_tls(configuration: Configuration) -> ssl.SSLContext | None:
    """Raises TlsUnusable."""
    return None if configuration.metrics_tls is None else build_context(configuration.metrics_tls, now=_utc_now)


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _now() -> float:
    return _utc_now().timestamp()
