"""What became of each change, as the catalog keeps it: for people, and on its way to the audit log."""

import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from holdfast.audit import records
from holdfast.audit.faults import Malformed
from holdfast.audit.records import Change
from holdfast.store import rows, schema
from holdfast.store.database import Database
from holdfast.store.reads import NEVER
from holdfast.store.rows import raw

APPLIED = "applied"
"""The outcome of a change that was made."""


def new_change_id() -> str:
    """A random id, 16 hexadecimal digits: unique over all changes of all catalogs."""
    return secrets.token_hex(8)


def write_record(connection: Connection, change: Change) -> None:
    """Keep the record. The caller's transaction holds the lock of the catalog's own row."""
    connection.execute(
        insert(schema.changes).values(
            id=change.id, time=change.time, outcome=change.outcome, record=records.encode(change).decode()
        )
    )


@dataclass(frozen=True, slots=True)
class ChangeRow:
    """One record. `change` is None where it is not one that this version reads; `logged`: when the log had it."""

    number: int
    id: str
    time: datetime
    outcome: str
    change: Change | None
    logged: datetime | None


class Records(Database):
    """Reads the records. Raises Unavailable."""

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


def _change_row(row: Row[Any]) -> ChangeRow:
    try:
        change = records.decode(row.record.encode()) if isinstance(row.record, str) else None
    except (Malformed, UnicodeEncodeError):
        change = None
    return ChangeRow(
        row.number,
        rows.plain(row.id),
        rows.moment(row.time) or NEVER,
        rows.plain(row.outcome),
        change if isinstance(change, Change) else None,
        rows.moment(row.logged),
    )
