"""Plans the steps of a load run, shares each among processes, and adds up what they saw."""

from __future__ import annotations

import math
import multiprocessing
import os
from bisect import bisect_left
from collections import Counter
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from holdfast.witness.check.endpoint import UsageError, is_loopback
from holdfast.witness.check.latency import KMS_TIMEOUT, Summary
from holdfast.witness.check.load.generator import Job, Tally, generate
from holdfast.witness.check.load.outcome import LoadOutcome, Step
from holdfast.witness.check.session import Session, fresh_plaintext

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_RATE = 20_000
MAX_SECONDS = 300
_RATE_PER_PROCESS = 700
_SHARES = (0.25, 0.5, 0.75)
_SEARCHES = 3
_START_DELAY = 0.5
_USUAL_LATENCY = 0.01  # seconds, where none was measured
_SPAWN_PATIENCE = 30.0

BUCKETS = tuple(0.001 * 2 ** (n / 4) for n in range(45))
"""Upper edges of the latency histogram in seconds, four to each doubling from 1 ms to 2 s; one more for the rest."""


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """`rate` requests/s for `seconds`. Raises UsageError outside the bounds."""

    rate: int
    seconds: int
    allowed_anywhere: bool

    def __post_init__(self) -> None:
        if not (1 <= self.rate <= MAX_RATE and 1 <= self.seconds <= MAX_SECONDS):
            raise UsageError(
                f"--load takes 1 to {MAX_RATE} requests/s and --seconds 1 to {MAX_SECONDS}",
                "choose within these bounds",
            )


def refuse_strangers(session: Session, request: LoadRequest) -> None:
    """Raises UsageError for a host that is not this one, unless that was confirmed."""
    if request.allowed_anywhere or all(is_loopback(address) for address in session.dns[0]):
        return
    raise UsageError(
        f"--load would send {request.rate} requests/s to {session.endpoint.host} ({session.address[0]})",
        "a load test can take a key store out of service; if its owner agrees, add --yes-load-this-host",
    )


def run_load(session: Session, request: LoadRequest, progress: Callable[[str], None]) -> LoadOutcome:
    """Holds 25, 50 and 75 % of the rate for a quarter of the time each, then all of it.

    If that is not carried, looks for what is by bisection. Raises UsageError, WireError or a Finding.
    """
    refuse_strangers(session, request)
    processes = max(1, min(os.cpu_count() or 1, math.ceil(request.rate / _RATE_PER_PROCESS)))
    # KMS gives up after 250 ms, so no more than that many requests can be worth waiting for at a time.
    connections = max(processes, min(1024, math.ceil(request.rate * KMS_TIMEOUT)))
    short = max(1.0, request.seconds / 4)
    steps: list[Step] = []
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        team = _Team(pool, session, processes, connections, progress)
        for share in _SHARES:
            steps.append(team.step(max(1, round(request.rate * share)), short))
            if not steps[-1].fits:
                break
        else:
            steps.append(team.step(request.rate, float(request.seconds)))
        _search(steps, team, short)
    return LoadOutcome(request.rate, tuple(steps), processes, connections)


def _search(steps: list[Step], team: _Team, seconds: float) -> None:
    if steps[-1].fits:
        return
    for _ in range(_SEARCHES):
        failing = min(step.rate for step in steps if not step.fits)
        passing = max((step.rate for step in steps if step.fits and step.rate < failing), default=0)
        middle = (failing + passing) // 2
        if middle in (failing, passing):
            return
        steps.append(team.step(middle, seconds))


class _Team:
    """The processes and what they share."""

    def __init__(
        self,
        pool: ProcessPoolExecutor,
        session: Session,
        processes: int,
        connections: int,
        progress: Callable[[str], None],
    ) -> None:
        self._pool = pool
        self._session = session
        self._processes = processes
        self._connections = connections
        self._progress = progress
        self._sample = session.seal(fresh_plaintext(64), fresh_plaintext(128))
        # A spawned process imports for a while; the first step must not start before all have.
        wait([pool.submit(os.getpid) for _ in range(processes * 4)], timeout=_SPAWN_PATIENCE)

    def step(self, rate: int, seconds: float) -> Step:
        """Holds one rate."""
        futures = [self._pool.submit(generate, self._job(rate, seconds, index)) for index in range(self._processes)]
        self._wait(futures, rate, seconds)
        return _add_up([future.result() for future in futures], rate, seconds)

    def _warm(self, rate: int) -> int:
        # Handshakes in the middle of a run would be charged to the requests that wait for them, and to the endpoint.
        measured = self._session.measurement
        usual = Summary.of(measured.reused).p95 if measured else _USUAL_LATENCY
        return 4 + math.ceil(rate * usual * 2 / self._processes)

    def _wait(self, futures: list[Future[Tally]], rate: int, seconds: float) -> None:
        start = perf_counter()
        while wait(futures, timeout=1.0).not_done:
            elapsed = min(perf_counter() - start, seconds)
            self._progress(f"{rate:,} requests/s: {elapsed:.0f} of {seconds:.0f} s")

    def _job(self, rate: int, seconds: float, index: int) -> Job:
        session, endpoint = self._session, self._session.endpoint
        configuration = endpoint.configuration
        return Job(
            host=endpoint.host,
            port=endpoint.port,
            address=session.address[0],
            uri_path=configuration.uri_path,
            access_key_id=configuration.access_key_id,
            secret=configuration.secret_access_key.reveal(),
            trust=session.trust,
            region=session.region,
            key=session.test_key,
            sample=self._sample,
            rate=rate / self._processes,
            seconds=seconds,
            connections=self._connections // self._processes,
            warm=self._warm(rate),
            start_at=session.clock().timestamp() + _START_DELAY,
            offset=index / rate,
        )


def _add_up(tallies: list[Tally], rate: int, seconds: float) -> Step:
    latencies = [value for tally in tallies for value in tally.latencies]
    lags = [value for tally in tallies for value in tally.lags]
    errors: Counter[str] = Counter()
    for tally in tallies:
        errors.update(tally.errors)
    histogram = [0] * (len(BUCKETS) + 1)
    for value in latencies:
        histogram[bisect_left(BUCKETS, value)] += 1
    return Step(
        rate=rate,
        seconds=seconds,
        sent=sum(tally.sent for tally in tallies),
        succeeded=len(latencies),
        in_time=sum(value <= KMS_TIMEOUT for value in latencies),
        latency=Summary.of(latencies) if latencies else None,
        histogram=tuple(histogram),
        errors=dict(errors.most_common()),
        lag=Summary.of(lags).p99 if lags else 0.0,
        bytes_out=sum(tally.bytes_out for tally in tallies),
        bytes_in=sum(tally.bytes_in for tally in tallies),
    )
