"""The thread side: threads whose only work is to call the HSM, and how many of them there are."""

from collections.abc import Callable
from threading import Lock, Thread
from time import monotonic
from typing import Final

from holdfast.hsm.faults import HsmBusy, HsmFault, HsmTimeout, HsmUnavailable
from holdfast.hsm.pkcs11.module import Module
from holdfast.hsm.pkcs11.pool.breaker import Breaker
from holdfast.hsm.pkcs11.pool.handover import Handover, Job, Seat, Waiter
from holdfast.hsm.pkcs11.session import Session

_OPENING: Final = 5.0
"""Seconds that a new thread waits for a module that is being initialized again."""
_QUICK: Final = 0.0005
"""Seconds. A job that took less is handed back together with those that follow it, at most a tick later."""
_SPARE_FACTOR: Final = 2
"""Threads at most, per configured session: one stuck call each, and one to replace it."""


class Crew:
    """A thread for each session, and one more for each that is stuck, up to `max_threads`.

    `size` sessions shall serve, `live` ones do, `quarantined` ones wait for a call that is past its deadline.
    """

    def __init__(
        self,
        module: Module,
        handover: Handover,
        breaker: Breaker,
        *,
        open_session: Callable[[], Session],
        max_threads: int,
    ) -> None:
        self.module = module
        self.handover = handover
        self.size = 0
        self.live = 0
        self.quarantined = 0
        self._breaker = breaker
        self._open_session = open_session
        self._max_threads = max_threads
        self._threads: set[HsmThread] = set()
        self._ended_counts = (0, 0)
        self._stopping = False
        self._lock = Lock()

    def grow(self, sessions: list[Session]) -> None:
        """Start a thread for each open session; they are the full size."""
        self.size = len(sessions)
        for session in sessions:
            self._start(session)

    def replace(self) -> None:
        """Start threads for the quarantined and the ended ones, as far as the bound allows."""
        with self._lock:
            missing = self.size - (len(self._threads) - self.quarantined)
            room = min(self._max_threads, _SPARE_FACTOR * self.size) - len(self._threads)
            wanted = 0 if self._stopping else max(0, min(missing, room))
        for _ in range(wanted):
            self._start(self._open_session())

    def quarantine(self, seat: Seat, job: Job) -> None:
        """On the loop: the thread is late with the job, so it does not count until its call returns."""
        with self._lock:
            if not seat.stick(job):
                return
            self._count()
            all_stuck = self.quarantined >= self.size
        self._breaker.suspect(HsmTimeout("a C_ call did not return before the deadline"))
        if all_stuck:
            # As many stuck calls as sessions: it is the module. The probe says when it is back.
            self._breaker.open(HsmUnavailable("every session waited in vain for the HSM; the breaker is open"))
        else:
            self.replace()

    def stop(self, patience: float) -> None:
        """Let the threads end, which finish what is queued; at most `patience` seconds."""
        with self._lock:
            self._stopping = True
            threads = [thread for thread in self._threads if thread.is_alive()]
        self.handover.queue.close()
        until = monotonic() + patience
        for thread in threads:
            thread.join(max(0.0, until - monotonic()))

    @property
    def in_use(self) -> int:
        """Sessions with a job now, the quarantined included."""
        return sum(thread.job is not None for thread in tuple(self._threads))

    def counts(self) -> tuple[int, int]:
        """Encryptions and decryptions since the start."""
        with self._lock:
            encryptions, decryptions = self._ended_counts
            sessions = [thread.session for thread in self._threads]
        return (
            encryptions + sum(session.encryptions for session in sessions),
            decryptions + sum(session.decryptions for session in sessions),
        )

    def _start(self, session: Session) -> None:
        thread = HsmThread(self, session)
        with self._lock:
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:
            # The system gives no more threads: the next probe tries again, and no request waits for this one.
            self.ended(thread)

    def _count(self) -> None:
        """After each change of a thread's state, with the lock held."""
        self.quarantined = sum(thread.stuck is not None for thread in self._threads)
        self.live = sum(thread.serves and thread.stuck is None for thread in self._threads)

    # ---- told by a thread of itself

    def opened(self, thread: "HsmThread") -> bool:
        """It has its session; whether it is wanted still."""
        with self._lock:
            if self._stopping or self.live >= self.size:
                return False
            thread.serves = True
            self._count()
            return True

    def returned(self, thread: "HsmThread") -> bool:
        """Its stuck call has returned; whether it is wanted still, or was replaced for good."""
        with self._lock:
            thread.stuck = None
            self._count()
            return self.live <= self.size and not self._stopping

    def ended(self, thread: "HsmThread") -> None:
        """It is gone."""
        with self._lock:
            self._threads.discard(thread)
            encryptions, decryptions = self._ended_counts
            session = thread.session
            self._ended_counts = (encryptions + session.encryptions, decryptions + session.decryptions)
            self._count()


class HsmThread(Thread, Seat):
    """One session's thread. A daemon: a call that never returns must not keep the process from ending."""

    def __init__(self, crew: Crew, session: Session) -> None:
        Thread.__init__(self, name="holdfast-hsm", daemon=True)
        Seat.__init__(self)
        self.session = session
        self.serves = False
        self._crew = crew
        self._waiter = Waiter()
        self._module = crew.module
        self._presence = crew.module.presence()

    def run(self) -> None:
        """The thread's life."""
        outbox, queue = self._crew.handover.outbox, self._crew.handover.queue
        try:
            if not self._open() or not self._crew.opened(self):
                return
            while (job := queue.take(self._waiter, before_sleep=outbox.flush)) is not None:
                stuck = self._perform(job)
                del job  # it holds the last plaintext
                if stuck and not self._come_back():
                    return
        finally:
            self._close()
            self._crew.ended(self)

    def _open(self) -> bool:
        module, presence = self._module, self._presence
        if not module.enter(presence, monotonic() + _OPENING):
            return False
        try:
            self.session.prepare()
        except HsmFault:
            return False
        finally:
            module.leave(presence)
        return True

    def _perform(self, job: Job) -> bool:
        """Do the job and hand it back; whether it was given up meanwhile, and this thread with it."""
        module, presence = self._module, self._presence
        if monotonic() >= job.deadline or not module.enter(presence, job.deadline):
            job.error = HsmBusy("no session came free before the deadline")
            self._deliver(job)
            return False
        work = self.take(job)
        try:
            if work is not None:
                job.started = monotonic()
                self.session.prepare()
                job.result = work(self.session)
        except BaseException as error:  # noqa: BLE001 (it belongs to the caller, whatever it is)
            job.error = error
        finally:
            module.leave(presence)
        stuck = self.leave()
        if work is not None:
            job.finished = monotonic()
            if not job.expired:
                self._crew.handover.pace.learn(job.started, job.finished)
            self._deliver(job)
        return stuck

    def _deliver(self, job: Job) -> None:
        """Hand a finished job back, and wake the loop unless the next one will follow at once."""
        handover = self._crew.handover
        handover.outbox.put(job)
        if job.finished - job.started > _QUICK or not handover.queue:
            handover.outbox.flush()

    def _come_back(self) -> bool:
        module, presence = self._module, self._presence
        if module.enter(presence, monotonic() + _OPENING):
            try:
                self.session.verify()
            finally:
                module.leave(presence)
        return self._crew.returned(self)

    def _close(self) -> None:
        module, presence = self._module, self._presence
        if module.enter(presence, monotonic()):
            try:
                self.session.close()
            finally:
                module.leave(presence)
        module.forget(presence)
