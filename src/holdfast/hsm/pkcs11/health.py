"""The background probe: what it finds is the HSM's health, and it brings a lost HSM back."""

from queue import SimpleQueue
from threading import Event, Lock, Thread
from time import monotonic
from typing import Final

from holdfast.hsm.faults import HsmBusy, HsmFault, HsmUnavailable, LoginRefused, ModuleFailed
from holdfast.hsm.pkcs11.connection import Connection
from holdfast.hsm.pkcs11.pool.breaker import Breaker
from holdfast.hsm.pkcs11.pool.crew import Crew
from holdfast.hsm.pkcs11.prober import Prober
from holdfast.xks.types import HealthStatus

RETRY: Final = 0.25
"""Seconds between probes while the HSM is unhealthy: service resumes well within a second of its return."""
_SPACING: Final = 0.05
"""Seconds between probes at least, however many requests fail."""
SILENCE: Final = 1.0
"""Seconds without an answer to the probe, after which the HSM counts as unavailable."""
SLOW: Final = 0.2
"""Seconds for one encryption and decryption: Holdfast's default deadline."""
RECENT: Final = 60.0
"""Seconds for which an error shows in the health."""
_PROBERS: Final = 3


class _Attempt:
    """One probe on its way through a prober thread; `reason` is empty if the HSM is well."""

    def __init__(self, *, reload: bool) -> None:
        self.reload = reload
        self.finished = Event()
        self.fault: HsmFault | None = None
        self.remark = ""
        self.seconds = 0.0


class HealthMonitor:
    """One thread that waits and judges, and up to three that call the HSM, because such a call may hang."""

    def __init__(self, connection: Connection, breaker: Breaker, crew: Crew, *, interval: float) -> None:
        self.status = HealthStatus.ACTIVE
        self.reason = ""
        self.reduced = ""
        self.checked_at: float | None = monotonic()  # `start` has just probed the IV
        self._connection = connection
        self._breaker = breaker
        self._crew = crew
        self._interval = interval
        self._blocked_since: float | None = None
        self._stopped = Event()
        self._reload = False
        self._jobs: SimpleQueue[_Attempt | None] = SimpleQueue()
        self._idle = 0
        self._probers: list[Thread] = []
        self._lock = Lock()
        self._thread = Thread(target=self._watch, name="holdfast-health", daemon=True)

    def start(self) -> None:
        """Start watching; the HSM is known to be well."""
        self._thread.start()

    def stop(self, patience: float) -> None:
        """End the threads; at most `patience` seconds."""
        self._stopped.set()
        self._breaker.doubt.set()
        until = monotonic() + patience
        self._thread.join(patience)
        for _ in self._probers:
            self._jobs.put(None)
        for prober in self._probers:
            prober.join(max(0.0, until - monotonic()))

    def request_reload(self) -> None:
        """Initialize the module again as soon as no call is inside it."""
        self._reload = True
        self._breaker.doubt.set()

    def judgement(self) -> tuple[HealthStatus, str]:
        """The latest probe, and what the crew shows now."""
        stopped = len(self._connection.guard.stopped)
        untrusted = len(self._connection.handles.untrusted)
        if self.status is HealthStatus.UNAVAILABLE or (
            self.status is HealthStatus.DEGRADED and not (stopped or untrusted)
        ):
            return self.status, self.reason
        if self._breaker.refusal is not None:
            return HealthStatus.UNAVAILABLE, self._breaker.refusal.message
        defect = self._defect(stopped, untrusted)
        return (HealthStatus.DEGRADED if defect else HealthStatus.ACTIVE), defect

    def _defect(self, stopped: int, untrusted: int) -> str:
        """What is wrong with an HSM that answers its probe, or nothing."""
        if untrusted:
            return (
                f"keys that are refused, because they are not the registered ones or may leave the HSM: {untrusted}"
            )
        if stopped:
            return f"keys that do not encrypt any more, because one of their IVs was unsafe: {stopped}"
        if self._crew.quarantined:
            return f"{self._crew.quarantined} sessions wait for a call that does not return"
        if self.reduced:
            return self.reduced
        last_error = self._breaker.last_error
        if last_error is not None and monotonic() - last_error[0] < RECENT:
            return f"an error in the last minute: {last_error[1]}"
        return ""

    @property
    def blocked_for(self) -> float:
        """Seconds for which no probe could begin, because every prober is in a call that does not return."""
        since = self._blocked_since
        return 0.0 if since is None else monotonic() - since

    # ---- the thread that waits

    def _watch(self) -> None:
        while not self._stopped.is_set():
            healthy = self.status is not HealthStatus.UNAVAILABLE and self._breaker.refusal is None
            self._breaker.doubt.wait(self._interval if healthy else min(RETRY, self._interval))
            if self._stopped.is_set():
                return
            self._breaker.doubt.clear()
            began = monotonic()
            self._probe()
            pause = _SPACING - (monotonic() - began)
            if pause > 0 and not self._stopped.is_set():
                self._stopped.wait(pause)

    def _probe(self) -> None:
        reload, self._reload = self._reload, False
        attempt = _Attempt(reload=reload)
        if not self._submit(attempt):
            self._reload = reload
            self._blocked_since = self._blocked_since or monotonic()
            self._judge_silence()
            return
        self._blocked_since = None
        if attempt.finished.wait(SILENCE):
            self._judge(attempt)
        else:
            self._judge_silence()

    def _submit(self, attempt: _Attempt) -> bool:
        """Whether a prober takes it: all of them may hang in calls."""
        with self._lock:
            if self._idle == 0:
                if len(self._probers) >= _PROBERS:
                    return False
                prober = Thread(target=self._serve, name="holdfast-probe", daemon=True)
                try:
                    prober.start()
                except RuntimeError:
                    return False  # the system gives no more threads, for now
                self._probers.append(prober)
                self._idle += 1
            self._idle -= 1
        self._jobs.put(attempt)
        return True

    def _judge(self, attempt: _Attempt) -> None:
        self.checked_at = monotonic()
        if isinstance(attempt.fault, HsmBusy) and self._crew.live > 0 and self._breaker.refusal is None:
            self.status, self.reason = HealthStatus.DEGRADED, f"no session for the probe: {attempt.fault.message}"
            return
        if attempt.fault is not None:
            self.status, self.reason = HealthStatus.UNAVAILABLE, attempt.fault.message
            refusal = LoginRefused if isinstance(attempt.fault, LoginRefused) else HsmUnavailable
            self._breaker.open(refusal(attempt.fault.message, cause=attempt.fault.cause))
            return
        self._breaker.close()
        self._crew.replace()
        self.status, self.reason = HealthStatus.ACTIVE, ""
        if attempt.remark:
            self.status, self.reason = HealthStatus.DEGRADED, attempt.remark
        elif attempt.seconds > SLOW:
            self.status = HealthStatus.DEGRADED
            self.reason = f"the probe took {attempt.seconds * 1000:.0f} ms; KMS waits 250 ms for the whole request"

    def _judge_silence(self) -> None:
        self.checked_at = monotonic()
        if self.checked_at - self._crew.handover.pace.last_answer < SILENCE and self._breaker.refusal is None:
            self.status, self.reason = HealthStatus.DEGRADED, "the probe does not return, other sessions do"
            return
        self.status = HealthStatus.UNAVAILABLE
        self.reason = f"the HSM has not answered the probe for {SILENCE:.0f} s"
        self._breaker.open(HsmUnavailable(self.reason))

    # ---- the threads that call the HSM

    def _serve(self) -> None:
        prober = Prober(self._connection)
        try:
            while (attempt := self._jobs.get()) is not None:
                began = monotonic()
                try:
                    attempt.remark = prober.probe(reload=attempt.reload)
                except HsmFault as fault:
                    attempt.fault = fault
                except Exception as error:  # noqa: BLE001 (without a prober the HSM would stay down)
                    attempt.fault = ModuleFailed(f"the probe itself failed: {type(error).__name__}")
                attempt.seconds = monotonic() - began
                with self._lock:
                    self._idle += 1
                attempt.finished.set()
                if attempt.seconds > SILENCE:
                    self._breaker.doubt.set()  # it hung and came back: probe again, now
        finally:
            prober.close()
