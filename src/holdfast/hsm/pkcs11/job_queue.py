"""Jobs on their way to the HSM threads, and the threads that wait for them.

A thread that wakes takes the GIL from the event loop, so not every job wakes one: the caller says how many.
"""

from __future__ import annotations

from _thread import allocate_lock
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from holdfast.hsm.pkcs11.job import Job


class Waiter:
    """Where one thread sleeps: a lock that is held while it does."""

    __slots__ = ("wait", "wake")

    def __init__(self) -> None:
        lock = allocate_lock()
        lock.acquire()
        self.wait = lock.acquire
        self.wake = lock.release


class JobQueue:
    """First in, first out. `put` belongs to one thread, `take` to many; deque and list are atomic under the GIL."""

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()
        self._parked: list[Waiter] = []
        self._closed = False

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, jobs: Iterable[Job], *, wake: int) -> None:
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

    def take(self, waiter: Waiter, *, before_sleep: Callable[[], None]) -> Job | None:
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
