"""One deadline per request: who is turned away, who is late, and what a stuck call costs the others."""

from __future__ import annotations

import asyncio
import gc
import os
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from tests.hsm.conftest import KEY, TEXT, Site, Start, call, encrypt, round_trip
from tests.waiting import eventually

from holdfast.hsm.faults import HsmBusy, HsmFault, HsmTimeout, HsmUnavailable
from holdfast.hsm.pkcs11.pool.crew import HsmThread
from holdfast.hsm.pkcs11.pool.dispatcher import Dispatcher
from holdfast.hsm.pkcs11.pool.handover import Handover, Job, Pace, Seat, Waiter
from holdfast.hsm.port import Timing
from holdfast.xks.types import HealthStatus

if TYPE_CHECKING:
    from tests.shim.control import ShimControl

    from holdfast.hsm.pkcs11.backend import Pkcs11Hsm

DEADLINE = 0.15


@pytest.fixture
def hsm(site: Site, start: Start) -> Pkcs11Hsm:
    hsm = start(site.shim_settings("plain", sessions=2, queue=8, probe_interval_s=3600.0))
    assert call(hsm, round_trip) == TEXT
    return hsm


async def outcome(hsm: Pkcs11Hsm, *, seconds: float = DEADLINE, work: Any = encrypt) -> tuple[type, float]:
    """The type of what came back, and after how many seconds."""
    began = monotonic()
    try:
        result: Any = await hsm.run(work, deadline=began + seconds, timing=Timing())
    except HsmFault as fault:
        result = fault
    return type(result), monotonic() - began


def gather(hsm: Pkcs11Hsm, count: int, **options: Any) -> list[tuple[type, float]]:
    """That many calls at once."""

    async def all_of_them() -> list[tuple[type, float]]:
        return await asyncio.gather(*(outcome(hsm, **options) for _ in range(count)))

    return uvloop.run(all_of_them())


def test_a_call_that_hangs_times_out_at_the_deadline(hsm: Pkcs11Hsm, control: ShimControl) -> None:
    control.hang("C_Encrypt")
    ((fault, seconds),) = gather(hsm, 1)
    assert fault is HsmTimeout
    assert DEADLINE <= seconds < DEADLINE + 2


def test_one_stuck_call_leaves_the_capacity_whole(hsm: Pkcs11Hsm, control: ShimControl) -> None:
    control.hang("C_Encrypt")
    gather(hsm, 1)
    eventually(lambda: hsm.gauges().quarantined == 1)
    eventually(lambda: hsm.gauges().sessions == 2)
    assert hsm.health().status is HealthStatus.DEGRADED
    control.release()
    eventually(lambda: hsm.gauges().quarantined == 0)
    eventually(lambda: hsm.gauges().sessions == 2)
    assert call(hsm, round_trip) == TEXT


def test_a_late_result_is_never_delivered(hsm: Pkcs11Hsm, control: ShimControl) -> None:
    control.delay(1000 * (DEADLINE + 0.05), ["C_Encrypt"])

    async def patient() -> BaseException | None:
        future = asyncio.ensure_future(hsm.run(encrypt, deadline=monotonic() + DEADLINE, timing=Timing()))
        await asyncio.wait([future])
        await asyncio.sleep(0.1)  # the call returns in this time
        return future.exception()

    assert type(uvloop.run(patient())) is HsmTimeout
    control.delay(0, ["C_Encrypt"])
    assert call(hsm, round_trip) == TEXT


def test_an_answer_that_waits_for_a_busy_loop_past_the_deadline_is_a_timeout() -> None:
    """The loop has not come to its timer: here it fires a minute later. The HSM thread is played by hand."""
    handover, seat = Handover(), Seat()

    async def busy() -> BaseException | None:
        dispatcher = Dispatcher(handover, limit=1, live=lambda: 1, quarantine=lambda _seat, _job: None)
        job = dispatcher.admit(lambda _: None, deadline=monotonic() + 60, timing=Timing())
        future = job.future
        await asyncio.sleep(0)  # handed over
        assert handover.queue.take(Waiter(), before_sleep=lambda: None) is job
        seat.take(job)
        job.started = monotonic()
        job.deadline = job.started - 1
        seat.leave()
        handover.outbox.put(job)
        handover.outbox.flush()
        await asyncio.wait([future])
        return future.exception()

    assert type(uvloop.run(busy())) is HsmTimeout


def test_with_every_session_stuck_the_breaker_answers_at_once(hsm: Pkcs11Hsm, control: ShimControl) -> None:
    control.hang("C_Encrypt")
    gather(hsm, 2)
    ((fault, _),) = gather(hsm, 1)
    assert fault is HsmUnavailable  # and not HsmTimeout, which is what waiting would end with
    assert hsm.gauges().breaker_open
    assert hsm.health().status is HealthStatus.UNAVAILABLE


def test_service_resumes_within_a_second_of_a_hung_modules_return(hsm: Pkcs11Hsm, control: ShimControl) -> None:
    control.hang("C_Encrypt")
    gather(hsm, 2)
    control.release()
    eventually(lambda: gather(hsm, 1)[0][0] not in (HsmUnavailable, HsmTimeout), within=1.0)
    eventually(lambda: hsm.gauges().quarantined == 0)
    assert not hsm.gauges().breaker_open
    assert hsm.gauges().sessions == 2


def test_a_full_queue_refuses_at_once(hsm: Pkcs11Hsm, control: ShimControl) -> None:
    control.delay(50, ["C_Encrypt"])
    outcomes = gather(hsm, 30, seconds=5.0)
    refused = [seconds for kind, seconds in outcomes if kind is HsmBusy]
    assert len(refused) >= 30 - 8 - 2
    assert max(refused) < min(seconds for kind, seconds in outcomes if kind is not HsmBusy)
    assert len(outcomes) - len(refused) >= 8


def test_a_wait_that_would_pass_the_deadline_is_refused_at_once(
    site: Site, start: Start, control: ShimControl
) -> None:
    hsm = start(site.shim_settings("plain", sessions=2, queue=1000, probe_interval_s=3600.0))
    control.delay(50, ["C_Encrypt"])
    gather(hsm, 20, seconds=5.0)  # what is typical is learned
    outcomes = gather(hsm, 100, seconds=0.5)
    admitted = [(kind, seconds) for kind, seconds in outcomes if kind is not HsmBusy]
    refused = [seconds for kind, seconds in outcomes if kind is HsmBusy]
    assert 2 < len(admitted) <= 20  # two sessions could serve 20 in time
    # The estimate is what is typical, and this machine has other work: some at the edge may be late.
    assert sum(kind is not HsmTimeout for kind, _ in admitted) > len(admitted) / 2
    assert max(refused) < min(seconds for _, seconds in admitted)


def test_the_wait_is_foretold_from_the_median_call_and_the_sessions_that_serve() -> None:
    """A call takes a second, two sessions serve, and a fifth of ten seconds stays free: 8 s are two and six turns."""
    handover = Handover()
    handover.pace.learn(0.0, 1.01)

    async def admitted() -> int:
        dispatcher = Dispatcher(handover, limit=1000, live=lambda: 2, quarantine=lambda _seat, _job: None)
        for number in range(100):
            try:
                dispatcher.admit(lambda _: None, deadline=monotonic() + 10, timing=Timing())
            except HsmBusy:
                return number
        return 100

    assert uvloop.run(admitted()) == 12


def test_a_job_that_waited_past_its_deadline_never_runs(hsm: Pkcs11Hsm, control: ShimControl) -> None:
    ran: list[int] = []

    async def queue_behind_stuck_calls() -> list[type]:
        control.hang("C_Encrypt")
        stuck = [asyncio.ensure_future(outcome(hsm, seconds=10)) for _ in range(2)]
        while control.inside < 2:  # noqa: ASYNC110 (another process counts; there is no event to wait for)
            await asyncio.sleep(0.005)
        waiting = [asyncio.ensure_future(outcome(hsm, seconds=0.1, work=lambda _: ran.append(1))) for _ in range(3)]
        done = await asyncio.gather(*waiting)
        control.release()
        await asyncio.gather(*stuck)
        return [kind for kind, _ in done]

    assert uvloop.run(queue_behind_stuck_calls()) == [HsmTimeout] * 3
    assert call(hsm, round_trip) == TEXT
    assert ran == []


def test_a_cancelled_caller_keeps_its_job_from_running(hsm: Pkcs11Hsm, control: ShimControl) -> None:
    ran: list[int] = []

    async def cancel() -> None:
        control.hang("C_Encrypt")
        stuck = [asyncio.ensure_future(outcome(hsm, seconds=10)) for _ in range(2)]
        while control.inside < 2:  # noqa: ASYNC110 (as above)
            await asyncio.sleep(0.005)
        waiting = asyncio.ensure_future(outcome(hsm, seconds=5, work=lambda _: ran.append(1)))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        control.release()
        await asyncio.gather(*stuck)

    uvloop.run(cancel())
    assert call(hsm, round_trip) == TEXT
    assert ran == []


def test_many_jobs_share_the_sessions(hsm: Pkcs11Hsm, control: ShimControl) -> None:
    control.delay(20, ["C_Encrypt"])
    control.reset_counters()
    gather(hsm, 8, seconds=5.0)
    assert control.inside_high == 2


def test_delays_run_side_by_side(site: Site, start: Start, control: ShimControl) -> None:
    hsm = start(site.shim_settings("plain", sessions=32, queue=256, probe_interval_s=3600.0))
    call(hsm, encrypt)
    control.delay(20, ["C_Encrypt"])
    began = monotonic()
    outcomes = gather(hsm, 160, seconds=5.0)
    one_after_another = 160 * 0.020
    assert all(not issubclass(kind, HsmFault) for kind, _ in outcomes)
    assert monotonic() - began < one_after_another / 3


def test_nothing_of_a_finished_job_is_kept(hsm: Pkcs11Hsm) -> None:
    async def work() -> int:
        for _ in range(3000):
            await hsm.run(
                lambda session: session.encrypt(KEY, TEXT, b"")[1], deadline=monotonic() + 60, timing=Timing()
            )
        return sum(isinstance(thing, Job) for thing in gc.get_objects())

    assert uvloop.run(work()) < 2000


def test_a_forked_process_is_refused(hsm: Pkcs11Hsm, monkeypatch: pytest.MonkeyPatch) -> None:
    child = os.getpid() + 1
    with monkeypatch.context() as forked:
        forked.setattr(os, "getpid", lambda: child)
        with pytest.raises(HsmFault, match="forked"):
            call(hsm, round_trip)


def test_stop_refuses_new_work_and_closes_every_session(hsm: Pkcs11Hsm, control: ShimControl) -> None:
    hsm.stop()
    assert control.sessions == 0
    with pytest.raises(HsmUnavailable):
        call(hsm, round_trip)
    assert control.finalized_while_inside == 0


def test_a_system_without_threads_to_give_delays_no_answer(
    hsm: Pkcs11Hsm, control: ShimControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TasksMax of a service, or the limit of a container: a stuck call's thread cannot be replaced."""

    def refuse(_: HsmThread) -> None:
        raise RuntimeError("can't start new thread")

    control.hang("C_Encrypt")
    with monkeypatch.context() as without:
        without.setattr(HsmThread, "start", refuse)
        assert {fault for fault, _ in gather(hsm, 2)} == {HsmTimeout}
    control.release()
    eventually(lambda: hsm.gauges().sessions == 2 and not hsm.gauges().breaker_open)
    assert call(hsm, round_trip) == TEXT


def test_one_slow_call_is_no_slow_hsm_and_eight_are() -> None:
    pace = Pace()
    for _ in range(15):
        pace.learn(0.0, 0.02)
    for _ in range(7):
        pace.learn(0.0, 1.0)
    assert pace.typical == 0.02
    pace.learn(0.0, 1.0)
    assert pace.typical == 1.0
