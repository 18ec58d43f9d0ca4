"""HSM threads behind one bounded queue: who is admitted, who is late, and what a stuck call costs."""

import asyncio
import heapq
import os
from collections import deque
from collections.abc import Callable
from itertools import count
from threading import Lock
from time import monotonic
from typing import Any, Final, TypeVar

from holdfast.hsm.faults import HsmBusy, HsmFault, HsmTimeout, HsmUnavailable, ModuleFailed
from holdfast.hsm.pkcs11.hsm_thread import HsmThread
from holdfast.hsm.pkcs11.job import Job
from holdfast.hsm.pkcs11.job_queue import JobQueue
from holdfast.hsm.pkcs11.module import Module
from holdfast.hsm.pkcs11.session import Session
from holdfast.hsm.port import KeySession, Timing

T = TypeVar("T")

_MEASURED: Final = 15
"""Jobs whose median predicts the next one: a machine that stalled during one of them does not count as a slow HSM."""
_FIRST_GUESS: Final = 0.001
_SLACK: Final = 0.2
"""Part of the time left that stays for what no prediction holds: the turns of the loop and of the threads."""
_SPARE_FACTOR: Final = 2
"""Threads at most, per configured session: one stuck call each, and one to replace it."""
_HEAP_SLACK: Final = 1024
_TICK: Final = 0.002
_WORTH_WAKING: Final = 0.001
"""Seconds of waiting work for which one more thread is woken."""
_QUICK: Final = 0.0005
"""Seconds. A job that took less is handed back together with those that follow it, at most a tick later."""


class Pool:
    """`size` threads with a session each. `run` belongs to the event loop; `max_threads` bounds replacements.

    Between the loop and a thread there is no lock: each writes its field before it reads the other's
    (`Job.expired` and `Job.thread`), so that at least one of them sees that a job is late.
    """

    def __init__(
        self,
        module: Module,
        open_session: Callable[[], Session],
        *,
        queue: int,
        max_threads: int,
        stuck: Callable[[str], None],
    ) -> None:
        self.module = module
        self.queue = JobQueue()
        self.typical = _FIRST_GUESS
        self._measured: deque[float] = deque(maxlen=_MEASURED)
        self.last_answer = 0.0
        self.refusal: HsmFault | None = None
        self._open_session = open_session
        self._queue_limit = queue
        self._max_threads = max_threads
        self._stuck = stuck
        self._pid = os.getpid()
        self._size = 0
        self._lock = Lock()
        self._threads: set[HsmThread] = set()
        self._quarantined = 0
        self._ready = 0
        self._ended_counts = [0, 0]
        self._stopping = False
        # What belongs to the event loop.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._deadlines: list[tuple[float, int, Job]] = []
        self._sequence = count()
        self._outstanding = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._batch: list[Job] = []
        self._ticking = False
        self._done: deque[Job] = deque()
        self._waking = False

    # ---- on the event loop

    async def run(self, work: Callable[[KeySession], T], *, deadline: float, timing: Timing) -> T:
        """As `Hsm.run`."""
        job = self._admit(work, deadline, timing)
        try:
            result: T = await job.future
        except asyncio.CancelledError:
            job.expired = True
            raise
        return result

    def _admit(self, work: Callable[[KeySession], Any], deadline: float, timing: Timing) -> Job:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._attach(loop)
        now = monotonic()
        self._require_serving()
        waiting = len(self.queue) + len(self._batch)
        if waiting >= self._queue_limit:
            raise HsmBusy(f"{waiting} requests wait for the HSM already, and the queue holds no more")
        if now >= deadline:
            raise HsmBusy("the deadline passed before the HSM was asked")
        if waiting:
            # Every session is busy, else no job would wait: a turn for the running jobs, one for each full
            # round of the queue, and one for this job.
            wait = self.typical * (2 + waiting / max(1, self._ready - self._quarantined))
            if now + wait > deadline - _SLACK * (deadline - now):
                raise HsmBusy(f"{waiting} requests wait for the HSM, and the deadline would pass in the queue")
        job = Job(work, deadline, timing, loop.create_future(), now)
        heapq.heappush(self._deadlines, (deadline, next(self._sequence), job))
        self._outstanding += 1
        if self._timer is None or deadline < self._timer_at:
            self._arm(loop, deadline, now)
        self._batch.append(job)
        if len(self._batch) == 1:
            loop.call_soon(self._hand_over)
        return job

    def _hand_over(self) -> None:
        """Give the threads what one turn of the loop has admitted; while jobs run, look at them every 2 ms.

        A thread that wakes takes the GIL from the loop: one by one, each request would cost several switches.
        """
        batch, self._batch = self._batch, []
        waiting = (len(self.queue) + len(batch)) * self.typical
        self.queue.put(batch, wake=min(len(batch), 1 + int(waiting / _WORTH_WAKING)))
        if not self._ticking and self._loop is not None:
            self._ticking = True
            self._loop.call_later(_TICK, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        if self._done:
            self._drain()
        if self.queue and monotonic() - self.last_answer > _TICK:
            # The HSM is slower than it was, or a call hangs: one thread is not enough for what waits.
            self.queue.wake(len(self.queue))
        if self._outstanding and self._loop is not None:
            self._ticking = True
            self._loop.call_later(_TICK, self._tick)

    def _require_serving(self) -> None:
        if os.getpid() != self._pid:
            raise ModuleFailed("this process was forked after the HSM was started; start the HSM in the worker")
        if self.refusal is not None:
            raise type(self.refusal)(self.refusal.message, cause=self.refusal.cause)
        if self._ready <= self._quarantined:
            raise HsmUnavailable("every session waits for a C_ call that does not return")

    def _attach(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._deadlines = []
        self._outstanding = 0
        self._timer = None
        self._batch = []
        self._ticking = False
        self._done = deque()
        self._waking = False

    def _arm(self, loop: asyncio.AbstractEventLoop, deadline: float, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = loop.call_later(max(0.0, deadline - now), self._expire)

    def _expire(self) -> None:
        """Answer every job whose deadline has passed, then wait for the next one."""
        self._timer = None
        now = monotonic()
        heap = self._deadlines
        while heap:
            deadline, _, job = heap[0]
            if job.future_done:
                heapq.heappop(heap)
                continue
            if deadline > now:
                assert self._loop is not None  # noqa: S101 (a job has been admitted)
                self._arm(self._loop, deadline, now)
                return
            heapq.heappop(heap)
            self._answer_late(job, now)

    def _answer_late(self, job: Job, now: float) -> None:
        job.expired = True
        thread = job.thread
        if thread is None:
            self._settle(job, error=self._never_began(job), now=now)
            return
        self._settle(job, error=HsmTimeout("the HSM did not answer before the deadline"), now=now)
        self._quarantine(thread, job)

    def _never_began(self, job: Job) -> HsmFault:
        if self.last_answer < job.enqueued:
            # Not too many requests, but an HSM that hangs: KMS gets a different error for each.
            return HsmTimeout("no C_ call returned while this request waited for a session")
        return HsmBusy("no session came free before the deadline")

    def _settle(self, job: Job, *, error: BaseException | None, now: float) -> None:
        self._outstanding -= 1
        job.future_done = True
        future, timing, started = job.future, job.timing, job.started
        timing.queue = (started or now) - job.enqueued
        timing.hsm = (job.finished or now) - started if started else 0.0
        if not future.done():
            if error is None:
                future.set_result(job.result)
            else:
                future.set_exception(error)
        job.forget()

    def _drain(self) -> None:
        """Hand back what the threads have finished; one wake-up serves many."""
        self._waking = False
        now = monotonic()
        done = self._done
        while done:
            job = done.popleft()
            if job.future_done:
                continue
            if now > job.deadline and job.started:
                # Never a late answer: KMS has given up, or is about to.
                self._settle(job, error=HsmTimeout("the HSM's answer came after the deadline"), now=now)
            else:
                self._settle(job, error=job.error, now=now)
        if len(self._deadlines) > _HEAP_SLACK + 2 * self._outstanding:
            self._deadlines = [entry for entry in self._deadlines if not entry[2].future_done]
            heapq.heapify(self._deadlines)

    # ---- called by the HSM threads

    def deliver(self, job: Job) -> None:
        """Queue a finished job for the loop, and wake it unless the next one will follow at once."""
        self._done.append(job)
        if job.finished - job.started > _QUICK or not self.queue:
            self.wake()

    def wake(self) -> None:
        """Have the loop hand back what is finished, unless it is about to."""
        if self._done and not self._waking:
            self._waking = True
            loop = self._loop
            try:
                if loop is not None:
                    loop.call_soon_threadsafe(self._drain)
            except RuntimeError:
                return  # the loop was closed: no request waits any more

    def learn(self, started: float, finished: float) -> None:
        """Take one more measurement into what is typical of a job, in seconds."""
        measured = self._measured
        measured.append(finished - started)
        self.typical = sorted(measured)[len(measured) // 2]
        self.last_answer = finished

    def ready(self, thread: HsmThread) -> bool:
        """A thread has its session; whether it is wanted still."""
        with self._lock:
            if self._stopping or self._ready - self._quarantined >= self._size:
                return False
            thread.is_ready = True
            self._ready += 1
            return True

    def returned(self, thread: HsmThread) -> bool:
        """A thread's stuck call has returned; whether the thread is wanted still, or was replaced for good."""
        with self._lock:
            if thread.stuck is not None:
                thread.stuck = None
                self._quarantined -= 1
            return self._ready - self._quarantined <= self._size and not self._stopping

    def ended(self, thread: HsmThread) -> None:
        """A thread is gone."""
        with self._lock:
            self._threads.discard(thread)
            self._ended_counts[0] += thread.session.encryptions
            self._ended_counts[1] += thread.session.decryptions
            if thread.stuck is not None:
                thread.stuck = None
                self._quarantined -= 1
            if thread.is_ready:
                thread.is_ready = False
                self._ready -= 1

    def _quarantine(self, thread: HsmThread, job: Job) -> None:
        with self._lock:
            thread.stuck = job
            if thread.job is not job:
                thread.stuck = None  # it came back in this very moment
                return
            self._quarantined += 1
            all_stuck = self._quarantined >= self._size
        self._stuck("a C_ call did not return before the deadline")
        if all_stuck:
            # As many stuck calls as sessions: it is the module. The probe says when it is back.
            self.refuse(HsmUnavailable("every session waited in vain for the HSM; the breaker is open"))
        else:
            self.replace()

    # ---- size

    def grow(self, sessions: list[Session]) -> None:
        """Start a thread for each open session; they are the pool's full size."""
        self._size = len(sessions)
        for session in sessions:
            self._start(session)

    def refuse(self, fault: HsmFault) -> None:
        """Open the breaker: every caller gets this at once."""
        if not self._stopping:
            self.refusal = fault

    def serve(self) -> None:
        """Close the breaker, and bring the pool to its size."""
        if not self._stopping:
            self.refusal = None
            self.replace()

    def replace(self) -> None:
        """Start threads for the quarantined ones, as far as the bound allows."""
        with self._lock:
            missing = self._size - (len(self._threads) - self._quarantined)
            room = min(self._max_threads, _SPARE_FACTOR * self._size) - len(self._threads)
            wanted = 0 if self._stopping else max(0, min(missing, room))
        for _ in range(wanted):
            self._start(self._open_session())

    def _start(self, session: Session) -> None:
        thread = HsmThread(self, session)
        with self._lock:
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:
            # The system gives no more threads: the next probe tries again, and no request waits for this one.
            self.ended(thread)

    def stop(self, patience: float) -> None:
        """Refuse new work and let the threads end; at most `patience` seconds."""
        self.refusal = HsmUnavailable("the proxy is stopping")
        with self._lock:
            self._stopping = True
            threads = list(self._threads)
        self.queue.close()
        until = monotonic() + patience
        for thread in threads:
            thread.join(max(0.0, until - monotonic()))

    # ---- what the metrics and the health show

    @property
    def size(self) -> int:
        """Sessions as configured, or as many as the token gave."""
        return self._size

    @property
    def live(self) -> int:
        """Sessions that serve or could."""
        return self._ready - self._quarantined

    @property
    def quarantined(self) -> int:
        """Threads whose call is past its deadline."""
        return self._quarantined

    @property
    def in_use(self) -> int:
        """Sessions with a job now, the quarantined included."""
        return sum(thread.job is not None for thread in tuple(self._threads))

    def counts(self) -> tuple[int, int]:
        """Encryptions and decryptions since the start."""
        with self._lock:
            sessions = [thread.session for thread in self._threads]
            return (
                self._ended_counts[0] + sum(session.encryptions for session in sessions),
                self._ended_counts[1] + sum(session.decryptions for session in sessions),
            )
