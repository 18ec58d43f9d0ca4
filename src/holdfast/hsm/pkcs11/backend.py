"""An HSM behind a PKCS#11 module: the one implementation of `holdfast.hsm.port.Hsm`."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Thread
from time import monotonic
from typing import Final, TypeVar

from holdfast.hsm.faults import HsmBusy, HsmFault, HsmUnavailable, LoginRefused, ModuleFailed
from holdfast.hsm.pkcs11 import ckr
from holdfast.hsm.pkcs11.connection import Connection
from holdfast.hsm.pkcs11.cryptoki import CkrError
from holdfast.hsm.pkcs11.health import RETRY, HealthMonitor
from holdfast.hsm.pkcs11.iv import IvGuard
from holdfast.hsm.pkcs11.module import Module
from holdfast.hsm.pkcs11.pool.breaker import Breaker
from holdfast.hsm.pkcs11.pool.crew import Crew
from holdfast.hsm.pkcs11.pool.dispatcher import Dispatcher
from holdfast.hsm.pkcs11.pool.handover import Handover
from holdfast.hsm.pkcs11.profile import profile_of
from holdfast.hsm.pkcs11.session import Session, fault_of
from holdfast.hsm.pkcs11.token import TokenMissing
from holdfast.hsm.port import CanaryKeeper, HsmGauges, HsmHealth, KeyLocator, KeySession, Timing
from holdfast.hsm.settings import HsmSettings
from holdfast.xks.aad import AadFraming
from holdfast.xks.types import HealthStatus

T = TypeVar("T")

_OWN_SESSIONS: Final = 2
"""The anchor session and the probe's."""
_LAST_CALLS: Final = 2.0
_LOOK_AGAIN: Final = 0.25
_STRANDED: Final = 10.0


@dataclass(frozen=True, slots=True)
class _Started:
    connection: Connection
    breaker: Breaker
    crew: Crew
    dispatcher: Dispatcher
    monitor: HealthMonitor


class Pkcs11Hsm:
    """One HSM in one worker process. `run` belongs to the event loop; everything else may be called anywhere.

    `wait_for_token` in seconds: how long `start` waits for a token that is not there yet (a card, a service).
    `canaries` keeps those of keys that were registered without one. `key_stopped` gets each key that this process has
    stopped for an unsafe IV, and why; it is called on an HSM thread and must not block.
    """

    def __init__(
        self,
        settings: HsmSettings,
        *,
        wait_for_token: float = 10.0,
        canaries: CanaryKeeper | None = None,
        key_stopped: Callable[[KeyLocator, str], None] | None = None,
    ) -> None:
        self._settings = settings
        self._profile = profile_of(settings)
        self._wait_for_token = wait_for_token
        self._started: _Started | None = None
        self._absence = "the HSM has not been started, or was stopped"
        self._login_refusal = ""
        self._stopping = Event()
        self._starter: Thread | None = None
        self._guard = IvGuard(key_stopped)
        self._canaries = canaries

    @property
    def aad_framing(self) -> AadFraming:
        """How Encrypt frames the AAD for this HSM."""
        return self._profile.aad_framing

    def start(self) -> None:
        """As `Hsm.start`."""
        settings = self._settings
        try:
            module = Module.acquire(settings.library, self._profile.environment, settings.initialize_string)
        except CkrError as error:
            fault = fault_of(error)
            raise HsmUnavailable(f"{fault.message}. {self._profile.set_up}", cause=fault.cause) from None
        try:
            connection = Connection(module, self._settings, self._profile, self._guard, self._canaries)
            self._connect(connection)
            self._serve(connection)
        except BaseException:
            module.release()
            raise

    def start_when_back(self, fault: HsmFault) -> None:
        """Be unavailable for the reason of `fault`, which `start` has raised, and try again until it succeeds."""
        self._absence = fault.message
        self._starter = Thread(target=self._start_again, name="holdfast-start", daemon=True)
        self._starter.start()

    def _start_again(self) -> None:
        self._wait_for_token = 0.0
        while not self._stopping.wait(RETRY):
            try:
                self.start()
            except LoginRefused as fault:
                self._absence = self._login_refusal = fault.message
                return  # tokens lock after a few attempts
            except HsmFault as fault:
                self._absence = fault.message
            else:
                return

    def _connect(self, connection: Connection) -> None:
        until = monotonic() + self._wait_for_token
        while True:
            try:
                connection.ensure()
            except TokenMissing as missing:
                if monotonic() >= until or self._stopping.is_set():
                    raise ModuleFailed(missing.message) from None
                Event().wait(_LOOK_AGAIN)
            except CkrError as error:
                fault = fault_of(error)
                raise HsmUnavailable(f"{fault.message}. {ckr.advice(error.ckr)}", cause=fault.cause) from None
            else:
                return

    def _serve(self, connection: Connection) -> None:
        token = connection.token
        limit = None if token is None else token.max_sessions
        spare = 2 * self._settings.sessions if limit is None else max(1, limit - _OWN_SESSIONS)
        breaker = Breaker()

        def open_session() -> Session:
            return Session(connection, breaker.suspect, self._guard)

        handover = Handover()
        crew = Crew(connection.module, handover, breaker, open_session=open_session, max_threads=spare)
        dispatcher = Dispatcher(
            handover, limit=self._settings.queue, live=lambda: crew.live, quarantine=crew.quarantine
        )
        monitor = HealthMonitor(connection, breaker, crew, interval=self._settings.probe_interval_s)
        sessions = self._sessions(open_session, min(self._settings.sessions, spare))
        if len(sessions) < self._settings.sessions:
            monitor.reduced = f"the token gave {len(sessions)} of the {self._settings.sessions} sessions configured"
        crew.grow(sessions)
        monitor.start()
        connection.module.is_well(connection)
        self._started = _Started(connection, breaker, crew, dispatcher, monitor)

    def _sessions(self, open_session: Callable[[], Session], wanted: int) -> list[Session]:
        """As many open sessions as the token gives, leaving one for the probe. Raises HsmFault if it gives none."""
        sessions: list[Session] = []
        for _ in range(wanted + 1):
            session = open_session()
            try:
                session.prepare()
            except HsmBusy:
                if not sessions:
                    raise
                break
            sessions.append(session)
        if len(sessions) > 1:
            sessions.pop().close()
        return sessions

    async def run(self, work: Callable[[KeySession], T], *, deadline: float, timing: Timing) -> T:
        """As `Hsm.run`."""
        started = self._started
        if started is None:
            raise HsmUnavailable(self._absence)
        started.connection.cryptoki.refuse_in_a_fork()
        started.breaker.check()
        job = started.dispatcher.admit(work, deadline=deadline, timing=timing)
        try:
            result: T = await job.future
        except asyncio.CancelledError:
            job.expire()
            raise
        return result

    def health(self) -> HsmHealth:
        """As `Hsm.health`."""
        if self._started is None:
            name, vendor = self._settings.name, self._profile.name
            return HsmHealth(name, vendor, vendor, HealthStatus.UNAVAILABLE, self._absence, None)
        connection, monitor = self._started.connection, self._started.monitor
        status, reason = monitor.judgement()
        token = connection.token
        assert token is not None  # noqa: S101 (start has connected)
        return HsmHealth(
            token.serial or self._settings.name,
            token.manufacturer or self._profile.name,
            f"{token.model or self._profile.name} {token.firmware} {token.serial}".strip(),
            status,
            reason,
            monitor.checked_at,
        )

    def gauges(self) -> HsmGauges:
        """As `Hsm.gauges`."""
        if self._started is None:
            return HsmGauges(0, 0, 0, 0, breaker_open=True, module_epoch=0, encryptions=0, decryptions=0)
        started, crew = self._started, self._started.crew
        encryptions, decryptions = crew.counts()
        return HsmGauges(
            sessions=crew.live,
            sessions_in_use=crew.in_use,
            quarantined=crew.quarantined,
            queue_length=len(crew.handover.queue),
            breaker_open=started.breaker.refusal is not None,
            module_epoch=started.connection.module.epoch,
            encryptions=encryptions,
            decryptions=decryptions,
        )

    def reload_keys(self) -> None:
        """As `Hsm.reload_keys`."""
        if self._started is not None:
            self._started.monitor.request_reload()

    def is_stranded(self) -> bool:
        """Whether only a new process can reach the HSM: every thread that might is in a call that does not return."""
        return self._started is not None and self._started.monitor.blocked_for > _STRANDED

    def stopped_keys(self) -> dict[KeyLocator, str]:
        """The keys that do not encrypt any more because one of their IVs was unsafe, each with the reason."""
        return self._guard.stopped.copy()

    def stop_key(self, key: KeyLocator, reason: str) -> None:
        """The key does not encrypt any more: another worker has seen an unsafe IV."""
        self._guard.stopped.setdefault(key, reason)

    def retain_keys(self, is_registered: Callable[[KeyLocator], bool]) -> None:
        """Stop watching keys that are not registered any more, or not with this canary."""
        if self._started is not None:
            connection = self._started.connection
            connection.handles.retain(lambda key: key == connection.health_key or is_registered(key))

    def release_key(self, key: KeyLocator) -> None:
        """Forget a stop that the catalog has taken over: from now on the catalog decides."""
        self._guard.stopped.pop(key, None)

    def untrusted_keys(self) -> dict[KeyLocator, str]:
        """The keys that are refused (not the registered ones, or they may leave the HSM), each with the reason."""
        return {} if self._started is None else self._started.connection.handles.untrusted

    def alarms(self) -> tuple[str, ...]:
        """What a person must act on, in sentences."""
        refusal = None if self._started is None else self._started.breaker.refusal
        login = refusal.message if isinstance(refusal, LoginRefused) else self._login_refusal
        sentences = [f"no key works until this service is restarted: {login}"] if login else []
        return tuple(
            f"ALARM: HSM {self._settings.name}: {text}" for text in (*sentences, *self.untrusted_keys().values())
        )

    def token_serial(self) -> str:
        """The serial number of the token in use; empty where it has none, or before `start`."""
        token = None if self._started is None else self._started.connection.token
        return "" if token is None else token.serial

    def stop(self) -> None:
        """As `Hsm.stop`. Takes up to a few seconds if a C_ call does not return."""
        self._stopping.set()
        if self._starter is not None:
            self._starter.join(_LAST_CALLS)
        if self._started is None:
            return
        started = self._started
        started.breaker.open(HsmUnavailable("the proxy is stopping"), for_good=True)
        started.crew.stop(_LAST_CALLS)
        started.monitor.stop(_LAST_CALLS)
        self._started = None
        with suppress(HsmFault):
            started.connection.disconnect()
        started.connection.module.release()
