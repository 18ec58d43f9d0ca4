"""What running proxies write: encryption counts, last use, heartbeats. None of it changes the version."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, or_, select, text, update
from sqlalchemy.exc import IntegrityError

from holdfast.store import schema
from holdfast.store.database import Database
from holdfast.store.errors import NotFound
from holdfast.store.rows import BadRow, count, raw
from holdfast.xks.aad import NEWEST_FORMAT

LIVE = timedelta(seconds=60)
"""A proxy that was seen within this time counts as one of the fleet."""
_LATEST_LOOK = timedelta(seconds=30)
"""A node writes that it lives several times in this time; its lease counts from a look that may have come later."""
_FORGOTTEN = timedelta(days=1)
_COUNTING_LOCK = 0x484F4C44434F554E
"""PostgreSQL's advisory lock for counting encryptions: the letters HOLDCOUN."""
_CHUNK = 500
"""Rows asked for by their ids in one query."""

Value = TypeVar("Value")


class Use(Database):
    """Writes of the data plane. They raise CatalogError and then have changed nothing."""

    def reserve_encryptions(self, generation_id: int, count: int) -> int:
        """Add `count` to a generation's encryptions; the total reserved so far under its HSM key, this included."""
        totals = self.reserve({generation_id: count})
        if generation_id not in totals:
            raise NotFound(f"there is no key generation {generation_id} in the catalog")
        return totals[generation_id]

    def reserve(self, counts: Mapping[int, int]) -> dict[int, int]:
        """`reserve_encryptions` for several generations in one transaction.

        One that is not there, or of which the count in the catalog is none, is left out.
        """
        with self._counting() as connection:
            known = totals_of(connection, counts)
            _add(connection, {generation: count for generation, count in counts.items() if generation in known})
            return totals_of(connection, known)

    def give_back(self, counts: Mapping[int, int], *, heard: Mapping[int, int]) -> None:
        """Take back encryptions that this worker had reserved and has not made.

        Nothing is taken from a generation whose total is lower than the highest that the worker has `heard`: then an
        older catalog was restored, and what the worker reserved may not be in it.
        """
        with self._counting() as connection:
            known = totals_of(connection, counts)
            _add(
                connection,
                {
                    generation: -count
                    for generation, count in counts.items()
                    if known.get(generation, 0) >= heard[generation]
                },
            )

    def encryption_totals(self, generations: Collection[int] | None = None) -> dict[int, int]:
        """The encryptions reserved so far under the HSM key of each generation, or of these, by its row."""
        with self._reading() as connection:
            return totals_of(connection, generations)

    @contextmanager
    def _counting(self) -> Iterator[Connection]:
        """A transaction that counts.

        A total spans the keystores that share an HSM key, so reservations wait for each other; readers do not.
        SQLite's transaction holds its one write lock already.
        """
        with self._writing() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _COUNTING_LOCK})
            yield connection

    def record_use(self, last_used: Mapping[str, datetime]) -> None:
        """Credentials' last use, by access key id. An older time than the recorded one changes nothing."""
        if not last_used:
            return
        table = schema.credentials
        with self._writing() as connection:
            connection.execute(
                update(table)
                .where(table.c.access_key_id == bindparam("of"))
                .where(or_(table.c.last_used_at.is_(None), table.c.last_used_at < bindparam("at")))
                .values(last_used_at=bindparam("at")),
                [{"of": access_key_id, "at": at} for access_key_id, at in sorted(last_used.items())],
            )

    def heartbeat(self, proxy_id: str, workers: int = 1) -> None:
        """The proxy `proxy_id` lives, and has so many workers. Proxies unseen for a day are forgotten."""
        table, now = schema.proxies, self._now()
        with self._writing() as connection:
            values = {"last_seen": now, "metadata_format": NEWEST_FORMAT, "workers": workers}
            seen = update(table).where(table.c.id == proxy_id).values(values)
            if not connection.execute(seen).rowcount:
                try:
                    with connection.begin_nested():
                        connection.execute(insert(table).values(id=proxy_id, **values))
                except IntegrityError:
                    connection.execute(seen)  # another worker of this proxy was first
            connection.execute(delete(table).where(table.c.last_seen < now - _FORGOTTEN))

    def fleet_size(self) -> int:
        """The proxies seen within the last minute, at least 1."""
        with self._reading() as connection:
            return live_proxies(connection, self._now())


def live_proxies(connection: Connection, now: datetime) -> int:
    """The proxies seen within LIVE before `now`, at least 1: the one that asks."""
    table = schema.proxies
    count = select(func.count()).select_from(table).where(table.c.last_seen > now - LIVE)
    return max(1, connection.execute(count).scalar_one())


def lives(seen: datetime, lease: object, now: datetime) -> bool:
    """Whether a node may still serve: it was seen within LIVE, or its lease may not have ended.

    `seen`: when it last wrote. `lease`: seconds that it serves without the catalog; what is no number is none.
    """
    lease_s = timedelta(seconds=lease if isinstance(lease, int | float) else 0.0)
    return seen > now - max(LIVE, lease_s + _LATEST_LOOK)


def live_nodes(connection: Connection, now: datetime, *columns: str) -> list[Any]:
    """The nodes that may still serve, by name, with these columns as they are in the catalog."""
    table = schema.proxies
    query = select(*raw(table, "lease_s", *columns), table.c.last_seen).order_by(table.c.id)
    return [row for row in connection.execute(query) if lives(row.last_seen, row.lease_s, now)]


def readable_format(connection: Connection, now: datetime) -> int:
    """The newest format of ciphertext metadata that every live node reads."""
    formats = [row.metadata_format for row in live_nodes(connection, now, "metadata_format")]
    return min((found if type(found) is int else 1 for found in formats), default=NEWEST_FORMAT)


def _add(connection: Connection, counts: Mapping[int, int]) -> None:
    table = schema.key_generations
    if counts:
        connection.execute(
            update(table)
            .where(table.c.id == bindparam("of"))
            .where(table.c.encryptions_reserved + bindparam("more") >= 0)
            .values(encryptions_reserved=table.c.encryptions_reserved + bindparam("more")),
            [{"of": generation, "more": count} for generation, count in sorted(counts.items())],
        )


def totals_of(connection: Connection, generations: Collection[int] | None) -> dict[int, int]:
    """What each generation's HSM key has encrypted at most: NIST's limit is for the key, however many use it.

    Rows share the count if they have the same label in the same token: the token's serial number decides, and the
    HSM's name in the configuration where that is not known; unless both have a CKA_ID and these differ. A generation
    is left out if one of the counts is none.
    """
    table = schema.key_generations
    query = select(*raw(table, "id", "hsm", "label", "cka_id", "token_serial", "encryptions_reserved"))
    found = (
        connection.execute(query).all()
        if generations is None
        else [
            row
            for chunk in batched(generations, _CHUNK)
            for row in connection.execute(
                query.where(table.c.label.in_(select(table.c.label).where(table.c.id.in_(chunk))))
            )
        ]
    )
    by_label: dict[Any, dict[int, Row[Any]]] = {}
    for row in found:
        by_label.setdefault(row.label, {})[row.id] = row
    wanted = None if generations is None else set(generations)
    totals = {}
    for rows_of_label in by_label.values():
        for row in rows_of_label.values():
            if wanted is None or row.id in wanted:
                with suppress(BadRow):
                    totals[row.id] = sum(
                        count(other.encryptions_reserved) for other in rows_of_label.values() if _same_key(row, other)
                    )
    return totals


def _same_key(one: Row[Any], other: Row[Any]) -> bool:
    both_known = one.token_serial is not None and other.token_serial is not None
    same_token = one.token_serial == other.token_serial if both_known else one.hsm == other.hsm
    return same_token and (one.cka_id is None or other.cka_id is None or one.cka_id == other.cka_id)


def batched(values: Iterable[Value], size: int) -> Iterator[list[Value]]:
    """As `itertools.batched`, which Python 3.11 does not have."""
    remaining = iter(values)
    while chunk := list(islice(remaining, size)):
        yield chunk
