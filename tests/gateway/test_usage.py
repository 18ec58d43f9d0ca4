"""Counting who uses which key, and writing the counts beside the requests."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from tests.administered import Catalog
from tests.store.conftest import now
from tests.store.samples import KEY, PREFIX
from tests.waiting import eventually

from holdfast.gateway.observe import usage_tally
from holdfast.gateway.observe.usage_tally import UsageTally
from holdfast.gateway.worker.usage_writer import INTERVAL, UsageWriter
from holdfast.protocols.xks.event import Event
from holdfast.store.errors import Unavailable
from holdfast.store.usage import Counts, tracking_of, usage_of
from holdfast.xks.errors import ErrorName
from holdfast.xks.messages import RequestMetadata
from holdfast.xks.types import Operation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ARN = "arn:aws:kms:eu-central-1:111122223333:key/1"
OTHER_ARN = "arn:aws:kms:eu-central-1:111122223333:key/2"
MIDNIGHT = 20_000 * 86_400.0


def event(
    operation: Operation = Operation.ENCRYPT,
    *,
    error: ErrorName | None = None,
    arn: str = ARN,
    principal: str = "arn:aws:iam::111122223333:user/Alice",
    generation: int | None = 1,
) -> Event:
    metadata = RequestMetadata("Encrypt", "id", aws_principal_arn=principal, kms_key_arn=arn)
    return Event(operation, "main", KEY.value, generation, metadata=metadata, error=error)


def counted(tally: UsageTally) -> dict[str, float]:
    sums: dict[str, float] = {}
    for key, row in tally.rows.items():
        sums[key[4]] = sums.get(key[4], 0) + row[0]
    return sums


def test_only_what_found_its_generation_and_was_served_or_forbidden_is_counted() -> None:
    tally = UsageTally()
    for one in (
        event(),
        event(Operation.DECRYPT),
        event(Operation.DECRYPT, error=ErrorName.INVALID_STATE),
        event(error=ErrorName.THROTTLING),
        event(Operation.DECRYPT, error=ErrorName.INVALID_CIPHERTEXT),
        event(Operation.GET_KEY_METADATA),
        event(generation=None),
    ):
        tally.add(one, MIDNIGHT)
    assert counted(tally) == {"encrypt": 1, "decrypt": 1, "refusal": 1}


def test_each_day_is_counted_for_itself() -> None:
    tally = UsageTally()
    for at in (MIDNIGHT - 0.1, MIDNIGHT, MIDNIGHT + 86_399, MIDNIGHT - 0.2):
        tally.add(event(), at)
    assert {key[5]: row for key, row in tally.rows.items()} == {
        19_999: [2, MIDNIGHT - 0.1, MIDNIGHT - 0.2],
        20_000: [2, MIDNIGHT, MIDNIGHT + 86_399],
    }


def test_the_tally_is_bounded_and_says_what_it_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_tally, "MOST", 3)
    tally = UsageTally()
    for number in range(5):
        tally.add(event(principal=f"user-{number}"), MIDNIGHT)
    assert [key[6] for key in tally.rows] == ["user-0", "user-1", "user-2", None]
    for number in range(5):
        tally.add(event(arn=f"{ARN}{number}"), MIDNIGHT)
    assert (len(tally.rows), sum(row[0] for row in tally.rows.values()), tally.lost) == (6, 7, 3)


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.time = 1_000.0

    def __call__(self) -> float:
        """Seconds."""
        return self.time


class Written:
    """A writer on a catalog of its own, which `broken` makes fail."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.catalog = Catalog.create_or_upgrade(f"sqlite:///{directory}/catalog.db", directory / "secrets", now=now)
        self.catalog.create_keystore("main", PREFIX)
        self.catalog.register_key("main", KEY, hsm="hsm", label="key")
        self.clock = Clock()
        self.said: list[str] = []
        self.broken = threading.Event()
        self.tries = 0
        really = self.catalog.record_usage

        def record(*arguments: object, **more: object) -> object:
            self.tries += 1
            if self.broken.is_set():
                raise Unavailable("the catalog is gone")
            return really(*arguments, **more)  # type: ignore[arg-type] # as they came

        monkeypatch.setattr(self.catalog, "record_usage", record)
        self.writer = UsageWriter(self.catalog, monotonic=self.clock, on_warning=self.said.append)

    def total(self) -> Counts:
        """What the catalog has."""
        with self.catalog.reading() as state:
            found = [usage.total for usage in usage_of(state)]
        return Counts(sum(one.encrypts for one in found), sum(one.decrypts for one in found))


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    made = Written(tmp_path, monkeypatch)
    made.writer.start()
    yield made
    if made.writer.thread.is_alive():
        made.writer.stop()
    made.catalog.close()


def test_the_first_use_is_written_at_once_and_what_follows_after_the_interval(written: Written) -> None:
    written.writer.add(event(), MIDNIGHT)
    written.writer.turn()
    eventually(lambda: written.total() == Counts(1, 0), within=10)
    written.writer.add(event(), MIDNIGHT)
    written.writer.turn()
    written.clock.time += INTERVAL - 1
    written.writer.turn()
    assert written.tries == 1
    written.clock.time += 1

    def is_written() -> bool:
        written.writer.turn()  # the thread may still be busy with what was first
        return written.total() == Counts(2, 0)

    eventually(is_written, within=10)


def test_a_catalog_that_is_gone_costs_nothing_but_a_warning_and_gets_everything_later(written: Written) -> None:
    written.broken.set()
    written.writer.add(event(), MIDNIGHT)
    written.writer.turn()
    eventually(lambda: written.tries == 1 and bool(written.said), within=10)
    for _ in range(3):
        written.writer.add(event(Operation.DECRYPT), MIDNIGHT)
    written.broken.clear()
    written.writer.stop()
    assert written.total() == Counts(1, 3)
    assert written.said == ["the catalog is gone; the use of keys is recorded later"]
    assert written.writer.lost == 0


def test_what_cannot_be_written_at_the_end_is_told(written: Written) -> None:
    written.broken.set()
    for _ in range(4):
        written.writer.add(event(), MIDNIGHT)
    written.writer.stop()
    assert written.said[-1] == "4 requests are missing from what the catalog knows of the use of keys"


def test_what_was_lost_is_told_in_the_catalog_and_counted(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_tally, "MOST", 1)
    for number in range(5):
        written.writer.add(event(arn=f"{ARN}{number}"), MIDNIGHT)
    written.writer.stop()
    with written.catalog.reading() as state:
        tracking = tracking_of(state)
    assert tracking is not None
    assert (tracking.lost, written.writer.lost, written.total()) == (3, 3, Counts(2, 0))


def test_a_second_kms_key_is_warned_of_once(written: Written) -> None:
    for arn in (ARN, OTHER_ARN, OTHER_ARN):
        written.writer.add(event(arn=arn), MIDNIGHT)
    written.writer.stop()
    (warning,) = written.said
    assert f"main/{KEY.value} is used by another KMS key, {OTHER_ARN}: before, it was {ARN}" in warning


def test_what_holdfast_itself_tries_is_no_use(written: Written) -> None:
    written.writer.add(event(principal="arn:aws:iam::123456789012:user/holdfast-prove"), MIDNIGHT)
    written.writer.add(event(), MIDNIGHT)
    written.writer.stop()
    assert written.total() == Counts(1, 0)
