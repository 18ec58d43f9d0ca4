"""Use of keys in the catalog: what workers add, what is read of it."""

from __future__ import annotations

import threading
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text, update
from tests.store.samples import KEY, OTHER_KEY, PREFIX

from holdfast.store import schema
from holdfast.store.gauges import look
from holdfast.store.usage import (
    MOST_CALLERS,
    MOST_KMS_KEYS,
    OTHERS,
    Counts,
    Used,
    counted_since,
    several_kms_keys,
    tracking_of,
    usage_of,
)
from holdfast.xks.types import KeyStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.administered import Catalog

    from holdfast.store.usage import KmsKeyUsage

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
ARN = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
OTHER_ARN = ARN.replace("111122223333", "444455556666")
ALICE = "arn:aws:iam::111122223333:user/Alice"


@pytest.fixture
def used_catalog(catalog: Catalog) -> Catalog:
    catalog.create_keystore("main", PREFIX)
    for key in (KEY, OTHER_KEY):
        catalog.register_key("main", key, hsm="hsm", label=key.value)
    return catalog


def used(  # noqa: PLR0913 (what tests vary)
    use: str = "encrypt",
    *,
    arn: str = ARN,
    at: datetime = NOON,
    requests: int = 1,
    principal: str | None = ALICE,
    service: str | None = None,
    key: str = KEY.value,
    generation: int = 1,
) -> Used:
    seconds = at.timestamp()
    day = (at.date() - date(1970, 1, 1)).days
    return Used("main", key, generation, arn, use, day, principal, service, requests, seconds, seconds)


def read(catalog: Catalog) -> list[KmsKeyUsage]:
    with catalog.reading() as state:
        return usage_of(state, "main")


def test_counts_of_several_writes_add_up_by_generation_and_kms_key(used_catalog: Catalog) -> None:
    later = NOON + timedelta(hours=1)
    used_catalog.record_usage([used(requests=3), used("decrypt", requests=2)])
    used_catalog.record_usage([used(at=later), used(at=NOON - timedelta(days=1)), used(arn=OTHER_ARN)])
    first, second = read(used_catalog)
    assert (first.kms_key_arn, first.total) == (ARN, Counts(5, 2, 0))
    assert (first.first_encrypt, first.last_encrypt) == (NOON - timedelta(days=1), later)
    assert (first.first_decrypt, first.last_decrypt, first.last_refusal) == (NOON, NOON, None)
    assert first.days == {date(2026, 11, 24): Counts(1, 0, 0), date(2026, 11, 25): Counts(4, 2, 0)}
    assert counted_since(first.days, date(2026, 11, 25)) == Counts(4, 2, 0)
    assert (second.kms_key_arn, second.total) == (OTHER_ARN, Counts(1, 0, 0))


def test_use_makes_no_version_and_no_record(used_catalog: Catalog) -> None:
    before = used_catalog.version()
    used_catalog.record_usage([used()])
    assert used_catalog.version() == before
    with used_catalog._engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM changes")).scalar() == before - 1


def test_a_second_kms_key_of_an_external_key_is_told_once(used_catalog: Catalog) -> None:
    assert used_catalog.record_usage([used(), used(key=OTHER_KEY.value, arn=OTHER_ARN)]) == []
    (told,) = used_catalog.record_usage([used(arn=OTHER_ARN), used()])
    assert (told.external_key_id, told.kms_key_arn, told.others) == (KEY.value, OTHER_ARN, (ARN,))
    assert used_catalog.record_usage([used(arn=OTHER_ARN)]) == []


def test_two_kms_keys_in_the_first_write_are_told_as_two(used_catalog: Catalog) -> None:
    (told,) = used_catalog.record_usage([used(arn=OTHER_ARN), used()])
    assert {told.kms_key_arn, *told.others} == {ARN, OTHER_ARN}


def test_of_two_workers_at_once_one_tells_of_the_second_kms_key(
    used_catalog: Catalog, open_catalog: Callable[[], Catalog]
) -> None:
    told = []
    together = threading.Barrier(2)

    def work(catalog: Catalog, arn: str) -> None:
        together.wait()
        told.extend(catalog.record_usage([used(arn=arn)]))

    threads = [
        threading.Thread(target=work, args=(catalog, arn))
        for catalog, arn in ((used_catalog, ARN), (open_catalog(), OTHER_ARN))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 1


def test_kms_keys_beyond_the_first_ones_share_a_row(used_catalog: Catalog) -> None:
    arns = [f"{ARN}{number}" for number in range(MOST_KMS_KEYS + 5)]
    used_catalog.record_usage([used(arn=arn) for arn in arns[:MOST_KMS_KEYS]])
    used_catalog.record_usage([used(arn=arn) for arn in arns])
    found = {usage.kms_key_arn: usage.total.encrypts for usage in read(used_catalog)}
    assert found == dict.fromkeys(arns[:MOST_KMS_KEYS], 2) | {OTHERS: 5}


@pytest.mark.parametrize("arn", ["a\x00b", "a\nb", "\udc80", "ä", "x" * 300])
def test_what_is_no_arn_is_counted_without_one(used_catalog: Catalog, arn: str) -> None:
    used_catalog.record_usage([used(arn=arn, principal=arn)])
    (usage,) = read(used_catalog)
    assert (usage.kms_key_arn, usage.total.encrypts, usage.callers) == (OTHERS, 1, ())


def test_the_latest_callers_are_kept_and_the_others_counted(used_catalog: Catalog) -> None:
    for number in range(MOST_CALLERS + 3):
        at = NOON + timedelta(minutes=number)
        used_catalog.record_usage([used(at=at, principal=f"{ALICE}{number}", service="s3.amazonaws.com")])
    (usage,) = read(used_catalog)
    principals = [caller.name for caller in usage.callers if caller.kind == "principal"]
    assert principals == [f"{ALICE}{number}" for number in reversed(range(3, MOST_CALLERS + 3))]
    assert [(one.name, one.requests) for one in usage.callers if one.kind == "service"] == [
        ("s3.amazonaws.com", MOST_CALLERS + 3)
    ]
    assert usage.callers_left_out == 3


def test_sessions_of_a_role_are_one_principal(used_catalog: Catalog) -> None:
    role = "arn:aws:sts::111122223333:assumed-role/app"
    used_catalog.record_usage([used(principal=f"{role}/i-{number}") for number in range(9)])
    (usage,) = read(used_catalog)
    assert [(caller.name, caller.requests) for caller in usage.callers] == [(f"{role}/*", 9)]


def test_a_generation_that_is_gone_takes_its_use_along(used_catalog: Catalog) -> None:
    used_catalog.record_usage([used()])
    used_catalog.set_key_status("main", KEY, KeyStatus.DISABLED)
    used_catalog.unregister_key("main", KEY)
    assert used_catalog.record_usage([used(), used(key=OTHER_KEY.value)]) == []
    assert [usage.external_key_id for usage in read(used_catalog)] == [OTHER_KEY.value]


def test_old_days_are_forgotten_and_totals_are_not(used_catalog: Catalog) -> None:
    used_catalog.record_usage([used(at=datetime.now(UTC) - timedelta(days=500)), used(at=datetime.now(UTC))])
    used_catalog.forget_usage_days()
    (usage,) = read(used_catalog)
    assert (usage.total.encrypts, len(usage.days)) == (2, 1)


def test_what_is_lost_is_counted_in_the_catalog(used_catalog: Catalog) -> None:
    with used_catalog.reading() as state:
        before = tracking_of(state)
    used_catalog.record_usage([used()], lost=3)
    used_catalog.record_usage([used()], lost=4)
    with used_catalog.reading() as state:
        found = tracking_of(state)
    assert before is not None
    assert found is not None
    assert (before.lost, before.lost_at, found.lost, found.since) == (0, None, 7, before.since)
    assert abs(found.since - datetime.now(UTC)) < timedelta(hours=1)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)  # PostgreSQL takes no text in a column of numbers
@pytest.mark.parametrize("column", ["encrypts", "callers_left_out"])
def test_a_row_that_is_wrong_is_left_out(used_catalog: Catalog, column: str) -> None:
    used_catalog.record_usage([used(), used(key=OTHER_KEY.value)])
    with used_catalog._engine.begin() as connection:
        connection.execute(
            update(schema.key_usage).where(schema.key_usage.c.id == 1).values({column: text("'many'")})
        )
    assert [usage.external_key_id for usage in read(used_catalog)] == [OTHER_KEY.value]


def test_a_key_of_several_kms_keys_is_named_until_it_is_pinned(used_catalog: Catalog) -> None:
    used_catalog.record_usage([used(), used("decrypt"), used(key=OTHER_KEY.value), used(arn="no ARN")])
    with used_catalog.reading() as state:
        assert several_kms_keys(state) == {("main", KEY.value): (ARN, "no ARN")}
    with used_catalog.change() as transaction:
        transaction.pin_key("main", KEY, [ARN])
    with used_catalog.reading() as state:
        assert several_kms_keys(state) == {}


def test_the_metrics_count_unused_keys_and_keys_of_several_kms_keys(used_catalog: Catalog) -> None:
    later = datetime.now(UTC) + timedelta(days=100)
    assert look(used_catalog, now=datetime.now(UTC)).keystores["main"].unused == 0
    assert look(used_catalog, now=later).keystores["main"].unused == 2
    used_catalog.record_usage([used(at=later - timedelta(days=1)), used(arn=OTHER_ARN)])
    gauges = look(used_catalog, now=later).keystores["main"]
    assert (gauges.unused, gauges.several_kms_keys) == (1, 1)
