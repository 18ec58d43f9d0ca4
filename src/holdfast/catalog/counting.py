"""Counts the encryptions under each key generation, ahead of making them and without waiting for the database.

NIST SP 800-38D, 8.3 allows one AES-GCM key 2^32 encryptions with random IVs, summed over everybody who uses it.
So each worker reserves encryptions in the catalog in blocks and makes only those it has reserved. What a crash
leaves unused stays counted: the count is wrong upward only, by at most one and a half blocks per worker and key.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from threading import Event
from typing import Protocol

from holdfast.catalog.errors import CatalogError
from holdfast.catalog.snapshot import Generation

FIRST_BLOCK = 2**12
LARGEST_BLOCK = 2**20
"""Encryptions in one reservation. The largest is 0.02 % of a key's 2^32."""
LASTS = 300.0
"""Seconds that half a block should last, so that it bridges an outage of the catalog; else the next is doubled."""
_SMALLEST_BLOCK = 64
"""Close to the stop a block is a quarter of what is left, and at least this: so that workers share the rest."""


@dataclass(frozen=True, slots=True)
class EncryptionLimits:
    """`[encryption_limit]`, in encryptions per key generation (NIST SP 800-38D, 8.3); `stop` None: never."""

    warn: int
    alarm: int
    stop: int | None


class EncryptionLimitReached(CatalogError):
    """The key has made as many encryptions as the configuration allows. It still decrypts."""


class CountUnavailable(CatalogError):
    """No reserved encryption is left and the catalog gave no more. Nothing is encrypted uncounted."""


class Reservations(Protocol):
    """The part of the Catalog that counting needs."""

    def reserve(self, counts: Mapping[int, int]) -> dict[int, int]:
        """Add to generations' encryptions; the new totals of those that exist."""

    def encryption_totals(self) -> dict[int, int]:
        """The total of every generation."""


class EncryptionBudget:
    """One worker's reserved encryptions.

    `take` belongs to the event loop. `prepare`, `refill` and `refresh` do I/O and belong to one other thread,
    which waits for `low`. There is no lock: `granted` and `taken` have one writer each.
    """

    def __init__(
        self,
        catalog: Reservations,
        limits: EncryptionLimits,
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
        self.low = Event()

    def take(self, generation: Generation) -> None:
        """Count one encryption about to be made; no I/O. Raises EncryptionLimitReached or CountUnavailable."""
        account = self._accounts.get(generation.id)
        if account is None:
            raise CountUnavailable(f"the key {generation.label!r} has no encryptions reserved yet; try again")
        left = account.granted - account.taken
        if left <= account.refill_at and not account.asked:
            account.asked = True
            self._low.add(generation.id)
            self.low.set()
        if left <= 0:
            if account.stopped:
                raise EncryptionLimitReached(f"{account.words()}: it is at its stop of {self._limits.stop}")
            raise CountUnavailable(f"{account.words()}: the catalog has reserved no more, and none goes uncounted")
        account.taken += 1

    def counts(self) -> dict[int, int]:
        """The encryptions reserved by every proxy under each generation known here, as last heard."""
        return {identity: account.total for identity, account in self._accounts.copy().items()}

    def prepare(self, generations: Iterable[Generation]) -> None:
        """Reserve a first block for each generation that is new here, in one transaction. Raises CatalogError."""
        fresh = {generation.id: generation for generation in generations if generation.id not in self._accounts}
        if fresh:
            totals = self._catalog.encryption_totals()
            accounts = {identity: _Account(fresh[identity], totals.get(identity, 0)) for identity in fresh}
            self._fill(accounts, dict.fromkeys(accounts, FIRST_BLOCK))
            self._accounts.update(accounts)

    def refill(self) -> None:
        """Reserve the next block for each generation that is half empty, in one transaction. Raises CatalogError."""
        low = {identity: self._accounts[identity] for identity in self._low.copy()}
        if low:
            now = self._monotonic()
            self._fill(low, {identity: account.next_block(now) for identity, account in low.items()})

    def refresh(self) -> None:
        """Hear what the other proxies have reserved. Raises CatalogError."""
        if self._accounts:
            for identity, total in self._catalog.encryption_totals().items():
                if identity in self._accounts:
                    self._hear(self._accounts[identity], total)

    def _fill(self, accounts: Mapping[int, "_Account"], blocks: Mapping[int, int]) -> None:
        counts = {identity: self._within_stop(blocks[identity], accounts[identity].total) for identity in accounts}
        wanted = {identity: count for identity, count in counts.items() if count}
        totals = self._catalog.reserve(wanted) if wanted else {}
        now = self._monotonic()
        for identity, account in accounts.items():
            self._hear(account, totals.get(identity, account.total))
            if identity in totals:
                account.grant(counts[identity] - self._over_stop(totals[identity]), blocks[identity], now)
            account.stopped = self._limits.stop is not None and account.total >= self._limits.stop
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
        before, account.warned_at, account.total = account.warned_at, total, total
        if before < self._limits.alarm <= total:
            self._on_warning(
                f"ALARM: {account.words()}, half of what NIST SP 800-38D allows one key or more:"
                " replace it now; at the stop it will only decrypt"
            )
        elif before < self._limits.warn <= total:
            self._on_warning(f"{account.words()}: plan its replacement before it reaches 2^32")


class _Account:
    """What one worker holds of one generation."""

    __slots__ = (
        "asked",
        "block",
        "filled_at",
        "generation",
        "granted",
        "refill_at",
        "stopped",
        "taken",
        "total",
        "warned_at",
    )

    def __init__(self, generation: Generation, total: int) -> None:
        self.generation = generation
        self.total = total
        self.warned_at = -1  # a total that was over a threshold before this start is warned of once more
        self.granted = 0
        self.taken = 0
        self.block = FIRST_BLOCK
        self.refill_at = 0
        self.filled_at = 0.0
        self.asked = False
        self.stopped = False

    def next_block(self, now: float) -> int:
        """Twice the last one if half of that did not last."""
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
        return f"the key {generation.label!r} in the HSM {generation.hsm!r} has made up to {self.total} encryptions"
