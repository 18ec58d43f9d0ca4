"""The hand-over between the event loop and the HSM threads: each order of its lines that two switches make."""

from __future__ import annotations

import sys
from collections import deque
from itertools import product
from threading import Condition, Thread
from typing import TYPE_CHECKING, Any, Final, cast

from tests.waiting import PATIENCE

from holdfast.hsm.pkcs11.pool import handover
from holdfast.hsm.pkcs11.pool.handover import Job, JobQueue, Outbox, Seat, Waiter
from holdfast.hsm.port import Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LINES: Final = 24
"""More lines of handover.py than either side of a pair runs."""


class Turns:
    """Two threads, of which one runs at a time: line by line in handover.py, as `plan` (side, lines) says."""

    def __init__(self, plan: list[tuple[int, int]]) -> None:
        self._turns = deque(side for side, lines in plan for _ in range(lines))
        self._finished: set[int] = set()
        self._change = Condition()
        self.lines = [0, 0]

    def run(self, sides: tuple[Callable[[], Any], Callable[[], Any]]) -> list[Any]:
        """What each side returned."""
        results: list[Any] = [None, None]

        def live(side: int) -> None:
            sys.settrace(lambda frame, _event, _: trace(side) if is_watched(frame) else None)
            results[side] = sides[side]()
            sys.settrace(None)
            with self._change:
                self._finished.add(side)
                self._change.notify_all()

        def trace(side: int) -> Callable[..., Any]:
            def each(_frame: Any, event: str, _: Any) -> Any:
                if event == "line":
                    self._wait(side)
                return each

            return each

        def is_watched(frame: Any) -> bool:
            return bool(frame.f_code.co_filename == handover.__file__)

        threads = [Thread(target=live, args=(side,), daemon=True) for side in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert not any(thread.is_alive() for thread in threads)
        return results

    def _wait(self, side: int) -> None:
        with self._change:
            assert self._change.wait_for(lambda: self._next() in (side, None), PATIENCE)
            self.lines[side] += 1
            if self._turns:
                self._turns.popleft()
            self._change.notify_all()

    def _next(self) -> int | None:
        while self._turns and self._turns[0] in self._finished:
            self._turns.popleft()
        return self._turns[0] if self._turns else None


def every_order(pair: Callable[[], tuple[Callable[[], Any], Callable[[], Any]]]) -> Iterator[list[Any]]:
    """What the two sides of a fresh pair returned, for each order."""
    for first, lines, others in product((0, 1), range(LINES), range(LINES)):
        second = 1 - first
        turns = Turns([(first, lines), (second, others), (first, LINES), (second, LINES)])
        yield turns.run(pair())
        assert max(turns.lines) < LINES


def job() -> Job:
    return Job(lambda _: None, deadline=1.0, timing=Timing(), future=cast("Any", None), enqueued=0.0)


def test_a_late_job_is_seen_by_the_loop_or_by_the_thread() -> None:
    def pair() -> tuple[Callable[[], Any], Callable[[], Any]]:
        late, seat = job(), Seat()
        return late.expire, lambda: seat.take(late)

    outcomes = [(seen is not None, work is not None) for seen, work in every_order(pair)]
    assert (False, True) not in outcomes  # the thread works, and the loop believes that it never began
    assert set(outcomes) == {(True, True), (True, False), (False, False)}


def test_a_thread_that_the_loop_gives_up_knows_it_when_its_call_returns() -> None:
    def pair() -> tuple[Callable[[], Any], Callable[[], Any]]:
        late, seat = job(), Seat()
        seat.take(late)
        return lambda: seat.stick(late), seat.leave

    outcomes = [(given_up, knows) for given_up, knows in every_order(pair)]
    assert (True, False) not in outcomes  # a session that is never counted again
    assert set(outcomes) == {(True, True), (False, True), (False, False)}


def test_a_job_that_is_finished_while_the_loop_takes_others_is_taken_or_wakes_it_again() -> None:
    def pair() -> tuple[Callable[[], Any], Callable[[], Any]]:
        outbox: Outbox[str] = Outbox()
        wakes: list[None] = []
        outbox.attach(lambda: wakes.append(None))
        finish(outbox, "first")

        def thread() -> list[None]:
            finish(outbox, "second")
            return wakes

        return lambda: list(outbox.take_all()), thread

    outcomes = [("second" in taken, len(wakes)) for taken, wakes in every_order(pair)]
    assert (False, 1) not in outcomes  # it waits for the next request
    assert set(outcomes) == {(True, 1), (True, 2), (False, 2)}


def finish(outbox: Outbox[str], text: str) -> None:
    outbox.put(text)
    outbox.flush()


class Asleep(Exception):
    """A thread would sleep now."""


class Bed:
    """A Waiter that tells whether its thread sleeps, and whether somebody has woken it."""

    def __init__(self) -> None:
        self.woken = 0

    def wake(self) -> None:
        """As of a Waiter."""
        self.woken += 1

    def wait(self) -> None:
        """As of a Waiter."""
        raise Asleep


def test_no_thread_sleeps_while_a_job_waits() -> None:
    def pair() -> tuple[Callable[[], Any], Callable[[], Any]]:
        queue: JobQueue[str] = JobQueue()
        bed = Bed()

        def thread() -> tuple[bool, Bed]:
            try:
                return queue.take(cast("Waiter", bed), before_sleep=lambda: None) is None, bed
            except Asleep:
                return True, bed

        return lambda: queue.put(["job"], wake=1), thread

    outcomes = [(slept, bed.woken) for _, (slept, bed) in every_order(pair)]
    assert (True, 0) not in outcomes
    assert set(outcomes) == {(True, 1), (False, 0)}
