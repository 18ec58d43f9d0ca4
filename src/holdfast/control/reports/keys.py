"""Reports on keys: what there is, how long it may be used, and how to leave."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from holdfast.control.reports.document import NONE, Cell, Report, Table
from holdfast.control.reports.source import Source
from holdfast.control.schedule import cryptoperiod_of
from holdfast.keys.description import Cryptoperiod
from holdfast.keys.states import GenerationState
from holdfast.store.reads import KeyRow
from holdfast.store.usage import KmsKeyUsage, tracking_of, usage_of

RATE = 1_800
"""Requests a second that KMS makes to a key store by default (KMS developer guide, quotas)."""
_SOON = timedelta(days=30)
_GONE = frozenset({GenerationState.DESTROYED})


def inventory(source: Source) -> Report:
    """Every generation of every external key."""
    state = source.state
    rows = state.keys(None)
    totals = state.encryption_totals()
    keystores = [
        (row.name, row.prefix.value, row.region or "any", row.blocked, row.blocked_until or NONE, row.created_at)
        for row in state.keystores()
    ]
    keys = [
        (
            _name(row),
            row.status.value,
            row.state.value,
            row.state_since,
            row.description.purpose,
            "AES-256",
            row.description.owner or NONE,
            row.description.description or NONE,
            row.description.external_reference or NONE,
            _tags(row),
            row.hsm,
            row.label,
            row.token_serial,
            row.check_value.hex() if row.check_value else None,
            _attributes(row),
            row.world,
            row.canary is not None,
            row.stopped or "no",
            row.created_at,
            row.activated_at,
            totals.get(row.generation_id, 0),
        )
        for row in rows
    ]
    return source.report(
        "inventory",
        "Key inventory",
        "Which keys are there, what are they for, whose are they, and in which HSM do they lie?",
        Table(
            "keystores",
            "Key stores",
            ("Key store", "Prefix", "Region", "Blocked", "Blocked until", "Created"),
            keystores,
            "There is no key store.",
        ),
        Table("generations", "Keys and their generations", _INVENTORY, keys, "There is no key."),
        limits=(
            (
                "The attributes, the check value and the Security World are those that the HSM showed when the"
                " key was registered; nothing was asked of an HSM for this report. `holdfast doctor` looks again."
            ),
            "Keys in the HSM that no catalog names are not in it.",
            "Encryptions are counted ahead: at most so many were made.",
            "Backup copies of keys and of HSMs are not known to Holdfast. `holdfast report recovery` has its drills.",
        ),
    )


_INVENTORY = (
    "Key and generation",
    "Status",
    "State",
    "In this state since",
    "Purpose",
    "Algorithm",
    "Owner",
    "Description",
    "External reference",
    "Tags",
    "HSM",
    "Label",
    "Token serial",
    "Check value",
    "Attributes",
    "Security World",
    "Has a canary",
    "Stopped",
    "Registered",
    "First active",
    "Encryptions at most",
)


def cryptoperiods(source: Source) -> Report:
    """Which generations are in use longer than they should be."""
    totals, limits = source.state.encryption_totals(), source.configuration.encryption_limit
    rows = [
        (
            _name(row),
            row.state.value,
            row.activated_at,
            _end(period.originator, period.encrypts_until, row),
            _end(period.recipient, period.decrypts_until, row),
            _verdict(period, row, source.now),
            totals.get(row.generation_id, 0),
            limits.stop if limits.stop is not None else "never",
            row.description.owner or NONE,
        )
        for row in source.state.keys(None)
        if row.state not in _GONE
        for period in (cryptoperiod_of(source.configuration.rotation, row),)
    ]
    rows.sort(key=lambda row: (_ORDER.index(str(row[5])), str(row[0])))
    return source.report(
        "cryptoperiods",
        "Cryptoperiods",
        "Which generation encrypts, or is kept for decryption, longer than was decided?",
        Table(
            "generations",
            "Generations, the overdue first",
            (
                "Key and generation",
                "State",
                "First active",
                "Encrypts until",
                "Decrypts until",
                "Verdict",
                "Encryptions at most",
                "Stops at",
                "Owner",
            ),
            rows,
            "There is no generation.",
        ),
        limits=(
            (
                "Periods are counted from the first activation (NIST SP 800-57 part 1, 5.3.4). Where that"
                " moment is not known, no verdict is possible."
            ),
            "A period that is over stops nothing: people rotate. Only the number of encryptions stops a key.",
            "Exceptions that were granted on paper are not known to Holdfast.",
        ),
    )


_OVERDUE, _LATE, _NEAR, _UNKNOWN, _UNSET, _WITHIN = (
    "OVERDUE: encrypts",
    "OVERDUE: is still kept for decryption",
    "ends within 30 days",
    "not known: no activation is recorded",
    "no period was set",
    "within its period",
)
_ORDER = (_OVERDUE, _LATE, _NEAR, _UNKNOWN, _UNSET, _WITHIN)


def exit_plan(source: Source) -> Report:
    """For each key what hangs on it, and what it takes to leave."""
    tracking = tracking_of(source.state)
    used: defaultdict[tuple[str, str], list[KmsKeyUsage]] = defaultdict(list)
    for one in usage_of(source.state):
        used[one.keystore, one.external_key_id].append(one)
    totals = source.state.encryption_totals()
    made: defaultdict[tuple[str, str], int] = defaultdict(int)
    for row in source.state.keys(None):
        made[row.keystore, row.external_key_id] += totals.get(row.generation_id, 0)
    keys = [
        (
            f"{keystore}/{key}",
            _said(arn for one in used[keystore, key] if (arn := one.kms_key_arn)),
            _said(caller.name for one in used[keystore, key] for caller in one.callers if caller.kind == "service"),
            _said(caller.name for one in used[keystore, key] for caller in one.callers if caller.kind == "principal"),
            sum(one.total.decrypts for one in used[keystore, key]),
            max((at for one in used[keystore, key] if (at := one.last_served) is not None), default="none seen"),
            count,
            round(count / RATE / 3600, 1),
        )
        for (keystore, key), count in sorted(made.items())
    ]
    since = "it is not known since when" if tracking is None else f"since {tracking.since:%Y-%m-%d %H:%M} UTC"
    lost = f", without {tracking.lost} requests that were lost" if tracking is not None and tracking.lost else ""
    return source.report(
        "exit",
        "Exit plan",
        "What hangs on each key, how is it moved away, and how long does that take at least?",
        Table(
            "keys",
            "What hangs on each key",
            (
                "Key",
                "KMS keys seen",
                "AWS services seen",
                "Principals seen",
                "Decrypts seen",
                "Last use seen",
                "Ciphertexts at most",
                "Hours at 1,800 a second",
            ),
            keys,
            "There is no key.",
        ),
        Table("ways", "How data is moved to another KMS key", ("What", "How", "Calls here"), _WAYS, ""),
        Table("order", "In this order", ("Step", "What", "Evidence"), _STEPS, ""),
        limits=(
            (
                f"Use is what nodes have served {since}{lost}. Data that nobody has read since may exist all the"
                " same: backups, archives, snapshots."
            ),
            "Principals and services are bounded per key: `holdfast key usage` says where some were left out.",
            (
                "A ciphertext that Holdfast made may be gone, copied, or be a data key with any amount of data"
                " behind it. So the number of ciphertexts is the most that can be wrapped under the key, not what"
                " must be moved."
            ),
            "What KMS itself knows (`aws kms list-grants`, GetKeyLastUsage, CloudTrail) was not asked.",
        ),
    )


_WAYS: tuple[tuple[Cell, ...], ...] = (
    (
        "Ciphertexts that an application holds",
        "`aws kms re-encrypt` to a key that KMS holds; the application stores the answer",
        "one Decrypt each",
    ),
    (
        "S3 objects under SSE-KMS",
        "set the bucket's default key, then copy each object onto itself (S3 Batch Operations)",
        "one Decrypt per object, fewer with S3 Bucket Keys",
    ),
    ("EBS volumes and snapshots", "copy the snapshot under another key, and make a new volume of it", "a few each"),
    (
        "RDS instances and clusters",
        "copy a snapshot under another key, and restore it; the endpoint changes",
        "a few each",
    ),
    (
        "Secrets Manager",
        "`aws secretsmanager update-secret --kms-key-id`; it makes a new version",
        "one Decrypt each",
    ),
    (
        "DynamoDB, SQS, CloudWatch Logs and others",
        "change the key of the resource; old data as each service says",
        "",
    ),
)
_STEPS: tuple[tuple[Cell, ...], ...] = (
    (1, "Make KMS keys that KMS holds, with the same policies and grants", "CloudTrail CreateKey"),
    (2, "Point aliases and the defaults of services to them: nothing new is encrypted here", "no Encrypt any more"),
    (3, "Move what is there, by the table above", "`holdfast key usage`: which KMS keys still ask"),
    (4, "`holdfast key disable`, and wait for as long as the oldest backup is kept", "refusals in `key usage`"),
    (5, "Enable what was refused and is still needed, and move that too", "the same"),
    (6, "Schedule the deletion of the KMS keys (7 to 30 days), then disconnect the key store", "CloudTrail"),
    (7, "Retire, suspend and destroy the generations here", "`holdfast report transitions`"),
)


def _said(names: Iterable[str]) -> str:
    return ", ".join(sorted(set(names))) or "none seen"


def _name(row: KeyRow) -> str:
    return f"{row.keystore}/{row.external_key_id} generation {row.generation}"


def _tags(row: KeyRow) -> str:
    return ", ".join(f"{name}={value}" for name, value in row.description.tags.items()) or NONE


def _attributes(row: KeyRow) -> str | None:
    if row.attributes is None:
        return None
    return ", ".join(f"{name} {'yes' if value else 'no'}" for name, value in row.attributes.items())


def _end(days: int | None, until: Callable[[datetime | None], datetime | None], row: KeyRow) -> Cell:
    return "no end set" if days is None else until(row.activated_at)


def _verdict(period: Cryptoperiod, row: KeyRow, now: datetime) -> str:
    is_active = row.state is GenerationState.ACTIVE
    if (period.originator if is_active else period.recipient) is None:
        return _UNSET
    until = (period.encrypts_until if is_active else period.decrypts_until)(row.activated_at)
    if until is None:
        return _UNKNOWN
    if until <= now:
        return _OVERDUE if is_active else _LATE
    return _NEAR if until <= now + _SOON else _WITHIN
