"""What the event loop and the HSM threads share: every field that one of them writes and the other reads.

No method here takes a lock or waits, except `JobQueue.take`. Why that is enough is the theory of this package.
"""

from __future__ import annotations

from _thread import allocate_lock
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Iterator

    from holdfast.hsm.port import KeySession, Timing

J = TypeVar("J")

_MEASURED: Final = 15
"""Jobs whose median predicts the next one: a machine that stalled during one of them does not count as a slow HSM."""
_FIRST_GUESS: Final = 0.001


class Job:
    """One piece of work. `deadline`, `enqueued`, `started`, `finished` in monotonic seconds, 0.0 for not yet.

    The loop writes `expired`, `settled` and `timing`; the thread that takes the job writes the rest.
    """

    __slots__ = (
        "deadline",
        "enqueued",
        "error",
        "expired",
        "finished",
        "future",
        "result",
        "seat",
        "settled",
        "started",
        "timing",
        "work",
    )

    def __init__(
        self,
        work: Callable[[KeySession], Any],
        *,
        deadline: float,
        timing: Timing,
        future: asyncio.Future[Any],
        enqueued: float,
    ) -> None:
        self.work: Callable[[KeySession], Any] | None = work
        self.deadline = deadline
        self.timing = timing
        self.future = future
        self.enqueued = enqueued
        self.started = 0.0
        self.finished = 0.0
        self.expired = False
        self.settled = False
        self.seat: Seat | None = None
        self.result: Any = None
        self.error: BaseException | None = None

    def expire(self) -> Seat | None:
        """On the loop: nobody waits for the result any more. The thread that has the job, if one has."""
        self.expired = True
        return self.seat

    def forget(self) -> None:
        """On the loop: let go of plaintexts. The job itself stays in the list of deadlines for a while."""
        self.work = self.result = self.error = None
        del self.future


class Seat:
    """What one HSM thread shows of itself: the `job` it has, and the job it is `stuck` in, past its deadline."""

    def __init__(self) -> None:
        self.job: Job | None = None
        self.stuck: Job | None = None

    def take(self, job: Job) -> Callable[[KeySession], Any] | None:
        """On the thread: what there is to do; None if nobody waits for it any more."""
        self.job = job
        job.seat = self
        work = job.work  # before `expired` is read: an expired job forgets it
        return None if job.expired else work

    def leave(self) -> bool:
        """On the thread: the call has returned; whether the loop had given it up."""
        self.job = None
        return self.stuck is not None

    def stick(self, job: Job) -> bool:
        """On the loop: give the thread up until it returns; False if it has returned in this very moment."""
        self.stuck = job
        if self.job is not job:
            self.stuck = None
        return self.stuck is not None


class Waiter:
    """Where one thread sleeps: a lock that is held while it does."""

    __slots__ = ("wait", "wake")

    def __init__(self) -> None:
        lock = allocate_lock()
        lock.acquire()
        self.wait = lock.acquire
        self.wake = lock.release


class JobQueue(Generic[J]):
    """To the threads, first in, first out. `put` belongs to the loop, `take` to the threads.

    A thread that wakes takes the GIL from the event loop, so not every job wakes one: the caller says how many.
    """

    def __init__(self) -> None:
        self._jobs: deque[J] = deque()
        self._parked: list[Waiter] = []
        self._closed = False

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, jobs: Iterable[J], *, wake: int) -> None:
        """Add jobs, and wake at most so many threads: those that went to sleep last, whose caches are warm."""
        self._jobs.extend(jobs)
        self.wake(wake)

    def wake(self, count: int) -> None:
        """Wake at most so many threads."""
        for _ in range(count):
            try:
                self._parked.pop().wake()
            except IndexError:
                return

    def take(self, waiter: Waiter, *, before_sleep: Callable[[], None]) -> J | None:
        """The next job, waiting for one; None once the queue is closed and empty."""
        while True:
            try:
                return self._jobs.popleft()
            except IndexError:
                if self._closed:
                    return None
            before_sleep()
            self._parked.append(waiter)
            # A job that was added just before this thread was parked woke no thread: look again before sleeping.
            if (self._jobs or self._closed) and self._unpark(waiter):
                continue
            waiter.wait()

    def close(self) -> None:
        """Let every thread end once the queue is empty."""
        self._closed = True
        self.wake(len(self._parked))

    def _unpark(self, waiter: Waiter) -> bool:
        """Whether the thread stays awake; False if another thread is waking it already."""
        try:
            self._parked.remove(waiter)
        except ValueError:
            return False
        return True


class Outbox(Generic[J]):
    """Back to the loop. `put` and `flush` belong to the threads; one wake-up of the loop serves many jobs."""

    def __init__(self) -> None:
        self.attach(lambda: None)

    def attach(self, wake: Callable[[], object]) -> None:
        """On the loop: what makes it call `take_all` soon. What was meant for another loop is dropped."""
        self._wake = wake
        self._done: deque[J] = deque()
        self._waking = False

    def put(self, job: J) -> None:
        """Add a finished job, which waits for the next `flush`."""
        self._done.append(job)

    def flush(self) -> None:
        """Have the loop take what is finished, unless it is about to."""
        if self._done and not self._waking:
            self._waking = True
            self._wake()

    def take_all(self) -> Iterator[J]:
        """On the loop: what is finished, and what is added meanwhile."""
        self._waking = False
        while self._done:
            yield self._done.popleft()


class Pace:
    """How long a job takes. Written by the threads, read by everybody; a lost measurement does no harm."""

    def __init__(self) -> None:
        self.typical = _FIRST_GUESS
        self.last_answer = 0.0
        self._measured: deque[float] = deque(maxlen=_MEASURED)

    def learn(self, started: float, finished: float) -> None:
        """Take one more measurement into what is `typical` of a job, in seconds."""
        self._measured.append(finished - started)
        measured = sorted(self._measured)
        self.typical = measured[len(measured) // 2]
        self.last_answer = finished


class Handover:
    """The two ways between the loop and the threads, and what the loop knows of the threads' pace."""

    def __init__(self) -> None:
        self.queue: JobQueue[Job] = JobQueue()
        self.outbox: Outbox[Job] = Outbox()
        self.pace = Pace()
