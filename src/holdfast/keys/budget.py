"""Counts the encryptions under each key generation, ahead of making them and without waiting for the database.

NIST SP 800-38D, 8.3 allows one AES-GCM key 2^32 encryptions with random IVs, summed over everybody who uses it.
So each worker reserves encryptions in the catalog in blocks, the first when a key is first used, and makes only those
it has reserved. A worker that ends in order gives back what it has not made; what a crash leaves unused stays
counted. So the count is wrong upward only, by at most one and a half blocks per worker and key.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from threading import Event
from typing import Protocol

from holdfast.keys.model import Generation

FIRST_BLOCK = 2**12
LARGEST_BLOCK = 2**20
"""Encryptions in one reservation. The largest is 0.02 % of a key's 2^32."""
NIST_LIMIT = 2**32
"""Encryptions under one key with random IVs (NIST SP 800-38D, 8.3)."""
LASTS = 300.0
"""Seconds that half a block should last, so that it bridges an outage of the catalog; else the next is doubled."""
_SMALLEST_BLOCK = 64
"""Close to the stop a block is a quarter of what is left, and at least this: so that workers share the rest."""
_LARGEST_RETURN = 2**27
"""A total that falls by more than this was not given back: 85 workers that return one and a half largest blocks."""


class Limits(Protocol):
    """Encryptions per key generation at which something happens, as the configuration says."""

    @property
    def warn(self) -> int:
        """One warning in the log."""

    @property
    def alarm(self) -> int:
        """An alarm in the log."""

    @property
    def stop(self) -> int | None:
        """The key only decrypts from here on; None: never."""


class EncryptionLimitReached(Exception):
    """The key has made as many encryptions as the configuration allows. It still decrypts."""


class CountUnavailable(Exception):
    """No reserved encryption is left and the catalog gave no more. Nothing is encrypted uncounted."""


class Reservations(Protocol):
    """The part of the Catalog that counting needs. By generation's row; one that is not there is left out."""

    def reserve(self, counts: Mapping[int, int]) -> dict[int, int]:
        """Add to generations' encryptions; the new totals."""

    def give_back(self, counts: Mapping[int, int], *, heard: Mapping[int, int]) -> None:
        """Take from generations' encryptions where the total is not lower than the one `heard`."""

    def encryption_totals(self, generations: Collection[int]) -> dict[int, int]:
        """The totals."""


class EncryptionBudget:
    """One worker's reserved encryptions.

    `take` belongs to the event loop. `refill`, `refresh` and `give_back` do I/O and belong to one other thread, which
    waits for `low`. There is no lock: `granted` and `taken` have one writer each.
    """

    def __init__(
        self,
        catalog: Reservations,
        limits: Limits,
        *,
        monotonic: Callable[[], float],
        on_warning: Callable[[str], None],
    ) -> None:
        self._catalog = catalog
        self._limits = limits
        self._monotonic = monotonic
        self._on_warning = on_warning
        self._accounts: dict[int, _Account] = {}
        self._low: set[int] = set()
        self._failing = False
        self._waiting: list[asyncio.Future[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self.low = Event()

    async def take(self, generation: Generation, *, deadline: float) -> None:
        """Count one encryption about to be made; waits for a reservation where none is left, until `deadline`.

        `deadline` is on the clock `monotonic`. Raises EncryptionLimitReached or CountUnavailable.
        """
        self._loop = asyncio.get_running_loop()
        while not self.take_reserved(generation):
            waiting = self._loop.create_future()
            self._waiting.append(waiting)
            try:
                await asyncio.wait_for(waiting, deadline - self._monotonic())
            except TimeoutError:
                raise CountUnavailable(
                    f"{self._accounts[generation.id].words()}: the catalog has not reserved more in time"
                ) from None

    def take_reserved(self, generation: Generation) -> bool:
        """`take` without waiting; False: nothing is reserved, and a reservation is on its way."""
        account = self._accounts.get(generation.id)
        if account is None:
            account = self._accounts[generation.id] = _Account(generation)
        left = account.granted - account.taken
        if left > 0:
            account.taken += 1
        if left <= account.refill_at and not account.asked:
            account.asked = True
            self._low.add(generation.id)
            self.low.set()
        if left > 0:
            return True
        if account.stopped:
            raise EncryptionLimitReached(f"{account.words()}: it is at its stop of {self._limits.stop}")
        if self._failing or account.missing:
            raise CountUnavailable(f"{account.words()}: the catalog reserves no more, and none goes uncounted")
        return False

    def warn_without_stop(self) -> None:
        """Say, if it is so, that keys may encrypt without end."""
        if self._limits.stop is None:
            self._on_warning(
                'ALARM: `stop` in [encryption_limit] is "never": keys go on beyond the 2^32 encryptions that NIST SP'
                " 800-38D allows. A repeated IV gives away what AES-GCM protects"
            )

    def counts(self) -> dict[int, int]:
        """The encryptions reserved by every proxy under each generation used here, as last heard."""
        accounts = self._accounts.copy()
        return {identity: account.total for identity, account in accounts.items() if account.total is not None}

    def refill(self) -> None:
        """Reserve the next block for each generation that is half empty, in one transaction. Raises CatalogError."""
        low = {identity: self._accounts[identity] for identity in self._low.copy()}
        if not low:
            return
        try:
            self._hear_first(low)
            self._fill(low)
            self._failing = False
        except BaseException:
            self._failing = True
            raise
        finally:
            if self._loop is not None:
                with suppress(RuntimeError):  # the event loop has ended, and with it all that waited
                    self._loop.call_soon_threadsafe(self._wake)

    def refresh(self) -> None:
        """Hear what the other proxies have reserved. Raises CatalogError."""
        accounts = self._accounts.copy()
        if accounts:
            for identity, total in self._catalog.encryption_totals(accounts.keys()).items():
                self._hear(accounts[identity], total)

    def give_back(self) -> None:
        """Return what was reserved and not made. Nothing may be taken any more. Raises CatalogError."""
        left = {
            identity: account.granted - account.taken
            for identity, account in self._accounts.items()
            if account.granted > account.taken
        }
        for identity in left:
            self._accounts[identity].granted = self._accounts[identity].taken
        if left:
            self._catalog.give_back(left, heard={identity: self._accounts[identity].total or 0 for identity in left})

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.done():
                one.set_result(None)

    def _hear_first(self, accounts: Mapping[int, "_Account"]) -> None:
        new = [identity for identity, account in accounts.items() if account.total is None]
        if new:
            totals = self._catalog.encryption_totals(new)
            for identity in new:
                if identity in totals:
                    self._hear(accounts[identity], totals[identity])

    def _fill(self, accounts: Mapping[int, "_Account"]) -> None:
        now = self._monotonic()
        blocks = {identity: account.next_block(now) for identity, account in accounts.items()}
        counts = {
            identity: self._within_stop(blocks[identity], accounts[identity].total or 0) for identity in accounts
        }
        wanted = {
            identity: count for identity, count in counts.items() if count and accounts[identity].total is not None
        }
        totals = self._catalog.reserve(wanted) if wanted else {}
        for identity, account in accounts.items():
            if identity in totals:
                self._hear(account, totals[identity])
                account.grant(counts[identity] - self._over_stop(totals[identity]), blocks[identity], now)
            account.missing = account.total is None or (identity in wanted and identity not in totals)
            account.stopped = self._limits.stop is not None and (account.total or 0) >= self._limits.stop
            # In this order: a request that asks in between would otherwise be forgotten.
            self._low.discard(identity)
            account.asked = account.stopped

    def _within_stop(self, block: int, total: int) -> int:
        """The block, smaller close to the stop; 0 at it, so that restarts do not push the count further."""
        if self._limits.stop is None:
            return block
        left = max(0, self._limits.stop - total)
        return min(block, left, max(left // 4, _SMALLEST_BLOCK))

    def _over_stop(self, total: int) -> int:
        return 0 if self._limits.stop is None else max(0, total - self._limits.stop)

    def _hear(self, account: "_Account", total: int) -> None:
        """Take over a total. It may fall by what other workers give back; here it counts as the highest heard."""
        heard = account.total or 0
        if total < heard - _LARGEST_RETURN:
            self._on_warning(
                f"ALARM: {account.words()}, and the catalog says {total} now: an older catalog was restored, or"
                " someone changed the count. This proxy continues with the higher one"
            )
        account.total = max(total, heard)
        before, account.warned_at = account.warned_at, account.total
        if before < NIST_LIMIT <= account.total and self._limits.stop is None:
            self._on_warning(
                f"ALARM: {account.words()}: more than the 2^32 that NIST SP 800-38D allows one key. It goes on, since"
                ' `stop` in [encryption_limit] is "never"'
            )
        elif before < self._limits.alarm <= account.total:
            self._on_warning(
                f"ALARM: {account.words()}, half of what NIST SP 800-38D allows one key or more:"
                " replace it now; at the stop it will only decrypt"
            )
        elif before < self._limits.warn <= account.total:
            self._on_warning(f"{account.words()}: plan its replacement before it reaches 2^32")


class _Account:
    """What one worker holds of one generation. `total` None: not heard yet. `missing`: the catalog counts none."""

    __slots__ = (
        "asked",
        "block",
        "filled_at",
        "generation",
        "granted",
        "missing",
        "refill_at",
        "stopped",
        "taken",
        "total",
        "warned_at",
    )

    def __init__(self, generation: Generation) -> None:
        self.generation = generation
        self.total: int | None = None
        self.warned_at = -1  # a total that was over a threshold before this start is warned of once more
        self.granted = 0
        self.taken = 0
        self.block = 0
        self.refill_at = 0
        self.filled_at = 0.0
        self.asked = False
        self.stopped = False
        self.missing = False

    def next_block(self, now: float) -> int:
        """Twice the last one if half of that did not last."""
        if not self.block:
            return FIRST_BLOCK
        return min(self.block * 2, LARGEST_BLOCK) if now - self.filled_at < LASTS else self.block

    def grant(self, count: int, block: int, now: float) -> None:
        """Add `count` encryptions, reserved as a block of the size `block`."""
        self.block = block
        self.refill_at = max(count, 0) // 2
        self.filled_at = now
        self.granted += max(count, 0)

    def words(self) -> str:
        """The key and its count, for people."""
        generation = self.generation
        return (
            f"the key {generation.label!r} in the HSM {generation.hsm!r} has made up to {self.total or 0} encryptions"
        )
