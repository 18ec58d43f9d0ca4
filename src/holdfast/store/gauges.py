"""How many of what the catalog has, and since when: for metrics."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Column, ColumnElement, Select, func, select, true, type_coerce
from sqlalchemy.types import NullType

from holdfast.keys.description import Cryptoperiod
from holdfast.keys.states import GenerationState
from holdfast.store import rows, schema
from holdfast.store.gauge_values import CatalogGauges, KeystoreGauges, NodeGauges
from holdfast.store.governance import requests
from holdfast.store.reads import Reading
from holdfast.store.rows import raw
from holdfast.store.store import Catalog
from holdfast.store.usage import several_kms_keys, unused_keys

UNUSED = timedelta(days=90)
"""After so long without a request a key counts as unused."""


class _Waiting(msgspec.Struct):
    expires: datetime | None = None


def look(catalog: Catalog, *, now: datetime, age_days: int | None = None) -> CatalogGauges:
    """By a few queries that do not grow with the number of events. Raises CatalogError.

    `age_days`: the originator-usage period of keys that have none of their own.
    """
    nodes = {
        node.name: NodeGauges(node.seen.timestamp() + node.lease, node.version or 0)
        for node in catalog.nodes()
        if node.lives(now)
    }
    with catalog.reading() as state:
        changes = schema.changes
        waiting = select(func.count(), func.min(_as_it_is(changes.c.time))).where(changes.c.logged.is_(None))
        unlogged, oldest = state.connection.execute(waiting).one()
        return CatalogGauges(
            at=now.timestamp(),
            version=state.version() or 0,
            keystores=_keystores(state, now, age_days),
            nodes=nodes,
            approvals=sum(_waits(request.plan, now) for request in requests(state, undecided=True)),
            unlogged=unlogged,
            oldest_unlogged=_seconds(oldest),
        )


def _keystores(state: Reading, now: datetime, age_days: int | None) -> dict[str, KeystoreGauges]:
    found = {keystore.name: KeystoreGauges(blocked=keystore.is_blocked(now)) for keystore in state.keystores()}
    own, key, generation = schema.keystores, schema.external_keys, schema.key_generations
    keys: Select[Any] = select(*raw(own, "name"), *raw(key, "status"), func.count()).join_from(own, key)
    for name, status, count in state.connection.execute(keys.group_by(own.c.name, key.c.status)):
        if name in found:
            found[name].keys[rows.plain(status)] += count
    since_when = func.min(_as_it_is(generation.c.activated_at))
    generations: Select[Any] = (
        select(*raw(own, "name"), *raw(generation, "state"), func.count(), since_when)
        .join_from(own, key)
        .join(generation)
        .group_by(own.c.name, generation.c.state)
    )
    for name, of_state, count, since in state.connection.execute(generations):
        if name in found:
            found[name].generations[rows.plain(of_state)] += count
            if of_state == GenerationState.ACTIVE:
                found[name].oldest_active = _seconds(since)
    for name in _overdue(state, now, age_days):
        if name in found:
            found[name].overdue += 1
    _count_use(found, state, now)
    return found


def _count_use(found: dict[str, KeystoreGauges], state: Reading, now: datetime) -> None:
    for name, count in unused_keys(state, since=now - UNUSED).items():
        if name in found:
            found[name].unused = count
    for name, _ in several_kms_keys(state):
        if name in found:
            found[name].several_kms_keys += 1


def _overdue(state: Reading, now: datetime, age_days: int | None) -> Iterator[str]:
    """The keystore of each key whose active generation is past its period; only those that have one are read."""
    has_one = true() if age_days is not None else schema.external_keys.c.originator_days.is_not(None)
    own, key, generation = schema.keystores, schema.external_keys, schema.key_generations
    query: Select[Any] = (
        select(*raw(own, "name"), *raw(key, "originator_days"), *raw(generation, "activated_at"))
        .join_from(own, key)
        .join(generation)
        .where(generation.c.state == GenerationState.ACTIVE, has_one)
    )
    for name, days, activated in state.connection.execute(query):
        until = Cryptoperiod(rows.days(days) or age_days).encrypts_until(rows.moment(activated))
        if until is not None and until <= now:
            yield name


def _waits(plan: str, now: datetime) -> bool:
    try:
        expires = msgspec.json.decode(plan, type=_Waiting).expires
    except (msgspec.DecodeError, TypeError):
        return False
    return expires is None or now < expires


def _as_it_is(column: Column[Any]) -> ColumnElement[Any]:
    """A row that is wrong must not fail the look at all others."""
    return type_coerce(column, NullType())


def _seconds(value: object) -> float:
    found = rows.moment(value)
    return 0.0 if found is None else found.timestamp()
