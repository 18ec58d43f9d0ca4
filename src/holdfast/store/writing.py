"""What the parts of a change have in common: one connection in its transaction, one time, and files beside it."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, event, func, insert, select, update
from sqlalchemy.sql.dml import UpdateBase

from holdfast.store import schema
from holdfast.store.database import THIS_VERSION
from holdfast.store.entries import KIND_OF, NOT_RECORDED
from holdfast.store.reads import Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from sqlalchemy import Connection, Table

    from holdfast.secrets.files import SecretFiles
    from holdfast.store.entries import Kind, Touched

_NOTED = "holdfast_noted"
_CHANGED = func.coalesce(THIS_VERSION, 0)
"""A block is possible without a version."""


class Writing(Reading):
    """One transaction that changes something; `now` is the time of all that it writes, `change_id` its record's.

    `on_failure` is called after a rollback, or a commit of unknown outcome; `after_commit` when all of it is there.
    Rows of keystores, credentials, keys and generations are written by `add`, `alter` and `remove` alone: so the
    record of the change covers them.
    """

    def __init__(self, connection: Connection, secrets: SecretFiles, *, change_id: str, now: datetime) -> None:
        super().__init__(connection, now=now)
        self.secrets = secrets
        self.change_id = change_id
        self.on_failure: list[Callable[[], None]] = []
        self.after_commit: list[Callable[[], None]] = []
        self._touched: defaultdict[str, Touched] = defaultdict(dict)
        self.counts_anew = False
        """The record gets the sum of what is recorded, whatever the record before it says."""
        event.listen(connection, "before_execute", _require_noted)

    def add(self, table: Table, **values: object) -> Any:
        """Insert a row; the value of its primary key."""
        kind = KIND_OF[table]
        columns = kind.columns_of(table)
        made = insert(table).values(**values, changed=_CHANGED).returning(table.c[columns[0]])
        identity = self._execute(made).scalar_one()
        owner = identity if table is kind.table else values["key_id"]
        self._note(table, owner, identity, columns)
        return identity

    def alter(self, table: Table, *conditions: Any, **values: object) -> int:
        """Set columns of the rows that meet the conditions; how many rows."""
        kind = KIND_OF[table]
        own = table.c[kind.columns_of(table)[0]]
        owner = own if table is kind.table else table.c.key_id
        found = self.connection.execute(select(own, owner).where(*conditions)).all()
        if found:
            changed = update(table).where(own.in_([row[0] for row in found]))
            self._execute(changed.values(**values, changed=_CHANGED))
        for row in found:
            self._note(table, row[1], row[0], values)
        return len(found)

    def alter_beside(self, table: Table, *conditions: Any, **values: object) -> None:
        """Set columns that no record covers, and no snapshot has."""
        if not NOT_RECORDED[table.name].issuperset(values):
            raise RuntimeError(f"{table} has columns here that records cover: {', '.join(values)}")
        self._execute(update(table).where(*conditions).values(**values))

    def remove(self, table: Table, *conditions: Any) -> None:
        """Delete the rows that meet the conditions."""
        kind = KIND_OF[table]
        owner = kind.key if table is kind.table else table.c.key_id
        for identity in self.connection.execute(select(owner).where(*conditions)).scalars().all():
            self._touched[kind.name].setdefault(identity, set())
        self.connection.execute(update(schema.catalog).values(removed=schema.catalog.c.version))
        self._execute(delete(table).where(*conditions))

    def take_as_found(self, kind: Kind, identity: Any) -> None:
        """Whatever lies in the rows of this entry is right; also if none do."""
        self._touched[kind.name][identity] = None
        made = self._execute(update(kind.table).where(kind.key == identity).values(changed=_CHANGED))
        if not made.rowcount:
            self.connection.execute(update(schema.catalog).values(removed=schema.catalog.c.version))

    def take_touched(self) -> Mapping[str, Touched]:
        """What was set, by kind of entry, since this was last called."""
        touched, self._touched = self._touched, defaultdict(dict)
        return touched

    def _note(self, table: Table, owner: Any, row: Any, columns: Any) -> None:
        touched = self._touched[KIND_OF[table].name].setdefault(owner, set())
        if touched is not None:
            touched.update((table.name, row, name) for name in columns)

    def _execute(self, statement: UpdateBase) -> Any:
        return self.connection.execute(statement, execution_options={_NOTED: True})


def _require_noted(_connection: Any, statement: Any, _many: Any, _one: Any, options: Any) -> None:
    """Raises RuntimeError for a row that no record would explain: a mistake in this program."""
    if isinstance(statement, UpdateBase) and statement.table in KIND_OF and not options.get(_NOTED):
        raise RuntimeError(f"a row of {statement.table} was to be changed without its record")
