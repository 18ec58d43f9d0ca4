"""A thread whose only work is to call the HSM."""

from __future__ import annotations

from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING, Final

from holdfast.hsm.faults import HsmBusy, HsmFault
from holdfast.hsm.pkcs11.job_queue import Waiter

if TYPE_CHECKING:
    from holdfast.hsm.pkcs11.job import Job
    from holdfast.hsm.pkcs11.pool import Pool
    from holdfast.hsm.pkcs11.session import Session

_OPENING: Final = 5.0
"""Seconds that a new thread waits for a module that is being initialized again."""


class HsmThread:
    """One session's thread. `stuck` is the job whose deadline passed while it ran; the pool writes it."""

    def __init__(self, pool: Pool, session: Session) -> None:
        self.session = session
        self.job: Job | None = None
        self.stuck: Job | None = None
        self.is_ready = False
        self._waiter = Waiter()
        self._pool = pool
        self._module = pool.module
        self._presence = pool.module.presence()
        # A daemon: a call that never returns must not keep the process from ending.
        self._thread = Thread(target=self._serve, name="holdfast-hsm", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self, timeout: float) -> None:
        """Wait for its end; seconds."""
        self._thread.join(timeout)

    def _serve(self) -> None:
        pool = self._pool
        try:
            if not self._open() or not pool.ready(self):
                return
            while (job := pool.queue.take(self._waiter, before_sleep=pool.wake)) is not None:
                self._perform(job)
                del job  # it holds the last plaintext
                if self.stuck is not None and not self._come_back():
                    return
        finally:
            self._close()
            pool.ended(self)

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

    def _perform(self, job: Job) -> None:
        module, presence = self._module, self._presence
        if monotonic() >= job.deadline or not module.enter(presence, job.deadline):
            job.error = HsmBusy("no session came free before the deadline")
            self._pool.deliver(job)
            return
        try:
            # Written before `expired` is read; the loop does it the other way round.
            self.job = job
            job.thread = self
            work = job.work
            if job.expired or work is None:
                return
            job.started = monotonic()
            self.session.prepare()
            job.result = work(self.session)
        except BaseException as error:  # noqa: BLE001 (it belongs to the caller, whatever it is)
            job.error = error
        finally:
            module.leave(presence)
            self.job = None
        job.finished = finished = monotonic()
        if not job.expired:
            self._pool.learn(job.started, finished)
        self._pool.deliver(job)

    def _come_back(self) -> bool:
        module, presence = self._module, self._presence
        if module.enter(presence, monotonic() + _OPENING):
            try:
                self.session.verify()
            finally:
                module.leave(presence)
        return self._pool.returned(self)

    def _close(self) -> None:
        module, presence = self._module, self._presence
        if module.enter(presence, monotonic()):
            try:
                self.session.close()
            finally:
                module.leave(presence)
        module.forget(presence)
