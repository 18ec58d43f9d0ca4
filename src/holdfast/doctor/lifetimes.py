"""Doctor on the age of keys: which should rotate, and whose data should not be needed any more."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from holdfast.control.schedule import DueKey
from holdfast.finding import Finding, note, ok, warning
from holdfast.keys.states import GenerationState
from holdfast.store.reads import KeyRow

_SUBJECT = "rotation"


def examine_lifetimes(keys: Sequence[KeyRow], due: Sequence[DueKey], now: datetime) -> Iterator[Finding]:
    """Findings on keys that are due, and on generations beyond their recipient-usage period."""
    for one in due:
        name = f"{one.row.keystore} {one.row.external_key_id}"
        yield warning(
            "rotation-due",
            f"key {one.row.keystore}/{one.row.external_key_id}",
            f"generation {one.row.generation} should not encrypt any more: {one.why}",
            why="The longer one HSM key encrypts, the more hangs on it. At 2^32 encryptions it is stopped.",
            remedy=f"`holdfast key rotate {name}`, or `holdfast key rotate due` for all of them."
            if one.by_hand is None
            else f"By hand, as {one.by_hand}.",
        )
    old = [row for row in keys if _is_past(row, now)]
    if old:
        first = f"{old[0].keystore}/{old[0].external_key_id} generation {old[0].generation}"
        others = " and others" if len(old) > 1 else ""
        yield note(
            "recipient-period-over",
            _SUBJECT,
            f"generations that decrypt beyond their recipient period: {len(old)} ({first}{others})",
            why="Their data was to be gone, or encrypted again, by then.",
            remedy="`holdfast key usage` shows who needs them; `holdfast key generation suspend` tries it out.",
        )
    if keys and not due and not old:
        yield ok("rotation", _SUBJECT, "no key is due")


def _is_past(row: KeyRow, now: datetime) -> bool:
    end = row.description.cryptoperiod.decrypts_until(row.activated_at)
    return end is not None and end <= now and row.state in (GenerationState.RETIRED, GenerationState.COMPROMISED)
