"""An HSM behind a PKCS#11 module: the one implementation of `holdfast.hsm.port.Hsm`."""

from collections.abc import Callable, Coroutine
from contextlib import suppress
from threading import Event, Thread
from time import monotonic
from typing import Any, Final, TypeVar

from holdfast.hsm.faults import HsmBusy, HsmFault, HsmUnavailable, LoginRefused, ModuleFailed
from holdfast.hsm.pkcs11 import ckr
from holdfast.hsm.pkcs11.connection import Connection
from holdfast.hsm.pkcs11.cryptoki import CkrError
from holdfast.hsm.pkcs11.health import RETRY, HealthMonitor
from holdfast.hsm.pkcs11.iv import IvGuard
from holdfast.hsm.pkcs11.module import Module
from holdfast.hsm.pkcs11.pool import Pool
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
        self._started: tuple[Connection, Pool, HealthMonitor] | None = None
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
        pool = Pool(
            connection.module,
            lambda: Session(connection, monitor.suspect, self._guard),
            queue=self._settings.queue,
            max_threads=spare,
            stuck=lambda reason: monitor.stuck(reason),  # noqa: PLW0108 (the monitor needs the pool first)
        )
        monitor = HealthMonitor(connection, pool, interval=self._settings.probe_interval_s)
        sessions = self._sessions(connection, monitor, min(self._settings.sessions, spare))
        if len(sessions) < self._settings.sessions:
            monitor.reduced = f"the token gave {len(sessions)} of the {self._settings.sessions} sessions configured"
        pool.grow(sessions)
        monitor.start()
        connection.module.is_well(connection)
        self._started = (connection, pool, monitor)

    def _sessions(self, connection: Connection, monitor: HealthMonitor, wanted: int) -> list[Session]:
        """As many open sessions as the token gives, leaving one for the probe. Raises HsmFault if it gives none."""
        sessions: list[Session] = []
        for _ in range(wanted + 1):
            session = Session(connection, monitor.suspect, self._guard)
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

    def run(self, work: Callable[[KeySession], T], *, deadline: float, timing: Timing) -> Coroutine[Any, Any, T]:
        """As `Hsm.run`."""
        return self._running()[1].run(work, deadline=deadline, timing=timing)

    def health(self) -> HsmHealth:
        """As `Hsm.health`."""
        if self._started is None:
            name, vendor = self._settings.name, self._profile.name
            return HsmHealth(name, vendor, vendor, HealthStatus.UNAVAILABLE, self._absence, None)
        connection, _, monitor = self._started
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
        connection, pool, _ = self._started
        encryptions, decryptions = pool.counts()
        return HsmGauges(
            sessions=pool.live,
            sessions_in_use=pool.in_use,
            quarantined=pool.quarantined,
            queue_length=len(pool.queue),
            breaker_open=pool.refusal is not None,
            module_epoch=connection.module.epoch,
            encryptions=encryptions,
            decryptions=decryptions,
        )

    def reload_keys(self) -> None:
        """As `Hsm.reload_keys`."""
        if self._started is not None:
            self._started[2].request_reload()

    def is_stranded(self) -> bool:
        """Whether only a new process can reach the HSM: every thread that might is in a call that does not return."""
        return self._started is not None and self._started[2].blocked_for > _STRANDED

    def stopped_keys(self) -> dict[KeyLocator, str]:
        """The keys that do not encrypt any more because one of their IVs was unsafe, each with the reason."""
        return self._guard.stopped.copy()

    def stop_key(self, key: KeyLocator, reason: str) -> None:
        """The key does not encrypt any more: another worker has seen an unsafe IV."""
        self._guard.stopped.setdefault(key, reason)

    def retain_keys(self, is_registered: Callable[[KeyLocator], bool]) -> None:
        """Stop watching keys that are not registered any more, or not with this canary."""
        if self._started is not None:
            connection = self._started[0]
            connection.handles.retain(lambda key: key == connection.health_key or is_registered(key))

    def release_key(self, key: KeyLocator) -> None:
        """Forget a stop that the catalog has taken over: from now on the catalog decides."""
        self._guard.stopped.pop(key, None)

    def untrusted_keys(self) -> dict[KeyLocator, str]:
        """The keys that are refused (not the registered ones, or they may leave the HSM), each with the reason."""
        return {} if self._started is None else self._started[0].handles.untrusted

    def alarms(self) -> tuple[str, ...]:
        """What a person must act on, in sentences."""
        refusal = None if self._started is None else self._started[1].refusal
        login = refusal.message if isinstance(refusal, LoginRefused) else self._login_refusal
        sentences = [f"no key works until this service is restarted: {login}"] if login else []
        return tuple(
            f"ALARM: HSM {self._settings.name}: {text}" for text in (*sentences, *self.untrusted_keys().values())
        )

    def token_serial(self) -> str:
        """The serial number of the token in use; empty where it has none, or before `start`."""
        token = None if self._started is None else self._started[0].token
        return "" if token is None else token.serial

    def stop(self) -> None:
        """As `Hsm.stop`. Takes up to a few seconds if a C_ call does not return."""
        self._stopping.set()
        if self._starter is not None:
            self._starter.join(_LAST_CALLS)
        if self._started is None:
            return
        connection, pool, monitor = self._started
        pool.stop(_LAST_CALLS)
        monitor.stop(_LAST_CALLS)
        self._started = None
        with suppress(HsmFault):
            connection.disconnect()
        connection.module.release()

    def _running(self) -> tuple[Connection, Pool, HealthMonitor]:
        if self._started is None:
            raise HsmUnavailable(self._absence)
        return self._started
