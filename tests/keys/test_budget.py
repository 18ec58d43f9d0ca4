"""The budget against a catalog in memory, which adds as the real one does, and fails when told to."""

import asyncio
from collections.abc import Collection, Mapping
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.config.storage import EncryptionLimits
from holdfast.keys.budget import (
    FIRST_BLOCK,
    LARGEST_BLOCK,
    LASTS,
    CountUnavailable,
    EncryptionBudget,
    EncryptionLimitReached,
)
from holdfast.keys.model import Generation
from holdfast.store.errors import Unavailable

KEY = Generation(1, 1, "hsm", "label-1")
OTHER = Generation(2, 1, "hsm", "label-2")
NO_LIMITS = EncryptionLimits(2**60, 2**61, None)


class Ledger:
    """The catalog's counts, without its database."""

    def __init__(self, **totals: int) -> None:
        self.totals = {1: 0, 2: 0} | {int(name[1:]): total for name, total in totals.items()}
        self.down = False
        self.reservations = 0

    def reserve(self, counts: Mapping[int, int]) -> dict[int, int]:
        """As the Catalog's."""
        if self.down:
            raise Unavailable("down")
        self.reservations += 1
        for identity, count in counts.items():
            assert count > 0
            self.totals[identity] += count
        return {identity: self.totals[identity] for identity in counts}

    def give_back(self, counts: Mapping[int, int], *, heard: Mapping[int, int]) -> None:
        """As the Catalog's."""
        if self.down:
            raise Unavailable("down")
        for identity, count in counts.items():
            if self.totals[identity] >= heard[identity]:
                self.totals[identity] -= count

    def encryption_totals(self, generations: Collection[int]) -> dict[int, int]:
        """As the Catalog's."""
        if self.down:
            raise Unavailable("down")
        return {identity: self.totals[identity] for identity in generations}


class Worker:
    """A budget with a clock and an ear for warnings."""

    def __init__(self, ledger: Ledger, limits: EncryptionLimits = NO_LIMITS) -> None:
        self.time = 0.0
        self.warnings: list[str] = []
        self.budget = EncryptionBudget(ledger, limits, monotonic=lambda: self.time, on_warning=self.warnings.append)

    def take(self, times: int, key: Generation = KEY) -> None:
        """So many encryptions; CountUnavailable where a request would have to wait."""
        for _ in range(times):
            if not self.budget.take_reserved(key):
                raise CountUnavailable("it would wait")

    def first_use(self, *keys: Generation) -> None:
        """Ask for keys for the first time, and let the writer reserve for them."""
        for key in keys:
            assert not self.budget.take_reserved(key)
        self.budget.low.clear()
        self.budget.refill()


def test_nothing_is_reserved_before_the_first_use() -> None:
    ledger = Ledger()
    worker = Worker(ledger)
    worker.budget.refill()
    assert (ledger.reservations, worker.budget.counts()) == (0, {})


def test_a_key_in_use_needs_no_catalog_for_its_first_block() -> None:
    ledger = Ledger()
    worker = Worker(ledger)
    worker.first_use(KEY, OTHER)
    ledger.down = True
    worker.take(FIRST_BLOCK)
    with pytest.raises(Unavailable):
        worker.budget.refill()
    with pytest.raises(CountUnavailable):
        worker.budget.take_reserved(KEY)
    worker.take(1, OTHER)
    assert (ledger.reservations, ledger.totals) == (1, {1: FIRST_BLOCK, 2: FIRST_BLOCK})


def test_a_first_use_waits_for_its_reservation() -> None:
    ledger = Ledger()
    worker = Worker(ledger)

    async def use() -> None:
        request = asyncio.create_task(worker.budget.take(KEY, deadline=10.0))
        await asyncio.to_thread(worker.budget.low.wait)
        await asyncio.to_thread(worker.budget.refill)
        await request

    asyncio.run(use())
    assert worker.budget._accounts[KEY.id].taken == 1


def test_a_first_use_does_not_wait_beyond_its_deadline() -> None:
    with pytest.raises(CountUnavailable, match="has not reserved more in time"):
        asyncio.run(Worker(Ledger()).budget.take(KEY, deadline=0.0))


def test_a_first_use_is_refused_at_once_while_the_catalog_is_down() -> None:
    ledger = Ledger()
    ledger.down = True
    worker = Worker(ledger)
    with pytest.raises(Unavailable):
        worker.first_use(KEY)
    with pytest.raises(CountUnavailable, match="reserves no more"):
        asyncio.run(worker.budget.take(KEY, deadline=10.0))


def test_what_was_not_made_is_given_back() -> None:
    ledger = Ledger(_1=1000)
    worker, other = Worker(ledger), Worker(ledger)
    worker.first_use(KEY)
    other.first_use(KEY)
    worker.take(7)
    worker.budget.give_back()
    worker.budget.give_back()
    assert ledger.totals[1] == 1000 + 7 + FIRST_BLOCK
    with pytest.raises(CountUnavailable):
        worker.take(1)


def test_nothing_is_given_back_to_an_older_catalog() -> None:
    """What this worker reserved is not in a restored backup."""
    ledger = Ledger(_1=1000)
    worker = Worker(ledger)
    worker.first_use(KEY)
    ledger.totals[1] = 900
    worker.budget.give_back()
    assert ledger.totals[1] == 900


def test_a_count_that_falls_far_is_told_and_not_believed() -> None:
    ledger = Ledger(_1=2**30)
    worker = Worker(ledger)
    worker.first_use(KEY)
    for total, told in ((2**30 - 1000, False), (5, True)):
        ledger.totals[1] = total
        worker.budget.refresh()
        assert worker.budget.counts()[1] == 2**30 + FIRST_BLOCK
        assert any("someone changed the count" in text for text in worker.warnings) is told


def test_a_block_is_refilled_at_half() -> None:
    ledger = Ledger()
    worker = Worker(ledger)
    worker.first_use(KEY)
    worker.take(FIRST_BLOCK // 2)
    assert not worker.budget.low.is_set()
    worker.take(1)
    assert worker.budget.low.is_set()
    worker.budget.refill()
    worker.budget.refill()
    assert ledger.reservations == 2


def test_a_busy_keys_blocks_double_up_to_the_largest() -> None:
    ledger = Ledger()
    worker = Worker(ledger)
    worker.first_use(KEY)
    blocks = []
    for _ in range(12):
        while not worker.budget.low.is_set():
            worker.budget._accounts[KEY.id].taken += 64  # as 64 calls of take
            worker.take(1)
        worker.budget.low.clear()
        before = ledger.totals[1]
        worker.budget.refill()
        blocks.append(ledger.totals[1] - before)
    assert blocks[:3] == [2 * FIRST_BLOCK, 4 * FIRST_BLOCK, 8 * FIRST_BLOCK]
    assert blocks[-1] == LARGEST_BLOCK == max(blocks)


def test_a_quiet_keys_blocks_stay_small() -> None:
    ledger = Ledger()
    worker = Worker(ledger)
    worker.first_use(KEY)
    worker.take(FIRST_BLOCK // 2 + 1)
    worker.time = LASTS
    worker.budget.refill()
    assert ledger.totals[1] == 2 * FIRST_BLOCK


def test_a_refill_that_failed_is_tried_again() -> None:
    ledger = Ledger()
    worker = Worker(ledger)
    worker.first_use(KEY)
    worker.take(FIRST_BLOCK)
    ledger.down = True
    for _ in range(3):
        with pytest.raises(Unavailable):
            worker.budget.refill()
    ledger.down = False
    worker.budget.refill()
    worker.take(2 * FIRST_BLOCK)
    assert ledger.totals[1] == 3 * FIRST_BLOCK


def test_nothing_is_encrypted_past_the_stop() -> None:
    ledger = Ledger(_1=90)
    worker = Worker(ledger, EncryptionLimits(1, 2, 100))
    worker.first_use(KEY)
    worker.take(10)
    with pytest.raises(EncryptionLimitReached, match="has made up to 100 encryptions: it is at its stop of 100"):
        worker.take(1)


def test_a_stopped_key_is_counted_no_further() -> None:
    """Restarts of a worker do not move the count of a key at its stop."""
    ledger = Ledger(_1=100)
    for _ in range(2):
        worker = Worker(ledger, EncryptionLimits(1, 2, 100))
        worker.first_use(KEY)
        for _ in range(2):
            with pytest.raises(EncryptionLimitReached):
                worker.take(1)
            worker.budget.refill()
    assert (ledger.totals[1], ledger.reservations) == (100, 0)


def test_without_a_stop_a_key_goes_on() -> None:
    worker = Worker(Ledger(_1=2**32), EncryptionLimits(2**30, 2**31, None))
    worker.first_use(KEY)
    worker.take(FIRST_BLOCK)


def test_that_nothing_stops_a_key_is_told_at_the_start_and_at_2_to_the_32nd() -> None:
    worker = Worker(Ledger(_1=2**32 - FIRST_BLOCK - 1), EncryptionLimits(2**30, 2**31, None))
    worker.budget.warn_without_stop()
    worker.first_use(KEY)
    worker.take(FIRST_BLOCK)
    worker.budget.refill()
    assert [text.startswith("ALARM") for text in worker.warnings] == [True] * 3
    assert '"never"' in worker.warnings[0]
    assert "more than the 2^32 that NIST" in worker.warnings[2]


def test_each_threshold_is_told_once() -> None:
    ledger = Ledger()
    worker = Worker(ledger, EncryptionLimits(5_000, 10_000, None))
    worker.first_use(KEY)
    assert worker.warnings == []
    for total in (5_000, 6_000, 9_999):
        ledger.totals[1] = total
        worker.budget.refresh()
    assert len(worker.warnings) == 1
    for total in (10_000, 20_000):
        ledger.totals[1] = total
        worker.budget.refresh()
    assert len(worker.warnings) == 2
    assert worker.warnings[1].startswith("ALARM: the key 'label-1' in the HSM 'hsm' has made up to 10000 encryptions")


def test_a_key_over_its_alarm_is_told_at_every_start() -> None:
    worker = Worker(Ledger(_1=100), EncryptionLimits(10, 20, 50))
    worker.first_use(KEY)
    assert [text.partition(":")[0] for text in worker.warnings] == ["ALARM"]


def test_counts_are_the_catalogs() -> None:
    ledger = Ledger()
    worker = Worker(ledger)
    worker.first_use(KEY)
    ledger.totals[1] += 1_000_000
    assert worker.budget.counts() == {1: FIRST_BLOCK}
    worker.budget.refresh()
    assert worker.budget.counts() == {1: FIRST_BLOCK + 1_000_000}


def test_a_generation_the_catalog_lost_is_not_encrypted_with() -> None:
    """A catalog restored from an old backup may not know a key that a snapshot still has."""

    class Forgetful(Ledger):
        def reserve(self, counts: Mapping[int, int]) -> dict[int, int]:
            return super().reserve({identity: count for identity, count in counts.items() if identity != KEY.id})

    worker = Worker(Forgetful())
    worker.first_use(KEY, OTHER)
    worker.take(1, OTHER)
    with pytest.raises(CountUnavailable):
        worker.take(1)


@given(
    stop=st.one_of(st.none(), st.integers(1, 20_000)),
    start=st.integers(0, 20_000),
    steps=st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from(["take", "refill", "down", "up", "crash", "end"]),
            st.integers(1, 5_000),
        ),
        max_size=40,
    ),
)
def test_no_encryption_is_uncounted_or_past_the_stop(
    stop: int | None, start: int, steps: list[tuple[int, str, int]]
) -> None:
    """Whatever three workers do, crash and orderly end included: made <= counted, and made <= stop."""
    ledger = Ledger(_1=start)
    limits = EncryptionLimits(1, 2, stop)
    workers = [Worker(ledger, limits) for _ in range(3)]
    made = start
    for index, step, times in steps:
        worker = workers[index]
        match step:
            case "take":
                with suppress(CountUnavailable, EncryptionLimitReached):
                    for _ in range(times):
                        worker.take(1)
                        made += 1
            case "refill":
                with suppress(Unavailable):
                    worker.budget.refill()
            case "crash":
                workers[index] = Worker(ledger, limits)
            case "end":
                with suppress(Unavailable):
                    worker.budget.give_back()
                workers[index] = Worker(ledger, limits)
            case _:
                ledger.down = step == "down"
        assert made <= ledger.totals[1]
        assert stop is None or made <= max(start, stop)
