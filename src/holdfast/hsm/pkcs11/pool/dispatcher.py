"""The loop side: who is admitted, who is late, and who gets the result. Every method belongs to the event loop."""

import asyncio
import heapq
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from time import monotonic
from typing import Any, Final

from holdfast.hsm.faults import HsmBusy, HsmFault, HsmTimeout, HsmUnavailable
from holdfast.hsm.pkcs11.pool.handover import Handover, Job, Seat
from holdfast.hsm.port import KeySession, Timing

_SLACK: Final = 0.2
"""Part of the time left that stays for what no prediction holds: the turns of the loop and of the threads."""
_HEAP_SLACK: Final = 1024
_TICK: Final = 0.002
_WORTH_WAKING: Final = 0.001
"""Seconds of waiting work for which one more thread is woken."""


class Dispatcher:
    """`limit` jobs may wait. `live` sessions serve. `quarantine` gets a thread that is late, and its job."""

    def __init__(
        self,
        handover: Handover,
        *,
        limit: int,
        live: Callable[[], int],
        quarantine: Callable[[Seat, Job], None],
    ) -> None:
        self._queue = handover.queue
        self._outbox = handover.outbox
        self._pace = handover.pace
        self._limit = limit
        self._live = live
        self._quarantine = quarantine
        self._sequence = count()
        self._loop: asyncio.AbstractEventLoop | None = None

    def admit(self, work: Callable[[KeySession], Any], *, deadline: float, timing: Timing) -> Job:
        """A job whose future will have the result of `work`, or the fault. Raises HsmFault if it is known now."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._attach(loop)
        live = self._live()
        if live <= 0:
            raise HsmUnavailable("every session waits for a C_ call that does not return")
        waiting = len(self._queue) + len(self._batch)
        if waiting >= self._limit:
            raise HsmBusy(f"{waiting} requests wait for the HSM already, and the queue holds no more")
        now = monotonic()
        if now >= deadline:
            raise HsmBusy("the deadline passed before the HSM was asked")
        if waiting:
            # Every session is busy, else no job would wait: a turn for the running jobs, one for each full
            # round of the queue, and one for this job.
            wait = self._pace.typical * (2 + waiting / live)
            if now + wait > deadline - _SLACK * (deadline - now):
                raise HsmBusy(f"{waiting} requests wait for the HSM, and the deadline would pass in the queue")
        job = Job(work, deadline=deadline, timing=timing, future=loop.create_future(), enqueued=now)
        heapq.heappush(self._deadlines, (deadline, next(self._sequence), job))
        self._outstanding += 1
        if self._timer is None or deadline < self._timer_at:
            self._arm(loop, deadline)
        self._batch.append(job)
        if len(self._batch) == 1:
            loop.call_soon(self._hand_over, loop)
        return job

    def _attach(self, loop: asyncio.AbstractEventLoop) -> None:
        def wake() -> None:
            with suppress(RuntimeError):  # the loop was closed: no request waits any more
                loop.call_soon_threadsafe(self._drain)

        self._outbox.attach(wake)
        self._loop = loop
        self._deadlines: list[tuple[float, int, Job]] = []
        self._outstanding = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._batch: list[Job] = []
        self._ticking = False

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give the threads what one turn of the loop has admitted; while jobs run, look at them every 2 ms.

        A thread that wakes takes the GIL from the loop: one by one, each request would cost several switches.
        """
        batch, self._batch = self._batch, []
        waiting = (len(self._queue) + len(batch)) * self._pace.typical
        self._queue.put(batch, wake=min(len(batch), 1 + int(waiting / _WORTH_WAKING)))
        if not self._ticking:
            self._ticking = True
            loop.call_later(_TICK, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._drain()
        if self._queue and monotonic() - self._pace.last_answer > _TICK:
            # The HSM is slower than it was, or a call hangs: one thread is not enough for what waits.
            self._queue.wake(len(self._queue))
        self._ticking = self._outstanding > 0
        if self._ticking:
            loop.call_later(_TICK, self._tick, loop)

    def _drain(self) -> None:
        """Hand back what the threads have finished; one wake-up serves many."""
        now = monotonic()
        for job in self._outbox.take_all():
            if job.settled:
                continue
            if now > job.deadline and job.started:
                # Never a late answer: KMS has given up, or is about to.
                self._settle(job, error=HsmTimeout("the HSM's answer came after the deadline"), now=now)
            else:
                self._settle(job, error=job.error, now=now)
        if len(self._deadlines) > _HEAP_SLACK + 2 * self._outstanding:
            self._deadlines = [entry for entry in self._deadlines if not entry[2].settled]
            heapq.heapify(self._deadlines)

    def _arm(self, loop: asyncio.AbstractEventLoop, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = loop.call_later(max(0.0, deadline - monotonic()), self._expire, loop)

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer every job whose deadline has passed, then wait for the next one."""
        self._timer = None
        now = monotonic()
        heap = self._deadlines
        while heap:
            deadline, _, job = heap[0]
            if not job.settled and deadline > now:
                self._arm(loop, deadline)
                return
            heapq.heappop(heap)
            if not job.settled:
                self._answer_late(job, now)

    def _answer_late(self, job: Job, now: float) -> None:
        seat = job.expire()
        if seat is None:
            self._settle(job, error=self._never_began(job), now=now)
        else:
            self._settle(job, error=HsmTimeout("the HSM did not answer before the deadline"), now=now)
            self._quarantine(seat, job)

    def _never_began(self, job: Job) -> HsmFault:
        if self._pace.last_answer < job.enqueued:
            # Not too many requests, but an HSM that hangs: KMS gets a different error for each.
            return HsmTimeout("no C_ call returned while this request waited for a session")
        return HsmBusy("no session came free before the deadline")

    def _settle(self, job: Job, *, error: BaseException | None, now: float) -> None:
        self._outstanding -= 1
        job.settled = True
        future, timing, started = job.future, job.timing, job.started
        timing.queue = (started or now) - job.enqueued
        timing.hsm = (job.finished or now) - started if started else 0.0
        if not future.done():
            if error is None:
                future.set_result(job.result)
            else:
                future.set_exception(error)
        job.forget()
