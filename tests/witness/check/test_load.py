"""The open-loop load, its verdict, and its manners."""

# ruff: noqa: D101, D102 (the names say it)

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from tests.witness.check.conftest import OpenSession
from tests.witness.check.honest_proxy import HonestProxy
from tests.witness.check.test_reports import step

from holdfast.witness.check.endpoint import UsageError
from holdfast.witness.check.load.control import MAX_RATE, MAX_SECONDS, LoadRequest, refuse_strangers, run_load
from holdfast.witness.check.load.outcome import LoadOutcome
from holdfast.xks.errors import ErrorName, XksError
from holdfast.xks.uri import Target


class Stalls(HonestProxy):
    """Stands still for a second, once, for everybody: what coordinated omission hides."""

    def __init__(self) -> None:
        super().__init__()
        self.until: datetime | None = None

    def operate(self, target: Target, body: bytes) -> bytes:
        now = datetime.now(UTC)
        if self.until is None and b"GenerateNothing" not in body:
            self.until = now + timedelta(seconds=2.2)
        while self.until and self.until - timedelta(seconds=1) < datetime.now(UTC) < self.until:
            asyncio.run(asyncio.sleep(0.01))
        return super().operate(target, body)


class RefusesUnderLoad(HonestProxy):
    count = 0

    def encrypt(self, key: str, body: bytes) -> bytes:
        self.count += 1
        if self.count > 1:
            raise XksError(ErrorName.THROTTLING, "too many")
        return super().encrypt(key, body)


@pytest.mark.server
def test_an_honest_proxy_carries_a_small_rate(open_session: OpenSession) -> None:
    said: list[str] = []
    with open_session(HonestProxy()) as session:
        outcome = run_load(session, LoadRequest(80, 2, allowed_anywhere=False), said.append)
    assert [one.rate for one in outcome.steps] == [20, 40, 60, 80]
    last = outcome.steps[-1]
    assert (last.sent, last.succeeded, last.errors) == (160, 160, {})
    assert outcome.fits
    assert last.bytes_out / last.sent > 700
    assert any("80 requests/s" in text for text in said)


@pytest.mark.server
def test_refusals_are_counted_by_name_and_do_not_fit(open_session: OpenSession) -> None:
    with open_session(RefusesUnderLoad()) as session:
        outcome = run_load(session, LoadRequest(40, 1, allowed_anywhere=False), lambda _text: None)
    assert not outcome.fits
    assert outcome.carried == 0
    assert set(outcome.steps[0].errors) == {"ThrottlingException"}


@pytest.mark.server
def test_a_stall_is_charged_to_every_request_that_was_due_meanwhile(open_session: OpenSession) -> None:
    """One connection stalls for a second; a closed-loop tool would report one slow request."""
    with open_session(Stalls()) as session:
        outcome = run_load(session, LoadRequest(40, 2, allowed_anywhere=False), lambda _text: None)
    stalled = max(outcome.steps, key=lambda one: one.latency.maximum if one.latency else 0)
    assert stalled.latency is not None
    assert stalled.latency.maximum > 0.6
    assert stalled.latency.p95 > 0.25
    assert not stalled.fits


@pytest.mark.parametrize(("rate", "seconds"), [(0, 10), (MAX_RATE + 1, 10), (10, 0), (10, MAX_SECONDS + 1)])
def test_rate_and_time_are_bounded(rate: int, seconds: int) -> None:
    with pytest.raises(UsageError):
        LoadRequest(rate, seconds, allowed_anywhere=True)


@pytest.mark.server
def test_a_stranger_is_not_loaded_without_a_word(open_session: OpenSession) -> None:
    with open_session(HonestProxy()) as session:
        session.__dict__["dns"] = (["203.0.113.7"], 0.0)
        with pytest.raises(UsageError) as caught:
            refuse_strangers(session, LoadRequest(10, 1, allowed_anywhere=False))
        refuse_strangers(session, LoadRequest(10, 1, allowed_anywhere=True))
    assert "--yes-load-this-host" in caught.value.hint


def test_the_carried_rate_lies_below_every_failing_one() -> None:
    outcome = LoadOutcome(2000, (step(500), step(1000, p999=0.3), step(1500), step(750)), 1, 1)
    assert outcome.carried == 750
    assert not outcome.fits


def test_a_low_capacity_becomes_a_quota_with_headroom() -> None:
    outcome = LoadOutcome(1800, (step(1350), step(1800, p999=0.4)), 1, 1)
    assert outcome.quota == 1000
    assert "lower this key store's request quota to 1,000/s" in " ".join(outcome.sentences)


def test_the_default_rate_fits_when_it_was_carried() -> None:
    assert "The KMS default of 1,800 requests/s fits." in LoadOutcome(1800, (step(1800),), 1, 1).sentences


def test_a_smaller_rate_says_nothing_about_the_default() -> None:
    assert "use --load 1800" in " ".join(LoadOutcome(100, (step(100),), 1, 1).sentences)


def test_more_than_one_error_in_a_thousand_does_not_fit() -> None:
    assert step(2000, errors={"timeout": 2}).fits
    assert not step(2000, errors={"timeout": 3}).fits


def test_late_answers_and_errors_count_together() -> None:
    """99.9 % were answered 200 within 250 ms, or they were not."""
    assert step(2000, errors={"timeout": 1}, late=1).fits
    assert not step(2000, errors={"timeout": 2}, late=1).fits


def test_a_figure_from_few_requests_is_called_so() -> None:
    few, many = step(1800), replace(step(1800), seconds=10.0, sent=18_000, succeeded=18_000, in_time=18_000)
    assert "only 1,800 requests were sent" in " ".join(LoadOutcome(1800, (few,), 1, 1).sentences)
    assert "only" not in " ".join(LoadOutcome(1800, (many,), 1, 1).sentences)


def test_a_slow_generator_is_admitted_and_no_quota_follows_from_it() -> None:
    late = replace(step(1800, p999=0.4), lag=0.05)
    outcome = LoadOutcome(1800, (step(900), late), 1, 1)
    assert not outcome.conclusive
    assert "could not send on time" in " ".join(outcome.sentences)
    assert "lower" not in " ".join(outcome.sentences)


def test_a_late_generator_does_not_matter_where_the_rate_fits_all_the_same() -> None:
    assert LoadOutcome(100, (replace(step(100), lag=0.05),), 1, 1).conclusive
