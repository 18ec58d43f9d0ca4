"""Who uses which key for what, counted per request, so that only sums go to the catalog."""

from holdfast.protocols.xks.event import Event
from holdfast.xks.errors import ErrorName
from holdfast.xks.types import Operation

MOST = 10_000
"""Different counts that are held. Beyond them callers are left out, and beyond twice as many requests are lost."""
_DAY = 86_400.0
_USES = {Operation.ENCRYPT: "encrypt", Operation.DECRYPT: "decrypt"}

Key = tuple[str, str, int, str, str, int, str | None, str | None]
"""As the fields of `holdfast.store.usage.Used` before `requests`."""


class UsageTally:
    """Counts by key generation, KMS key, day and caller. Belongs to one thread.

    A row is [requests, when the first and the last of them ended].
    """

    def __init__(self) -> None:
        self.rows: dict[Key, list[float]] = {}
        self.lost = 0
        """Requests that are in no row."""
        self._day = 0
        self._day_ends = 0.0

    def add(self, event: Event, ended: float) -> None:
        """Count an Encrypt or Decrypt that found its generation; seconds since 1970."""
        generation, metadata = event.generation, event.metadata
        if generation is None or metadata is None or event.operation is None:
            return
        if event.error is None:
            use = _USES.get(event.operation)
        else:
            use = "refusal" if event.error is ErrorName.INVALID_STATE else None
        if use is None:
            return
        if ended >= self._day_ends or ended < self._day_ends - _DAY:
            self._day = int(ended // _DAY)
            self._day_ends = (self._day + 1) * _DAY
        key = (
            event.keystore or "",
            event.external_key_id or "",
            generation,
            metadata.kms_key_arn or "",
            use,
            self._day,
            metadata.aws_principal_arn,
            metadata.kms_via_service,
        )
        row = self.rows.get(key)
        if row is None:
            self.merge(key, [1, ended, ended])
        else:
            row[0] += 1
            row[2] = ended

    def merge(self, key: Key, row: list[float]) -> None:
        """Add a row. What there is no room for is counted without its caller, or as lost."""
        rows = self.rows
        if key not in rows and len(rows) >= MOST:
            key = (*key[:6], None, None)
        own = rows.get(key)
        if own is not None:
            rows[key] = [own[0] + row[0], min(own[1], row[1]), max(own[2], row[2])]
        elif len(rows) < 2 * MOST:
            rows[key] = row
        else:
            self.lost += int(row[0])

    def take(self) -> "UsageTally":
        """What was counted so far, and is not held here any more."""
        taken = UsageTally()
        taken.rows, self.rows = self.rows, taken.rows
        taken.lost, self.lost = self.lost, 0
        return taken
