"""The one way to change the catalog: a transaction that ends with the record of the change, or with nothing."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from holdfast.audit.records import Change
from holdfast.secrets.errors import SecretMissing
from holdfast.secrets.files import SecretFiles
from holdfast.store import schema
from holdfast.store.changes import KeyChanges, KeystoreChanges
from holdfast.store.credentials import CredentialChanges
from holdfast.store.database import Database
from holdfast.store.errors import Unavailable
from holdfast.store.generations import GenerationChanges
from holdfast.store.governance import GovernanceChanges
from holdfast.store.nodes import NodeChanges
from holdfast.store.records import records_of, write_record
from holdfast.store.repairs import Repairs
from holdfast.store.transfer import ImportChanges

_LAST_NUMBER = 2**63 - 1


class Transaction(
    KeystoreChanges,
    KeyChanges,
    GenerationChanges,
    CredentialChanges,
    ImportChanges,
    GovernanceChanges,
    NodeChanges,
    Repairs,
):
    """Changes, of which all happen or none, with their record. They raise CatalogError.

    Made by `Changes.changing`, which is for `control` alone, and for what nodes find out (`findings.py`).
    """

    _recorded = False

    def require_record(self) -> None:
        """Raises RuntimeError for a change that nobody recorded: a mistake in this program."""
        if self.take_touched() or not self._recorded:
            raise RuntimeError("a change was to be made without its record")

    def record(self, change: Change, *, required: bool = True) -> bool:
        """Keep what became of the change, with the change.

        Where it is not `required` a catalog that cannot keep it does not prevent the change: False.
        """
        self._recorded = True
        touched = self.take_touched()
        if required:
            write_record(self.connection, change, touched, anew=self.counts_anew)
            return True
        try:
            with self.connection.begin_nested():
                if self._no_number_is_left():
                    return False
                write_record(self.connection, change, touched, anew=self.counts_anew)
        except DBAPIError:
            if self._is_undone():
                raise
            return False
        return True

    def _no_number_is_left(self) -> bool:
        """Somebody has given a record the last number: SQLite would then undo the whole transaction."""
        last = self.connection.execute(select(func.max(schema.changes.c.number))).scalar()
        return isinstance(last, int) and last >= _LAST_NUMBER

    def _is_undone(self) -> bool:
        """SQLite undoes the whole transaction where the disk is full."""
        driver: object = self.connection.connection.dbapi_connection
        return isinstance(driver, sqlite3.Connection) and not driver.in_transaction


class Changes(Database):
    """The way into a change."""

    _secrets: SecretFiles

    @contextmanager
    def changing(
        self, change_id: str, *, in_snapshot: bool = True, needs_version: bool = True
    ) -> Iterator[Transaction]:
        """A transaction that changes something; it ends with its record, or with nothing changed.

        `change_id` is the record's. `in_snapshot`: it changes what a Snapshot holds, and so the version.
        `needs_version` False: it is possible also where the catalog's own row is missing.
        """
        transaction: Transaction | None = None
        try:
            with self._changing(in_snapshot=in_snapshot, needs_version=needs_version) as connection:
                transaction = Transaction(connection, self._secrets, change_id=change_id, now=self._now())
                yield transaction
                transaction.require_record()
        except BaseException:
            if transaction is not None and transaction.on_failure and not self._may_be_there(change_id):
                for undo in transaction.on_failure:
                    with suppress(SecretMissing):  # the error that led here says more
                        undo()
            raise
        for finish in transaction.after_commit:
            finish()

    def _may_be_there(self, change_id: str) -> bool:
        """Whether a change that failed may have been made all the same.

        A connection that broke during the commit leaves that open. If it cannot be found out either, what was made
        beside the catalog stays: without its row a secret opens nothing, and a row without it would be a dead
        credential.
        """
        try:
            with self._reading() as connection:
                return records_of(connection, change_id)
        except Unavailable:
            return True
