"""Who has used which generation of a key for what, and when: what workers count, and what is read of it.

It is of requests that a node has served since `Tracking.since`. Data that nobody has asked for since then may exist
all the same, so no use seen never proves that there is none.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Select, Table, case, delete, func, or_, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from holdfast.store import rows, schema
from holdfast.store.database import Database
from holdfast.store.reads import Reading
from holdfast.store.rows import BadRow, raw
from holdfast.store.use import batched
from holdfast.xks.types import KeyStatus

KEPT_DAYS = 400
"""Days for which counts per day are kept. Totals stay."""
MOST_KMS_KEYS = 64
"""KMS keys of one generation with a row of their own. Others share the row with an empty ARN."""
MOST_CALLERS = 32
"""Principals, and as many services, that are kept of one generation and KMS key: the latest."""
OTHERS = ""
"""In place of the ARN of a KMS key beyond the first ones, and of what is no ARN."""
_MAX_NAME = 256
_CHUNK = 500
"""Rows asked for by their ids in one query."""
_LOCK = 0x484F4C4455534544
"""PostgreSQL's advisory lock for writing use: the letters HOLDUSED."""
_SESSION = re.compile(r"(arn:[a-z-]+:sts::[0-9]*:(?:assumed-role|federated-user)/[^/]+)/.*")
_EPOCH = date(1970, 1, 1)


class Used(NamedTuple):
    """Requests of one kind on one day, counted together. `day` is since 1970-01-01; `first`, `last`: seconds since.

    `use` is one of `schema.USES`. `refusal`: the generation was known, and its state or limit forbade it.
    """

    keystore: str
    external_key_id: str
    generation: int
    kms_key_arn: str
    use: str
    day: int
    principal: str | None
    service: str | None
    requests: int
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class AnotherKmsKey:
    """A KMS key that has asked for an external key for the first time, where `others` have before."""

    keystore: str
    external_key_id: str
    kms_key_arn: str
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Counts:
    """Requests by what they asked for, and what became of them."""

    encrypts: int = 0
    decrypts: int = 0
    refusals: int = 0

    @property
    def served(self) -> int:
        """Encrypts and decrypts."""
        return self.encrypts + self.decrypts


def total_of(counts: Iterable[Counts]) -> Counts:
    """Their sum."""
    own = list(counts)
    return Counts(
        sum(one.encrypts for one in own), sum(one.decrypts for one in own), sum(one.refusals for one in own)
    )


def counted_since(days: Mapping[date, Counts], day: date) -> Counts:
    """What was counted on this day and later."""
    return total_of(counts for at, counts in days.items() if at >= day)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asked. `kind`: `principal` (an ARN, without the name of its session) or `service` (`s3.amazonaws.com`)."""

    kind: str
    name: str
    requests: int
    first_seen: datetime
    last_seen: datetime


@dataclass(frozen=True, slots=True)
class KmsKeyUsage:
    """What one KMS key asked of one generation. `kms_key_arn` empty: several, or none (`OTHERS`).

    `days`: counts per day, the oldest first; `callers`: the latest first. `callers_left_out`: how often a caller was
    forgotten because there were too many; 0: these are all.
    """

    keystore: str
    external_key_id: str
    generation_id: int
    generation: int
    kms_key_arn: str
    total: Counts
    first_encrypt: datetime | None
    last_encrypt: datetime | None
    first_decrypt: datetime | None
    last_decrypt: datetime | None
    first_refusal: datetime | None
    last_refusal: datetime | None
    days: Mapping[date, Counts]
    callers: tuple[Caller, ...]
    callers_left_out: int

    @property
    def last_served(self) -> datetime | None:
        """The last encrypt or decrypt."""
        return max((at for at in (self.last_encrypt, self.last_decrypt) if at is not None), default=None)


@dataclass(frozen=True, slots=True)
class Tracking:
    """`since`: when recording began in this catalog. `lost`: requests that are missing, the last `lost_at`."""

    since: datetime
    lost: int
    lost_at: datetime | None


# ---- what is read


def usage_of(state: Reading, keystore: str | None = None, external_key_id: str | None = None) -> list[KmsKeyUsage]:
    """The use of all generations, of those of a keystore, or of one key: by generation and KMS key.

    What has not been used is not there. Rows that are wrong are left out. Raises CatalogError.
    """
    owner, key, generation, table = schema.keystores, schema.external_keys, schema.key_generations, schema.key_usage

    def chosen(query: Select[Any]) -> Select[Any]:
        query = query.join(generation, generation.c.id == table.c.generation_id).join(key).join(owner)
        if keystore is not None:
            query = query.where(owner.c.name == keystore)
        return query if external_key_id is None else query.where(key.c.external_key_id == external_key_id)

    execute = state.connection.execute
    ends = [f"{end}_{what}" for what in schema.USES for end in ("first", "last")]
    columns = [
        *raw(
            table, "id", "generation_id", "kms_key_arn", "encrypts", "decrypts", "refusals", "callers_left_out", *ends
        ),
        *raw(owner, "name"),
        *raw(key, "external_key_id"),
        *raw(generation, "number"),
    ]
    found = execute(
        chosen(select(*columns).select_from(table)).order_by(owner.c.id, key.c.id, generation.c.number, table.c.id)
    ).all()
    days, callers = schema.key_usage_days, schema.key_usage_callers
    days_of = _grouped(
        execute(
            chosen(select(*raw(days, *days.c.keys())).select_from(days).join(table)).order_by(
                days.c.usage_id, days.c.day
            )
        )
    )
    callers_of = _grouped(
        execute(
            chosen(select(*raw(callers, *callers.c.keys())).select_from(callers).join(table)).order_by(
                callers.c.usage_id, callers.c.last_seen.desc(), callers.c.name
            )
        )
    )
    return [
        made
        for row in found
        if (made := _usage(row, days_of.get(row.id, ()), callers_of.get(row.id, ()))) is not None
    ]


def several_kms_keys(state: Reading) -> dict[tuple[str, str], tuple[str, ...]]:
    """The keys that are not pinned and that more than one KMS key has used, by keystore and name."""
    owner, key, generation, table = schema.keystores, schema.external_keys, schema.key_generations, schema.key_usage
    several = (
        select(generation.c.key_id)
        .join(table, table.c.generation_id == generation.c.id)
        .where(table.c.kms_key_arn != OTHERS)
        .group_by(generation.c.key_id)
        .having(func.count(table.c.kms_key_arn.distinct()) > 1)
    )
    query: Select[Any] = (
        select(*raw(owner, "name"), *raw(key, "external_key_id"), *raw(table, "kms_key_arn"))
        .join_from(owner, key)
        .join(generation)
        .join(table)
        .where(key.c.id.in_(several), key.c.pinned_to.is_(None), table.c.kms_key_arn != OTHERS)
    )
    found: dict[tuple[str, str], set[str]] = {}
    for name, external_key_id, arn in state.connection.execute(query):
        found.setdefault((rows.plain(name), rows.plain(external_key_id)), set()).add(_kept(arn))
    return {place: tuple(sorted(arns)) for place, arns in sorted(found.items())}


def unused_keys(state: Reading, *, since: datetime) -> dict[str, int]:
    """How many enabled keys that existed at `since` nobody has asked for afterwards, by keystore."""
    owner, key, generation, table = schema.keystores, schema.external_keys, schema.key_generations, schema.key_usage
    asked = (
        select(generation.c.key_id)
        .join(table, table.c.generation_id == generation.c.id)
        .where(or_(*(table.c[f"last_{what}"] >= since for what in schema.USES)))
    )
    query: Select[Any] = (
        select(*raw(owner, "name"), func.count())
        .join_from(owner, key)
        .where(key.c.status == KeyStatus.ENABLED.value, key.c.created_at <= since, key.c.id.not_in(asked))
        .group_by(owner.c.name)
    )
    return {rows.plain(name): count for name, count in state.connection.execute(query)}


def tracking_of(state: Reading) -> Tracking | None:
    """Since when use is recorded; None where that row is missing or wrong."""
    row = state.connection.execute(select(*raw(schema.usage_tracking, "since", "lost", "lost_at"))).first()
    since = None if row is None else rows.moment(row.since)
    if row is None or since is None:
        return None
    return Tracking(since, row.lost if type(row.lost) is int else 0, rows.moment(row.lost_at))


def _grouped(found: Iterable[Row[Any]]) -> dict[int, list[Row[Any]]]:
    return {usage: list(own) for usage, own in groupby(found, key=lambda row: row.usage_id)}


def _usage(row: Row[Any], days: Iterable[Row[Any]], callers: Iterable[Row[Any]]) -> KmsKeyUsage | None:
    try:
        return KmsKeyUsage(
            keystore=rows.plain(row.name),
            external_key_id=rows.plain(row.external_key_id),
            generation_id=rows.integer(row.generation_id, "generation_id"),
            generation=rows.integer(row.number, "number"),
            kms_key_arn=_kept(row.kms_key_arn),
            total=_counts(row),
            first_encrypt=rows.moment(row.first_encrypt),
            last_encrypt=rows.moment(row.last_encrypt),
            first_decrypt=rows.moment(row.first_decrypt),
            last_decrypt=rows.moment(row.last_decrypt),
            first_refusal=rows.moment(row.first_refusal),
            last_refusal=rows.moment(row.last_refusal),
            days={_EPOCH + timedelta(days=rows.integer(one.day, "day")): _counts(one) for one in days},
            callers=tuple(map(_caller, callers)),
            callers_left_out=rows.integer(row.callers_left_out, "callers_left_out"),
        )
    except (BadRow, OverflowError):
        return None


def _counts(row: Row[Any]) -> Counts:
    return Counts(*(rows.integer(getattr(row, f"{what}s"), f"{what}s") for what in schema.USES))


def _caller(row: Row[Any]) -> Caller:
    first, last = rows.moment(row.first_seen), rows.moment(row.last_seen)
    if first is None or last is None:
        raise BadRow("first_seen or last_seen is not a time")
    return Caller(str(row.kind), _kept(row.name), rows.integer(row.requests, "requests"), first, last)


# ---- what workers write


class KeyUsage(Database):
    """Use of keys. It makes no new version of the catalog, and no record. Raises CatalogError."""

    def record_usage(self, used: Sequence[Used], *, lost: int = 0) -> list[AnotherKmsKey]:
        """Add these counts, and to those that are missing `lost`; the KMS keys that share a key since then.

        What is of generations that are not there any more is left out.
        """
        with self._writing() as connection:
            if connection.dialect.name == "postgresql":
                # Two workers that see a first and a second KMS key at once must see each other, and not deadlock.
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            table = schema.usage_tracking
            if lost:
                connection.execute(update(table).values(lost=table.c.lost + lost, lost_at=self._now()))
            return _record(connection, used)

    def forget_usage_days(self) -> None:
        """Delete counts per day that are older than KEPT_DAYS."""
        table = schema.key_usage_days
        oldest = (self._now().date() - _EPOCH).days - KEPT_DAYS
        with self._writing() as connection:
            connection.execute(delete(table).where(table.c.day < oldest))


def _record(connection: Connection, used: Sequence[Used]) -> list[AnotherKmsKey]:
    generations = _generations(connection, used)
    mine = [one for one in used if _place(one) in generations]
    own = {generations[_place(one)].id for one in mine}
    known = _known(connection, own)
    arns: dict[int, set[str]] = {}
    for generation, arn in known:
        arns.setdefault(generation, set()).add(arn)
    places: list[tuple[int, str]] = []
    for one in mine:
        generation, arn = generations[_place(one)].id, _kept(one.kms_key_arn)
        seen = arns.setdefault(generation, set())
        if arn not in seen and len(seen) >= MOST_KMS_KEYS:
            arn = OTHERS
        seen.add(arn)
        places.append((generation, arn))
    another = _another(connection, generations, set(places) - known.keys())
    _add_totals(connection, mine, places)
    ids = _known(connection, own)
    usages = [ids[place] for place in places]
    _add_days(connection, mine, usages)
    _add_callers(connection, mine, usages)
    return another


def _place(one: Used) -> tuple[str, str, int]:
    return one.keystore, one.external_key_id, one.generation


def _generations(connection: Connection, used: Sequence[Used]) -> dict[tuple[str, str, int], Any]:
    owner, key, table = schema.keystores, schema.external_keys, schema.key_generations
    query = (
        select(owner.c.name, key.c.external_key_id, table.c.number, table.c.id, table.c.key_id)
        .select_from(owner)
        .join(key)
        .join(table)
    )
    found: dict[tuple[str, str, int], Any] = {}
    for chunk in batched(sorted({one.external_key_id for one in used}), _CHUNK):
        for row in connection.execute(query.where(key.c.external_key_id.in_(chunk))):
            found[row.name, row.external_key_id, row.number] = row
    return found


def _known(connection: Connection, generations: Iterable[int]) -> dict[tuple[int, str], int]:
    table = schema.key_usage
    return {
        (row.generation_id, row.kms_key_arn): row.id
        for chunk in batched(sorted(generations), _CHUNK)
        for row in connection.execute(
            select(table.c.generation_id, table.c.kms_key_arn, table.c.id).where(table.c.generation_id.in_(chunk))
        )
    }


def _another(
    connection: Connection, generations: Mapping[tuple[str, str, int], Any], new: set[tuple[int, str]]
) -> list[AnotherKmsKey]:
    """Of the new places those whose external key has another KMS key already, or gets two at once."""
    of = {row.id: row for row in generations.values()}
    new_arns: dict[int, set[str]] = {}
    for generation, arn in new:
        if arn != OTHERS:
            new_arns.setdefault(of[generation].key_id, set()).add(arn)
    names = {row.key_id: (row.name, row.external_key_id) for row in of.values()}
    table, owner = schema.key_usage, schema.key_generations
    before: dict[int, set[str]] = {}
    for chunk in batched(sorted(new_arns), _CHUNK):
        query = select(owner.c.key_id, table.c.kms_key_arn).join_from(table, owner).where(owner.c.key_id.in_(chunk))
        for row in connection.execute(query):
            before.setdefault(row.key_id, set()).add(row.kms_key_arn)
    another = []
    for key_id, arns in sorted(new_arns.items()):
        seen = before.get(key_id, set()) - {OTHERS}
        for arn in sorted(arns - seen):
            if seen:
                another.append(AnotherKmsKey(*names[key_id], arn, tuple(sorted(seen))))
            seen = seen | {arn}
    return another


def _add_totals(connection: Connection, used: Sequence[Used], places: Sequence[tuple[int, str]]) -> None:
    values: dict[tuple[int, str], dict[str, Any]] = {}
    for one, (generation, arn) in zip(used, places, strict=True):
        row = values.setdefault((generation, arn), _nothing() | {"generation_id": generation, "kms_key_arn": arn})
        row[f"{one.use}s"] += one.requests
        first, last = _moment(one.first), _moment(one.last)
        row[f"first_{one.use}"] = min(row[f"first_{one.use}"] or first, first)
        row[f"last_{one.use}"] = max(row[f"last_{one.use}"] or last, last)
    table = schema.key_usage
    _upsert(
        connection,
        table,
        list(values.values()),
        key=("generation_id", "kms_key_arn"),
        add=tuple(f"{what}s" for what in schema.USES),
        earliest=tuple(f"first_{what}" for what in schema.USES),
        latest=tuple(f"last_{what}" for what in schema.USES),
    )


def _add_days(connection: Connection, used: Sequence[Used], usages: Sequence[int]) -> None:
    values: dict[tuple[int, int], dict[str, Any]] = {}
    counts = dict.fromkeys((f"{what}s" for what in schema.USES), 0)
    for one, usage in zip(used, usages, strict=True):
        row = values.setdefault((usage, one.day), {"usage_id": usage, "day": one.day, **counts})
        row[f"{one.use}s"] += one.requests
    _upsert(connection, schema.key_usage_days, list(values.values()), key=("usage_id", "day"), add=tuple(counts))


def _add_callers(connection: Connection, used: Sequence[Used], usages: Sequence[int]) -> None:
    values: dict[tuple[int, str, str], dict[str, Any]] = {}
    for one, usage in zip(used, usages, strict=True):
        for kind, said in (("principal", one.principal), ("service", one.service)):
            name = _kept(_SESSION.sub(r"\1/*", said)) if said else ""
            if not name:
                continue
            first, last = _moment(one.first), _moment(one.last)
            row = values.setdefault(
                (usage, kind, name),
                {
                    "usage_id": usage,
                    "kind": kind,
                    "name": name,
                    "requests": 0,
                    "first_seen": first,
                    "last_seen": last,
                },
            )
            row["requests"] += one.requests
            row["first_seen"], row["last_seen"] = min(row["first_seen"], first), max(row["last_seen"], last)
    _upsert(
        connection,
        schema.key_usage_callers,
        list(values.values()),
        key=("usage_id", "kind", "name"),
        add=("requests",),
        earliest=("first_seen",),
        latest=("last_seen",),
    )
    _forget_callers(connection, {usage for usage, _, _ in values})


def _forget_callers(connection: Connection, usages: Iterable[int]) -> None:
    """Keep the latest MOST_CALLERS of each kind."""
    table, totals = schema.key_usage_callers, schema.key_usage
    for chunk in batched(sorted(usages), _CHUNK):
        crowded = (
            select(table.c.usage_id, table.c.kind)
            .where(table.c.usage_id.in_(chunk))
            .group_by(table.c.usage_id, table.c.kind)
            .having(func.count() > MOST_CALLERS)
        )
        for usage, kind in connection.execute(crowded).all():
            here = (table.c.usage_id == usage, table.c.kind == kind)
            latest = (
                select(table.c.name).where(*here).order_by(table.c.last_seen.desc(), table.c.name).limit(MOST_CALLERS)
            )
            gone = connection.execute(delete(table).where(*here, table.c.name.not_in(latest))).rowcount
            connection.execute(
                update(totals).where(totals.c.id == usage).values(callers_left_out=totals.c.callers_left_out + gone)
            )


def _upsert(  # noqa: PLR0913 (how each column is merged)
    connection: Connection,
    table: Table,
    values: list[dict[str, Any]],
    *,
    key: Sequence[str],
    add: Sequence[str],
    earliest: Sequence[str] = (),
    latest: Sequence[str] = (),
) -> None:
    """Insert rows; where one with its key is there, merge it into that."""
    if not values:
        return
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    new = insert(table)
    merged: dict[str, ColumnElement[Any]] = {name: table.c[name] + new.excluded[name] for name in add}
    merged |= {name: _either(table.c[name], new.excluded[name], earlier=True) for name in earliest}
    merged |= {name: _either(table.c[name], new.excluded[name], earlier=False) for name in latest}
    connection.execute(new.on_conflict_do_update(index_elements=list(key), set_=merged), values)


def _either(old: ColumnElement[Any], new: ColumnElement[Any], *, earlier: bool) -> ColumnElement[Any]:
    """The earlier or the later of two times; of one and NULL, that one."""
    replaces = new < old if earlier else new > old
    return case((old.is_(None) | replaces, new), else_=old)


def _nothing() -> dict[str, Any]:
    return {
        **dict.fromkeys((f"{what}s" for what in schema.USES), 0),
        **{f"{end}_{what}": None for what in schema.USES for end in ("first", "last")},
    }


def _kept(name: object) -> str:
    """A name that a database takes and a person can read; else OTHERS."""
    if isinstance(name, str) and len(name) <= _MAX_NAME and name.isascii() and name.isprintable():
        return name
    return OTHERS


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
