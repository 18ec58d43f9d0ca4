"""When a request is refused before any work is spent on it."""

from __future__ import annotations

from collections import deque

from holdfast.gateway.worker.admission import ALWAYS, SHARE, Admission


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


def paced(interval: float, *, in_flight: int) -> Admission:
    """An admission that has seen many answers leave at this interval."""
    clock = Clock()
    admission = Admission(0.2, clock=clock)
    for _ in range(1000):
        clock.now += interval
        admission.answered(in_flight)
    return admission


def test_a_request_that_would_wait_too_long_a_part_of_the_deadline_is_refused() -> None:
    deadline, interval = 0.2, 0.001
    bound = round(deadline * SHARE / interval)
    admission = paced(interval, in_flight=50)
    assert not admission.refuses(bound - 5)
    assert admission.refuses(bound + 5)


def test_a_few_requests_are_never_too_many() -> None:
    assert not paced(0.05, in_flight=5).refuses(ALWAYS - 1)


def test_a_new_worker_guesses_its_pace() -> None:
    admission = Admission(0.2, clock=Clock())
    assert not admission.refuses(100)
    assert admission.refuses(1000)


def test_idle_time_does_not_count_as_slowness() -> None:
    clock = Clock()
    admission = Admission(0.2, clock=clock)
    for _ in range(1000):
        clock.now += 0.0001
        admission.answered(1)
        clock.now += 0.0001
        admission.answered(0)
        clock.now += 10
    assert not admission.refuses(300)


def test_an_event_loop_that_is_late_refuses() -> None:
    admission = paced(0.0001, in_flight=50)
    assert not admission.refuses(50)
    admission.lag = 0.15
    assert admission.refuses(50)


def answered_in_time(admission: Admission | None, clock: Clock) -> int:
    """Of 4,000 requests in 2 s, to an event loop that needs 1 ms for each and whose HSM takes no time."""
    arrivals = deque(number * 0.0005 for number in range(4000))
    waiting: deque[float] = deque()
    in_time = 0
    while arrivals or waiting:
        while arrivals and arrivals[0] <= clock.now:
            arrived = arrivals.popleft()
            if admission is None or not admission.refuses(len(waiting)):
                waiting.append(arrived)
        if not waiting:
            clock.now = arrivals[0]
            continue
        clock.now += 0.001
        in_time += clock.now - waiting.popleft() <= 0.2
        if admission is not None:
            admission.answered(len(waiting))
    return in_time


def test_with_twice_its_load_an_event_loop_answers_what_it_can_and_without_admission_next_to_nothing() -> None:
    clock = Clock()
    assert answered_in_time(Admission(0.2, clock=clock), clock) > 1900
    assert answered_in_time(None, Clock()) < 500
