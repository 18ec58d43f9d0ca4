"""What the record of a change says of the catalog's rows, so that a row that no record explains is found.

The catalog has three kinds of *entries*: a keystore, a live credential, a key with its generations. Beside its rows
stands each entry as it was when a recorded change last touched it (`recorded_entries`), and each record has the sum
over all entries after the change (`audit.catalog_digest`). An entry that is not as recorded was changed by hand.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Column, Connection, Table, delete, func, insert, select

from holdfast.audit.catalog_digest import digest_of, element, encode
from holdfast.store import rows, schema
from holdfast.store.rows import raw
from holdfast.store.use import batched

_CHUNK = 500
"""Entries asked for by their ids in one query."""

NOT_RECORDED: Mapping[str, frozenset[str]] = {
    "keystores": frozenset({"created_at", "changed"}),
    "credentials": frozenset({"created_at", "changed", "last_used_at", "retired_at"}),
    "external_keys": frozenset(
        {
            *("created_at", "changed"),
            *("owner", "description", "external_reference", "originator_days", "recipient_days"),
        }
    ),
    "key_generations": frozenset(
        {
            *("created_at", "changed", "encryptions_reserved", "state_since", "activated_at"),
            *("attributes", "check_value", "world"),
        }
    ),
}
"""The columns of an entry's rows that no digest covers: counters, last uses, and what is only shown to people.

A credential that is retired is no entry, so `retired_at` is covered all the same.
"""


class Kind(NamedTuple):
    """A kind of entries: its table, and that of the rows which belong to it, with the columns that count."""

    name: str
    table: Table
    columns: tuple[str, ...]
    parts: Table | None = None
    part_columns: tuple[str, ...] = ()

    @property
    def key(self) -> Column[Any]:
        """The column that an entry is known by."""
        return self.table.c[self.columns[0]]

    def columns_of(self, table: Table) -> tuple[str, ...]:
        """Those that count, of the entry's own table or of its parts'."""
        return self.columns if table is self.table else self.part_columns


KEYSTORE = Kind("keystore", schema.keystores, rows.KEYSTORE)
CREDENTIAL = Kind("credential", schema.credentials, rows.CREDENTIAL)
KEY = Kind(
    "key",
    schema.external_keys,
    ("id", "keystore_id", *rows.EXTERNAL_KEY),
    schema.key_generations,
    rows.RECORDED_GENERATION,
)
KINDS = {kind.name: kind for kind in (KEYSTORE, CREDENTIAL, KEY)}
KIND_OF = {
    table: kind for kind in (KEYSTORE, CREDENTIAL, KEY) for table in (kind.table, kind.parts) if table is not None
}
"""The kind of the entry that a table's rows belong to."""

Entry = list[list[Any]]
"""The values of its own row by the columns of its kind, then those of each part."""
Touched = dict[Any, set[tuple[str, Any, str]] | None]
"""What a change has set of the entries of a kind, by their ids: table, row and column; None: all that is there."""


def decode(content: object) -> Entry | None:
    """An entry as it was recorded; None: somebody has written something else there."""
    try:
        return _DECODER.decode(content) if isinstance(content, str) and content else None
    except (msgspec.MsgspecError, UnicodeEncodeError):
        return None


_DECODER = msgspec.json.Decoder(list[list[Any]])


def in_catalog(connection: Connection, kind: Kind, ids: Collection[Any] | None) -> dict[str, Entry]:
    """The entries as they lie in the rows now, by their ids as text; all, or these."""
    found: dict[str, Entry] = {}
    for chunk in _chunks(ids):
        own = select(*raw(kind.table, *kind.columns)).order_by(kind.key)
        if kind is CREDENTIAL:
            own = own.where(schema.credentials.c.retired_at.is_(None))
        for row in connection.execute(own if chunk is None else own.where(kind.key.in_(chunk))):
            found[str(row[0])] = [list(row)]
        if kind.parts is not None:
            owner = kind.parts.c.key_id
            parts = select(*raw(kind.parts, *kind.part_columns)).order_by(kind.parts.c.id)
            for row in connection.execute(parts if chunk is None else parts.where(owner.in_(chunk))):
                if str(row.key_id) in found:
                    found[str(row.key_id)].append(list(row))
    return found


def as_recorded(connection: Connection, kind: Kind, ids: Collection[Any] | None) -> dict[str, str]:
    """The entries as recorded changes have left them, by their ids as text; all, or these."""
    table = schema.recorded_entries
    query = select(*raw(table, "id", "content")).where(table.c.kind == kind.name)
    return {
        str(row.id): row.content if isinstance(row.content, str) else ""
        for chunk in _chunks(None if ids is None else [str(one) for one in ids])
        for row in connection.execute(query if chunk is None else query.where(table.c.id.in_(chunk)))
    }


def recorded_digest(connection: Connection) -> str:
    """What the latest record says the sum over all entries is. Without a record there are none."""
    table = schema.changes
    record = connection.execute(select(*raw(table, "record")).order_by(table.c.number.desc()).limit(1)).scalar()
    if record is None:
        return digest_of(0)
    try:
        return _DIGEST.decode(record).catalog_digest if isinstance(record, str) else ""
    except (msgspec.MsgspecError, UnicodeEncodeError):
        return ""


class _Digest(msgspec.Struct):
    catalog_digest: str = ""


_DIGEST = msgspec.json.Decoder(_Digest)


def record_entries(connection: Connection, touched: Mapping[str, Touched], *, anew: bool = False) -> str:
    """Take over what a change has set, and nothing else, into the recorded entries; the digest after it.

    What somebody had changed by hand in the same row before stays unexplained. `anew`: whatever the latest record
    says, the sum is that of all recorded entries.
    """
    digest = "" if anew else recorded_digest(connection)
    total = int(digest, 16) if len(digest) == len(digest_of(0)) else _total_recorded(connection)
    for name, changed in touched.items():
        kind = KINDS[name]
        for chunk in batched(changed, _CHUNK):
            now, before = in_catalog(connection, kind, chunk), as_recorded(connection, kind, chunk)
            after: dict[str, str] = {}
            for identity in chunk:
                known, text = before.get(str(identity)), None
                merged = _merged(kind, now.get(str(identity)), decode(known), changed[identity])
                if merged is not None:
                    after[str(identity)] = text = encode(merged).decode()
                total += _element(name, text) - _element(name, known)
            _replace(connection, name, [str(one) for one in chunk], after)
    return digest_of(total)


def _total_recorded(connection: Connection) -> int:
    return total_of({name: as_recorded(connection, kind, None) for name, kind in KINDS.items()})


def total_of(recorded: Mapping[str, Mapping[str, str]]) -> int:
    """The sum over recorded entries, by kind and id."""
    return sum(_element(name, content) for name, entries in recorded.items() for content in entries.values())


def _element(name: str, content: str | None) -> int:
    """What an entry adds to the sum; None: there is none. What somebody has written there need not be UTF-8."""
    return 0 if content is None else element(name, content.encode(errors="replace"))


def _merged(
    kind: Kind, now: Entry | None, known: Entry | None, changed: set[tuple[str, Any, str]] | None
) -> Entry | None:
    """The recorded entry with the values that were set; None: there is none any more, or no record of it."""
    if now is None or changed is None:
        return now
    tables = [kind.table, *[kind.parts] * (len(now) - 1)]
    before = {_identity(kind, index, row): row for index, row in enumerate(known or [])}
    merged = []
    for index, (table, row) in enumerate(zip(tables, now, strict=True)):
        assert table is not None  # noqa: S101 (only a kind with parts has more than one row)
        names = kind.columns_of(table)
        fresh = {column for name, identity, column in changed if (name, identity) == (table.name, row[0])}
        old = before.get(_identity(kind, index, row))
        if old is not None:
            padded = [*old, *[None] * (len(names) - len(old))]
            merged.append([new if name in fresh else was for name, new, was in zip(names, row, padded, strict=True)])
        elif fresh.issuperset(names):
            merged.append(row)
        elif index == 0:
            return None
    return merged


def _identity(kind: Kind, index: int, row: Sequence[Any]) -> tuple[bool, Any]:
    """A row within its entry: the entry's own, or a part by its id."""
    return (True, None) if index == 0 or kind.parts is None else (False, row[0] if row else None)


def _replace(connection: Connection, kind: str, ids: list[str], contents: Mapping[str, str]) -> None:
    table = schema.recorded_entries
    connection.execute(delete(table).where(table.c.kind == kind, table.c.id.in_(ids)))
    if contents:
        connection.execute(
            insert(table), [{"kind": kind, "id": one, "content": content} for one, content in contents.items()]
        )


def begin(connection: Connection) -> tuple[dict[str, int], str] | None:
    """Take what is in the catalog for recorded, once; how many entries of each kind, and the digest.

    None: there is nothing, or it was done before.
    """
    if connection.execute(select(func.count()).select_from(schema.recorded_entries)).scalar_one():
        return None
    counts = {}
    for name, kind in KINDS.items():
        found = in_catalog(connection, kind, None)
        counts[f"{name}s"] = len(found)
        for chunk in batched(found, _CHUNK):
            _replace(connection, name, chunk, {one: encode(found[one]).decode() for one in chunk})
    return (counts, digest_of(_total_recorded(connection))) if any(counts.values()) else None


def _chunks(ids: Collection[Any] | None) -> Iterator[list[Any] | None]:
    if ids is None:
        yield None
    else:
        yield from batched(ids, _CHUNK)
