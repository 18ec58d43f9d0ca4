"""Runs the catalogue against one endpoint."""

from __future__ import annotations

import platform
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from time import perf_counter
from typing import TYPE_CHECKING

from holdfast._version import __version__
from holdfast.witness.check.checks import CATALOGUE
from holdfast.witness.check.endpoint import UsageError
from holdfast.witness.check.finding import Check, Level, NotForKms, NotJudged, Refuted, Result, Verdict

if TYPE_CHECKING:
    from datetime import datetime

    from holdfast.witness.check.latency import Measurement
    from holdfast.witness.check.load.outcome import LoadOutcome
    from holdfast.witness.check.session import Session

Progress = Callable[[Result], None]
_REACHED = "HEALTH-01"


class Fitness(StrEnum):
    """What the whole run says of the endpoint. FIT with waived checks means: fit, but for AWS KMS itself."""

    FIT = "fit"
    NOT_FIT = "not fit"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True, slots=True)
class Report:
    """What was asked of which endpoint, from where and when, and what came out."""

    url: str
    uri_path: str
    address: str | None
    place: str
    version: str
    started: datetime
    seconds: float
    results: tuple[Result, ...]
    measurement: Measurement | None
    load: LoadOutcome | None = None

    def count(self, verdict: Verdict) -> int:
        """How many checks ended so."""
        return sum(result.verdict is verdict for result in self.results)

    @property
    def fitness(self) -> Fitness:
        """NOT_JUDGED if no signed call ever succeeded; NOT_FIT if a check failed or the load was not carried."""
        health = next((result for result in self.results if result.check.id == _REACHED), None)
        if health is not None and health.verdict in (Verdict.FAIL, Verdict.SKIP):
            return Fitness.NOT_JUDGED
        if self.count(Verdict.FAIL) or (self.load is not None and not self.load.fits):
            return Fitness.NOT_FIT
        return Fitness.FIT

    @property
    def keys_tested(self) -> bool:
        """Whether an Encrypt was judged."""
        return any(result.check.id == "ENC-01" and result.verdict is not Verdict.SKIP for result in self.results)

    @property
    def fit(self) -> bool:
        """Nothing failed."""
        return self.fitness is Fitness.FIT

    @property
    def conclusion(self) -> str:
        """One sentence."""
        match self.fitness:
            case Fitness.NOT_JUDGED:
                return "Not judged: no signed call was answered, so little could be tested."
            case Fitness.NOT_FIT if self.count(Verdict.FAIL):
                count = self.count(Verdict.FAIL)
                return f"Not fit for AWS KMS: {count} check{'s' if count > 1 else ''} failed."
            case Fitness.NOT_FIT:
                return "The checks passed, but the load was not carried."
            case Fitness.FIT:
                return self._what_fits

    @property
    def _what_fits(self) -> str:
        waived = [result.check.id for result in self.results if result.verdict is Verdict.WAIVED]
        if waived:
            return (
                "Fit for local use only (--local). AWS KMS would refuse this endpoint: "
                f"{', '.join(waived)} {'are' if len(waived) > 1 else 'is'} violated."
            )
        if len(self.results) < len(CATALOGUE):
            return "Nothing failed in the checks that were chosen."
        if not self.keys_tested:
            return "Nothing failed, but no key operation was tested: name a test key with --key."
        skipped = self.count(Verdict.SKIP)
        return "Fit for AWS KMS, as far as a client can see" + (f" ({_not_made(skipped)})." if skipped else ".")


def _not_made(count: int) -> str:
    return "1 check was not made" if count == 1 else f"{count} checks were not made"


def run(session: Session, checks: Sequence[Check], progress: Progress) -> Report:
    """Every check in the order given, after those that it needs."""
    started, start = session.clock(), perf_counter()
    results = tuple(_results(session, checks, progress))
    session.close()
    return Report(
        url=session.endpoint.url,
        uri_path=session.endpoint.configuration.uri_path,
        address=_address(session),
        place=f"{socket.gethostname()} ({platform.system()} {platform.release()})",
        version=__version__,
        started=started,
        seconds=perf_counter() - start,
        results=results,
        measurement=session.measurement,
    )


def select(only: Sequence[str]) -> tuple[Check, ...]:
    """The checks whose id or group is named, and all that they need. Raises UsageError for an unknown name."""
    if not only:
        return CATALOGUE
    wanted: set[str] = set()
    for name in only:
        ids = {check.id for check in CATALOGUE if name.upper() in (check.id, check.group)}
        if not ids:
            groups = ", ".join(dict.fromkeys(check.group for check in CATALOGUE))
            raise UsageError(f"there is no check {name!r}", f"give ids such as CDIV-02, or groups: {groups}")
        wanted |= ids
    return tuple(check for check in CATALOGUE if check.id in _with_needs(wanted))


def _with_needs(ids: set[str]) -> set[str]:
    by_id = {check.id: check for check in CATALOGUE}
    closed: set[str] = set()
    waiting = list(ids)
    while waiting:
        check_id = waiting.pop()
        if check_id not in closed:
            closed.add(check_id)
            waiting += by_id[check_id].needs
    return closed


def _results(session: Session, checks: Sequence[Check], progress: Progress) -> Iterator[Result]:
    by_id = {check.id: check for check in checks}
    done: dict[str, Result] = {}

    def result_of(check_id: str) -> Result:
        if check_id not in done:
            check = by_id[check_id]
            needed = [result_of(other) for other in check.needs]
            bad = next((other for other in needed if other.verdict in (Verdict.FAIL, Verdict.SKIP)), None)
            done[check_id] = _judge(session, check) if bad is None else _because_of(bad, check)
            progress(done[check_id])
        return done[check_id]

    for check in checks:
        yield result_of(check.id)


def _because_of(bad: Result, check: Check) -> Result:
    how = "failed" if bad.verdict is Verdict.FAIL else "was not made"
    return Result(check, Verdict.SKIP, f"needs {bad.check.id}, which {how}", 0.0)


def _judge(session: Session, check: Check) -> Result:
    start = perf_counter()
    try:
        verdict, evidence = Verdict.PASS, check.run(session)
    except Refuted as finding:
        binding = check.level in (Level.MUST, Level.KMS)
        verdict, evidence = (Verdict.FAIL if binding else Verdict.WARN), finding.evidence
        if session.local and isinstance(finding, NotForKms):
            verdict = Verdict.WAIVED
    except NotJudged as finding:
        verdict, evidence = Verdict.SKIP, finding.evidence
    return Result(check, verdict, evidence, perf_counter() - start)


def _address(session: Session) -> str | None:
    try:
        return session.dns[0][0]
    except OSError:
        return None
