"""What is known of the use of keys, put together for decisions: who would stop, what is unused, what may go.

All of it is of requests that were served here. That none was seen proves nothing: data that lies cold, in backups and
archives, is asked for when it is read.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from holdfast.control.explanations import moment
from holdfast.control.lookup import find_keystore
from holdfast.keys.states import GenerationState
from holdfast.store.reads import KeyRow, Reading
from holdfast.store.usage import (
    OTHERS,
    Caller,
    Counts,
    KmsKeyUsage,
    Tracking,
    counted_since,
    total_of,
    tracking_of,
    usage_of,
)
from holdfast.xks.types import KeyStatus

WINDOW = 30
"""Days over which requests per day are averaged."""
_WITHOUT_USE = (GenerationState.PLANNED, GenerationState.READY, GenerationState.DESTROYED)
NO_PROOF = "No use seen is no proof of none: data that nobody has read since, as in backups, is not seen."


@dataclass(frozen=True, slots=True)
class Together:
    """The use of several generations, or by several KMS keys. `callers`: the latest first.

    `complete`: no caller and no KMS key was left out because there were too many.
    """

    total: Counts
    last_encrypt: datetime | None
    last_decrypt: datetime | None
    last_refusal: datetime | None
    days: dict[date, Counts]
    kms_keys: tuple[str, ...]
    callers: tuple[Caller, ...]
    complete: bool

    @property
    def last_served(self) -> datetime | None:
        """The last Encrypt or Decrypt."""
        return _latest(self.last_encrypt, self.last_decrypt)

    @property
    def last_asked(self) -> datetime | None:
        """The last request, served or refused."""
        return _latest(self.last_served, self.last_refusal)

    def names(self, kind: str) -> list[str]:
        """The principals or the services, the latest first."""
        return [caller.name for caller in self.callers if caller.kind == kind]

    def since(self, day: date) -> Counts:
        """What was counted on this day and later."""
        return counted_since(self.days, day)

    def per_day(self, tracking: Tracking | None, now: datetime) -> float:
        """Served requests a day, over the last WINDOW days or as long as use is recorded."""
        days = WINDOW if tracking is None else min(WINDOW, (now.date() - tracking.since.date()).days + 1)
        return self.since(now.date() - timedelta(days=days - 1)).served / max(days, 1)


def together(usages: Sequence[KmsKeyUsage]) -> Together:
    """Their sum."""
    days: dict[date, list[Counts]] = {}
    callers: dict[tuple[str, str], list[Caller]] = {}
    for usage in usages:
        for day, counts in usage.days.items():
            days.setdefault(day, []).append(counts)
        for caller in usage.callers:
            callers.setdefault((caller.kind, caller.name), []).append(caller)
    merged = [
        Caller(
            kind,
            name,
            sum(one.requests for one in own),
            min(one.first_seen for one in own),
            max(one.last_seen for one in own),
        )
        for (kind, name), own in callers.items()
    ]
    return Together(
        total=total_of(usage.total for usage in usages),
        last_encrypt=_latest(*(usage.last_encrypt for usage in usages)),
        last_decrypt=_latest(*(usage.last_decrypt for usage in usages)),
        last_refusal=_latest(*(usage.last_refusal for usage in usages)),
        days={day: total_of(own) for day, own in sorted(days.items())},
        kms_keys=tuple(sorted({usage.kms_key_arn for usage in usages if usage.kms_key_arn != OTHERS})),
        callers=tuple(sorted(merged, key=lambda caller: (-caller.last_seen.timestamp(), caller.name))),
        complete=not any(usage.callers_left_out or usage.kms_key_arn == OTHERS for usage in usages),
    )


def by_generation(usages: Iterable[KmsKeyUsage]) -> defaultdict[int, list[KmsKeyUsage]]:
    """By the generation's row."""
    groups: defaultdict[int, list[KmsKeyUsage]] = defaultdict(list)
    for usage in usages:
        groups[usage.generation_id].append(usage)
    return groups


def by_kms_key(usages: Iterable[KmsKeyUsage]) -> dict[tuple[str, str, str], Together]:
    """By keystore, external key and ARN, over the generations."""
    groups: dict[tuple[str, str, str], list[KmsKeyUsage]] = {}
    for usage in usages:
        groups.setdefault((usage.keystore, usage.external_key_id, usage.kms_key_arn), []).append(usage)
    return {place: together(own) for place, own in groups.items()}


# ---- a rehearsal


@dataclass(frozen=True, slots=True)
class Affected:
    """A KMS key that would stop."""

    keystore: str
    external_key_id: str
    kms_key_arn: str
    use: Together

    @property
    def account(self) -> str | None:
        """The AWS account of the KMS key."""
        return account_of(self.kms_key_arn)


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """Who would stop, the busiest first. `unseen`: enabled keys of which no use was seen, as keystore and key."""

    affected: tuple[Affected, ...]
    unseen: tuple[tuple[str, str], ...]
    tracking: Tracking | None
    now: datetime

    def accounts(self) -> list[str]:
        """Of the KMS keys."""
        return sorted({one.account for one in self.affected if one.account is not None})

    def names(self, kind: str) -> list[str]:
        """The principals or the services of all."""
        return sorted({name for one in self.affected for name in one.use.names(kind)})


def rehearse(
    state: Reading, *, keystores: Sequence[str] | None, external_key_id: str | None = None, now: datetime
) -> Rehearsal:
    """What a block of these keystores (None: of all), or of one key of one of them, would stop. Raises NotFound."""
    names = [row.name for row in state.keystores()] if keystores is None else list(keystores)
    for name in names:
        find_keystore(state, name)
    keys = [
        row for row in state.keys(None) if row.keystore in names and external_key_id in (None, row.external_key_id)
    ]
    tracking = tracking_of(state)
    found = by_kms_key(
        usage
        for usage in usage_of(state, names[0] if len(names) == 1 else None, external_key_id)
        if usage.keystore in names
    )
    affected = [
        Affected(keystore, key, arn, use)
        for (keystore, key, arn), use in found.items()
        if use.last_served is not None
    ]
    seen = {(one.keystore, one.external_key_id) for one in affected}
    enabled = dict.fromkeys((row.keystore, row.external_key_id) for row in keys if row.status is KeyStatus.ENABLED)
    return Rehearsal(
        tuple(sorted(affected, key=lambda one: -one.use.per_day(tracking, now))),
        tuple(place for place in enabled if place not in seen),
        tracking,
        now,
    )


# ---- what is unused


@dataclass(frozen=True, slots=True)
class Unused:
    """`kind` is `key`, `generation` or `credential`. `last_used` None: no use was seen."""

    kind: str
    keystore: str
    name: str
    last_used: datetime | None


def unused(state: Reading, *, since: datetime) -> list[Unused]:
    """Keys, generations and live credentials that existed at `since` and have not been asked for afterwards.

    A generation is named where other generations of its key are in use.
    """
    usages = by_generation(usage_of(state))
    keys: dict[tuple[str, str], list[KeyRow]] = {}
    for row in state.keys(None):
        if row.state not in _WITHOUT_USE:
            keys.setdefault((row.keystore, row.external_key_id), []).append(row)
    found = []
    for (keystore, key), generations in keys.items():
        asked = {row.generation_id: together(usages[row.generation_id]).last_asked for row in generations}
        last = _latest(*asked.values())
        old = [row for row in generations if row.created_at <= since]
        if last is None or last < since:
            if len(old) == len(generations):
                found.append(Unused("key", keystore, key, last))
            continue
        found += [
            Unused("generation", keystore, f"{key} generation {row.generation}", at)
            for row in old
            if (at := asked[row.generation_id]) is None or at < since
        ]
    found += [
        Unused("credential", row.keystore, row.access_key_id, row.last_used_at)
        for row in state.credentials(None)
        if row.retired_at is None
        and row.created_at <= since
        and (row.last_used_at is None or row.last_used_at < since)
    ]
    return found


# ---- in words


def limits(tracking: Tracking | None) -> list[str]:
    """What these figures are of, and what they cannot tell."""
    if tracking is None:
        return ["Since when use is recorded is not known: a row of the catalog is wrong.", NO_PROOF]
    lines = [f"Seen since {tracking.since:%Y-%m-%d %H:%M} UTC, in requests that were served here."]
    if tracking.lost:
        lines.append(f"{tracking.lost} requests are missing, the last of them {tracking.lost_at:%Y-%m-%d %H:%M} UTC.")
    return [*lines, NO_PROOF]


@dataclass(frozen=True, slots=True)
class Demand:
    """Whether a generation that does not encrypt any more is still asked for, as of `now`."""

    use: Together
    tracking: Tracking | None
    now: datetime

    @property
    def last_asked(self) -> datetime | None:
        """When a ciphertext of it was last decrypted, or refused."""
        return _latest(self.use.last_decrypt, self.use.last_refusal)

    def lines(self) -> tuple[str, ...]:
        """For a plan that takes the generation away."""
        use, now = self.use, self.now
        recent = (use.since(now.date() - timedelta(days=days)) for days in (7, 30, 90))
        asked = ", ".join(f"{counts.decrypts + counts.refusals:,}" for counts in recent)
        since = "an unknown time" if self.tracking is None else f"{self.tracking.since:%Y-%m-%d %H:%M} UTC"
        return (
            f"last decrypt {moment(use.last_decrypt, now)}, last refusal {moment(use.last_refusal, now)}",
            f"asked to decrypt in the last 7, 30 and 90 days: {asked} times",
            *(f"asked for by {arn}" for arn in use.kms_keys),
            f"recorded since {since}; what nobody has read since is not seen",
        )


def demand_for(state: Reading, row: KeyRow) -> Demand:
    """Of the generation in this row."""
    own = by_generation(usage_of(state, row.keystore, row.external_key_id))[row.generation_id]
    return Demand(together(own), tracking_of(state), state.now)


def account_of(arn: str) -> str | None:
    """The account in an ARN."""
    parts = arn.split(":")
    return parts[4] if len(parts) > 5 and parts[4].isdigit() else None  # noqa: PLR2004 (arn:P:SERVICE:REGION:ACCOUNT:)


def _latest(*moments: datetime | None) -> datetime | None:
    return max((at for at in moments if at is not None), default=None)
