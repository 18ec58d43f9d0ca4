"""What became of each change, as the catalog keeps it: for people, and on its way to the audit log."""

import platform
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from msgspec import structs
from sqlalchemy import Connection, Row, insert, select, update

from holdfast.audit import records
from holdfast.audit.faults import Malformed
from holdfast.audit.records import Actor, Change, Effect
from holdfast.store import rows, schema
from holdfast.store.database import Database
from holdfast.store.entries import Touched, begin, record_entries
from holdfast.store.reads import NEVER
from holdfast.store.rows import raw

APPLIED = "applied"
"""The outcome of a change that was made."""


def new_change_id() -> str:
    """A random id, 16 hexadecimal digits: unique over all changes of all catalogs."""
    return secrets.token_hex(8)


def write_record(
    connection: Connection, change: Change, touched: Mapping[str, Touched], *, anew: bool = False
) -> None:
    """Keep the record, and what it says of the entries that the change has touched (`entries.record_entries`).

    The caller's transaction holds the lock of the catalog's own row.
    """
    _write(connection, structs.replace(change, catalog_digest=record_entries(connection, touched, anew=anew)))


def _write(connection: Connection, change: Change) -> None:
    connection.execute(
        insert(schema.changes).values(
            id=change.id, time=change.time, outcome=change.outcome, record=records.encode(change).decode()
        )
    )


def begin_records(connection: Connection, now: datetime) -> None:
    """Of a catalog that was made before records covered its entries: what is there is what is recorded."""
    begun = begin(connection)
    if begun is None:
        return
    counts, digest = begun
    version = connection.execute(select(*raw(schema.catalog, "version"))).scalar()
    change = Change(
        time=now,
        id=new_change_id(),
        action="catalog begin",
        subject="catalog",
        actor=Actor(name="holdfast", known_by="upgrade", where=platform.node()),
        effects=(Effect(subject="catalog", after=counts),),
        reason="records cover the rows from here on: what they were before, nobody has checked",
        catalog_version=version if isinstance(version, int) else None,
        catalog_digest=digest,
    )
    _write(connection, change)


def records_of(connection: Connection, change_id: str) -> bool:
    """Whether there is a record of this change."""
    found = select(schema.changes.c.number).where(schema.changes.c.id == change_id)
    return connection.execute(found).first() is not None


@dataclass(frozen=True, slots=True)
class ChangeRow:
    """One record. `change` is None where it is not one that this version reads; `logged`: when the log had it."""

    number: int
    id: str
    time: datetime
    outcome: str
    change: Change | None
    logged: datetime | None


class Waiting(NamedTuple):
    """A record that the log does not have yet, as far as the catalog knows. `number` is the order of the changes."""

    number: int
    time: datetime
    record: bytes


class Records(Database):
    """The records, on their way from a change to its readers. Raises Unavailable."""

    def changes(self, *, latest: int | None = None, beginning: str = "") -> list[ChangeRow]:
        """The latest records, or all, the oldest first; of the changes whose id begins so."""
        table = schema.changes
        query = select(*raw(table, "number", "id", "time", "outcome", "record", "logged")).order_by(
            table.c.number.desc()
        )
        if beginning:
            query = query.where(table.c.id.startswith(beginning, autoescape=True))
        with self._reading() as connection:
            found = connection.execute(query.limit(latest)).all()
        return [_change_row(row) for row in reversed(found)]

    def changes_after(self, number: int, *, limit: int) -> list[ChangeRow]:
        """The first records after this one, in the order of the changes. Raises Unavailable."""
        table = schema.changes
        query = select(*raw(table, "number", "id", "time", "outcome", "record", "logged"))
        with self._reading() as connection:
            found = connection.execute(query.where(table.c.number > number).order_by(table.c.number).limit(limit))
            return [_change_row(row) for row in found]

    def last_change(self) -> tuple[int, str] | None:
        """The number and the change of the last record; None: there is none. Raises Unavailable."""
        query = select(*raw(schema.changes, "number", "id")).order_by(schema.changes.c.number.desc()).limit(1)
        with self._reading() as connection:
            row = connection.execute(query).first()
        return None if row is None else (row.number, rows.plain(row.id))

    def has_change(self, number: int, change_id: str) -> bool:
        """Whether the record with this number is of this change. Raises Unavailable."""
        query = select(*raw(schema.changes, "id")).where(schema.changes.c.number == number)
        with self._reading() as connection:
            row = connection.execute(query).first()
        return row is not None and rows.plain(row.id) == change_id

    def unlogged(self, *, limit: int) -> list[Waiting]:
        """The first records that the audit log does not have yet, in the order of the changes. Raises Unavailable."""
        table = schema.changes
        query = select(*raw(table, "number", "time", "record")).where(table.c.logged.is_(None))
        with self._reading() as connection:
            found = connection.execute(query.order_by(table.c.number).limit(limit)).all()
        return [Waiting(row.number, rows.moment(row.time) or NEVER, _bytes(row.record)) for row in found]

    def mark_logged(self, numbers: Sequence[int]) -> None:
        """The audit log has these records. Raises Unavailable."""
        with self._writing() as connection:
            connection.execute(
                update(schema.changes).where(schema.changes.c.number.in_(numbers)).values(logged=self._now())
            )


def _bytes(record: object) -> bytes:
    """The text of a row, whatever somebody has put there."""
    return (record if isinstance(record, str) else repr(record)).encode(errors="backslashreplace")


def _change(record: object) -> Change | None:
    try:
        change = records.decode(record.encode()) if isinstance(record, str) else None
    except (Malformed, UnicodeEncodeError):
        return None
    return change if isinstance(change, Change) else None


def _change_row(row: Row[Any]) -> ChangeRow:
    return ChangeRow(
        row.number,
        rows.plain(row.id),
        rows.moment(row.time) or NEVER,
        rows.plain(row.outcome),
        _change(row.record),
        rows.moment(row.logged),
    )
