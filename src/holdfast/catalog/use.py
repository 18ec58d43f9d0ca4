"""What running proxies write: encryption counts, last use, heartbeats. None of it changes the version."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, delete, func, insert, or_, select, text, update
from sqlalchemy.exc import IntegrityError

from holdfast.catalog import schema
from holdfast.catalog.database import Database
from holdfast.catalog.errors import NotFound

LIVE = timedelta(seconds=60)
"""A proxy that was seen within this time counts as one of the fleet."""
_FORGOTTEN = timedelta(days=1)


class Use(Database):
    """Writes of the data plane. They raise CatalogError and then have changed nothing."""

    def reserve_encryptions(self, generation_id: int, count: int) -> int:
        """Add `count` to a generation's encryptions; the total reserved so far under its HSM key, this included."""
        totals = self.reserve({generation_id: count})
        if generation_id not in totals:
            raise NotFound(f"there is no key generation {generation_id} in the catalog")
        return totals[generation_id]

    def reserve(self, counts: Mapping[int, int]) -> dict[int, int]:
        """`reserve_encryptions` for several generations in one transaction; one that is not there is left out."""
        table = schema.key_generations
        with self._writing() as connection:
            if connection.dialect.name == "postgresql":
                # A total spans the keystores that share an HSM key, so reservations wait for each other; readers
                # do not. SQLite's transaction holds its one write lock already.
                connection.execute(text("LOCK TABLE key_generations IN SHARE ROW EXCLUSIVE MODE"))
            connection.execute(
                update(table)
                .where(table.c.id == bindparam("of"))
                .values(encryptions_reserved=table.c.encryptions_reserved + bindparam("more")),
                [{"of": generation, "more": count} for generation, count in sorted(counts.items())],
            )
            totals = _totals(connection)
        return {generation: totals[generation] for generation in counts if generation in totals}

    def encryption_totals(self) -> dict[int, int]:
        """The encryptions reserved so far under the HSM key of every generation, by the generation's row."""
        with self._reading() as connection:
            return _totals(connection)

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

    def heartbeat(self, proxy_id: str) -> None:
        """The proxy `proxy_id` lives. Proxies unseen for a day are forgotten."""
        table, now = schema.proxies, self._now()
        with self._writing() as connection:
            seen = update(table).where(table.c.id == proxy_id).values(last_seen=now)
            if not connection.execute(seen).rowcount:
                try:
                    with connection.begin_nested():
                        connection.execute(insert(table).values(id=proxy_id, last_seen=now))
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


def _totals(connection: Connection) -> dict[int, int]:
    """What each generation's HSM key has encrypted at most: NIST's limit is the key's, whoever uses it.

    Rows that share HSM and label share the count, unless both have a CKA_ID and these differ.
    """
    table = schema.key_generations
    rows = connection.execute(
        select(table.c.id, table.c.hsm, table.c.label, table.c.cka_id, table.c.encryptions_reserved)
    ).all()
    shared: dict[tuple[str, str], list[tuple[bytes | None, int]]] = {}
    for row in rows:
        shared.setdefault((row.hsm, row.label), []).append((row.cka_id, row.encryptions_reserved))
    return {
        row.id: sum(
            reserved
            for cka_id, reserved in shared[row.hsm, row.label]
            if cka_id is None or row.cka_id is None or cka_id == row.cka_id
        )
        for row in rows
    }
