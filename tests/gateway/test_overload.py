"""When a request is refused before any work is spent on it."""

from __future__ import annotations

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
