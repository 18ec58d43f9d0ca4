"""What KMS stores, in SQLite: in a file, or in the memory of this process."""

import os
import sqlite3
from dataclasses import astuple, fields
from pathlib import Path
from typing import TypeVar

from holdfast.witness.kms.records import Alias, Grant, Key, KeyStore, Rotation, Tag
from holdfast.witness.kms_errors import ConnectionErrorCode

Record = KeyStore | Key | Alias | Tag | Rotation | Grant
_R = TypeVar("_R", KeyStore, Key, Alias, Tag, Rotation, Grant)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS key_store (
    id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, created REAL NOT NULL, connectivity TEXT NOT NULL,
    uri_endpoint TEXT NOT NULL, uri_path TEXT NOT NULL, access_key_id TEXT NOT NULL,
    secret_access_key TEXT NOT NULL, credential_since REAL NOT NULL, vpc_service TEXT UNIQUE,
    vpc_service_owner TEXT, connection_state TEXT NOT NULL, connection_error_code TEXT,
    UNIQUE (uri_endpoint, uri_path));
CREATE TABLE IF NOT EXISTS key (
    id TEXT PRIMARY KEY, created REAL NOT NULL, description TEXT NOT NULL, policy TEXT NOT NULL,
    material BLOB NOT NULL, enabled INTEGER NOT NULL, deletion_date REAL,
    key_store_id TEXT REFERENCES key_store (id), xks_key_id TEXT, rotation_period INTEGER, rotation_since REAL,
    aws_service TEXT, UNIQUE (key_store_id, xks_key_id));
CREATE TABLE IF NOT EXISTS alias (
    name TEXT PRIMARY KEY, key_id TEXT NOT NULL REFERENCES key (id) ON DELETE CASCADE,
    created REAL NOT NULL, updated REAL NOT NULL);
CREATE TABLE IF NOT EXISTS tag (
    key_id TEXT NOT NULL REFERENCES key (id) ON DELETE CASCADE, name TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (key_id, name));
CREATE TABLE IF NOT EXISTS rotation (
    key_id TEXT NOT NULL REFERENCES key (id) ON DELETE CASCADE, number INTEGER NOT NULL, date REAL NOT NULL,
    replaced BLOB NOT NULL, PRIMARY KEY (key_id, number));
CREATE TABLE IF NOT EXISTS "grant" (
    id TEXT PRIMARY KEY, key_id TEXT NOT NULL REFERENCES key (id) ON DELETE CASCADE, created REAL NOT NULL,
    name TEXT, grantee TEXT, grantee_service TEXT, retiring TEXT, retiring_service TEXT, operations TEXT NOT NULL,
    constraints TEXT NOT NULL);
"""
_ADDED = {"key": {"rotation_period": "INTEGER", "rotation_since": "REAL", "aws_service": "TEXT"}}
"""Columns that a file of an earlier version may lack."""
_TABLES: dict[type, str] = {
    KeyStore: "key_store",
    Key: "key",
    Alias: "alias",
    Tag: "tag",
    Rotation: "rotation",
    Grant: '"grant"',
}
_PRIMARY_KEYS: dict[type, tuple[str, ...]] = {
    KeyStore: ("id",),
    Key: ("id",),
    Alias: ("name",),
    Tag: ("key_id", "name"),
    Rotation: ("key_id", "number"),
    Grant: ("id",),
}


class State:
    """Records by type; each call is one transaction. For one thread at a time."""

    def __init__(self, directory: Path | None) -> None:
        if directory is None:
            file = ":memory:"
        else:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = str(directory / "kms.sqlite")
            _make_private(file)
        self._database = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA foreign_keys = ON")
        self._database.executescript(_SCHEMA)
        self._add_columns()

    def _add_columns(self) -> None:
        for table, added in _ADDED.items():
            there = {row[1] for row in self._database.execute(f"PRAGMA table_info({table})")}
            for column, kind in added.items():
                if column not in there:
                    self._database.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")

    def close(self) -> None:
        """Closes the database."""
        self._database.close()

    def put(self, record: Record) -> None:
        """Inserts or replaces a record by its primary key. Raises sqlite3.IntegrityError."""
        kind = type(record)
        names = _columns(kind)
        keys = _PRIMARY_KEYS[kind]
        updates = ", ".join(f"{name} = excluded.{name}" for name in names if name not in keys)
        self._database.execute(
            f"INSERT INTO {_TABLES[kind]} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))}) "  # noqa: S608 (the names are constants of this module)
            f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {updates}",
            astuple(record),
        )

    def delete(self, record: Record) -> None:
        """Deletes a record, and what belongs to it."""
        kind = type(record)
        keys = _PRIMARY_KEYS[kind]
        where = " AND ".join(f"{key} = ?" for key in keys)
        values = [getattr(record, key) for key in keys]
        self._database.execute(f"DELETE FROM {_TABLES[kind]} WHERE {where}", values)  # noqa: S608 (the names are constants of this module)

    def select(self, kind: type[_R], **equal: object) -> list[_R]:
        """The records whose columns have these values, in the order of their primary keys."""
        where = " AND ".join(f"{column} = ?" for column in equal) or "TRUE"
        rows = self._database.execute(
            f"SELECT {', '.join(_columns(kind))} FROM {_TABLES[kind]} WHERE {where} "  # noqa: S608 (the names are constants of this module)
            f"ORDER BY {', '.join(_PRIMARY_KEYS[kind])}",
            list(equal.values()),
        )
        return [_record(kind, row) for row in rows]

    def find(self, kind: type[_R], **equal: object) -> _R | None:
        """The one record whose columns have these values, which are unique together; None if there is none."""
        records = self.select(kind, **equal)
        return records[0] if records else None

    def expire(self, now: float) -> None:
        """Deletes the keys whose waiting period has ended."""
        self._database.execute("DELETE FROM key WHERE deletion_date <= ?", (now,))


def _make_private(file: str) -> None:
    """Creates the file, readable and writable by its owner alone: it holds keys. SQLite's journal gets its mode."""
    descriptor = os.open(file, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def _columns(kind: type[Record]) -> list[str]:
    return [field.name for field in fields(kind)]


def _record(kind: type[_R], row: tuple[object, ...]) -> _R:
    values = dict(zip(_columns(kind), row, strict=True))
    if "enabled" in values:
        values["enabled"] = bool(values["enabled"])
    if values.get("connection_error_code") is not None:
        values["connection_error_code"] = ConnectionErrorCode(str(values["connection_error_code"]))
    return kind(**values)  # type: ignore[arg-type]  # the schema holds the columns to the fields' types
