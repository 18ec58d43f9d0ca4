"""What the CLI lists: keystores, credentials and keys as rows, in the order they were made."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Column, Connection, Row, Select, select

from holdfast.keys.description import Description
from holdfast.keys.model import Takeover
from holdfast.keys.states import GenerationState
from holdfast.store import rows, schema
from holdfast.store.database import MAX_VERSION, Database
from holdfast.store.errors import NotFound
from holdfast.store.rows import BadRow, raw
from holdfast.store.use import totals_of
from holdfast.xks.types import KeyStatus, UriPathPrefix

NEVER = datetime.fromtimestamp(0, UTC)
"""Shown for a time that is missing in the catalog or not a time."""


_MOMENTS = ("created_at", "state_since", "activated_at")
_SEEN = ("attributes", "check_value", "world")


@dataclass(frozen=True, slots=True)
class KeystoreRow:
    """A keystore. `region`: the only one its callers may sign for, None for any.

    `blocked_until`: when a block ends by itself; None: never.
    """

    name: str
    prefix: UriPathPrefix
    region: str | None
    blocked: bool
    created_at: datetime
    blocked_until: datetime | None = None

    def is_blocked(self, now: datetime) -> bool:
        """Whether it is blocked by the clock, too."""
        return self.blocked and (self.blocked_until is None or now < self.blocked_until)


@dataclass(frozen=True, slots=True)
class CredentialRow:
    """A credential without its secret. `retired_at` None: it is live. `last_used_at` lags by seconds."""

    access_key_id: str
    keystore: str
    secret_ref: str
    created_at: datetime
    last_used_at: datetime | None
    retired_at: datetime | None


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One generation of an external key. `encryptions_reserved`: at most so many encryptions were made under it.

    `canary`: it can be proven to be the same key. `stopped`: why it may not be used; None: it may. `activated_at`:
    when it first encrypted. `tag` and `metadata_format` are the key's, and what its ciphertexts carry. `attributes`,
    `check_value` and `world`: of the HSM key when it was registered (`holdfast.keys.proof`).
    """

    keystore: str
    external_key_id: str
    status: KeyStatus
    generation_id: int
    generation: int
    hsm: str
    label: str
    cka_id: bytes | None
    takeover: Takeover | None
    encryptions_reserved: int
    created_at: datetime
    token_serial: str | None
    canary: bytes | None
    stopped: str | None
    state: GenerationState
    state_since: datetime
    activated_at: datetime | None
    compromised_at: datetime | None
    destroy_after: datetime | None
    tag: bytes
    metadata_format: int
    enabled_until: datetime | None = None
    pinned_to: tuple[str, ...] = ()
    description: Description = field(default_factory=Description)
    attributes: Mapping[str, bool] | None = None
    check_value: bytes | None = None
    world: str | None = None


class Reading:
    """The catalog as of the moment `now`: lists, and what is free. Raises CatalogError.

    Rows that are wrong (`Snapshot.bad_rows` names them) are left out, apart from keystores: a keystore is blocked by
    its name whatever else is wrong with its row.
    """

    def __init__(self, connection: Connection, *, now: datetime) -> None:
        self.connection = connection
        self.now = now

    def version(self) -> int | None:
        """The catalog's version; None where its row is missing or wrong."""
        found = self.connection.execute(select(*raw(schema.catalog, "version"))).scalar()
        return found if type(found) is int and 1 <= found <= MAX_VERSION else None

    def keystores(self) -> list[KeystoreRow]:
        """Every keystore."""
        table = schema.keystores
        columns = raw(table, "name", "prefix", "region", "blocked", "blocked_until", "created_at")
        found = self.connection.execute(select(*columns).order_by(table.c.id)).all()
        return [
            KeystoreRow(
                row.name,
                UriPathPrefix(row.prefix if isinstance(row.prefix, str) else rows.shown(row.prefix)),
                row.region if row.region is None or isinstance(row.region, str) else rows.shown(row.region),
                not rows.is_false(row.blocked),
                rows.moment(row.created_at) or NEVER,
                rows.moment(row.blocked_until),
            )
            for row in found
            if isinstance(row.name, str)
        ]

    def credentials(self, keystore: str | None) -> list[CredentialRow]:
        """The credentials of one keystore, or of all; retired ones too."""
        table = schema.credentials
        query = (
            select(
                *raw(table, "access_key_id", "keystore_id", "secret_ref", "created_at", "last_used_at", "retired_at"),
                *raw(schema.keystores, "name"),
            )
            .join_from(table, schema.keystores)
            .order_by(table.c.created_at, table.c.access_key_id)
        )
        return [
            made for row in self._of(keystore, query, table.c.keystore_id) if (made := _credential(row)) is not None
        ]

    def keys(self, keystore: str | None) -> list[KeyRow]:
        """The keys of one keystore, or of all; one row per generation."""
        key, generation = schema.external_keys, schema.key_generations
        query = (
            select(
                *raw(schema.keystores, "name"),
                *raw(key, *rows.EXTERNAL_KEY, *(name for name in rows.DESCRIPTION if name not in rows.EXTERNAL_KEY)),
                *raw(generation, *rows.GENERATION, *_MOMENTS, *_SEEN),
            )
            .join_from(schema.keystores, key)
            .join(generation)
            .order_by(generation.c.id)
        )
        found, tags = self._of(keystore, query, key.c.keystore_id), self._tags()
        return [made for row in found if (made := _key(row, tags.get(row.key_id, {}))) is not None]

    def _tags(self) -> dict[int, dict[str, str]]:
        """By the key's row."""
        found: dict[int, dict[str, str]] = {}
        columns = raw(schema.key_tags, "key_id", "name", "value")
        for row in self.connection.execute(select(*columns).order_by(schema.key_tags.c.name)):
            found.setdefault(row.key_id, {})[rows.plain(row.name)] = rows.said(row.value) or ""
        return found

    def encryption_totals(self, generations: Collection[int] | None = None) -> dict[int, int]:
        """The encryptions reserved so far under the HSM key of each generation, or of these, by its row."""
        return totals_of(self.connection, generations)

    def _of(self, keystore: str | None, query: Select[Any], column: Column[Any]) -> Sequence[Row[Any]]:
        if keystore is not None:
            query = query.where(column == keystore_id(self.connection, keystore))
        return self.connection.execute(query).all()


class Reads(Database):
    """Lists, each as of a moment of its own. They raise Unavailable, and NotFound for an unknown keystore."""

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        """A transaction that reads, and sees one moment of the catalog."""
        with self._reading() as connection:
            yield Reading(connection, now=self._now())

    def keystores(self) -> list[KeystoreRow]:
        """As `Reading.keystores`."""
        with self.reading() as state:
            return state.keystores()

    def credentials(self, keystore: str | None) -> list[CredentialRow]:
        """As `Reading.credentials`."""
        with self.reading() as state:
            return state.credentials(keystore)

    def keys(self, keystore: str | None) -> list[KeyRow]:
        """As `Reading.keys`."""
        with self.reading() as state:
            return state.keys(keystore)


def _credential(row: Row[Any]) -> CredentialRow | None:
    try:
        identity, _, secret_ref = rows.credential(row)
    except BadRow:
        return None
    return CredentialRow(
        access_key_id=identity.value,
        keystore=rows.plain(row.name),
        secret_ref=secret_ref,
        created_at=rows.moment(row.created_at) or NEVER,
        last_used_at=rows.moment(row.last_used_at),
        retired_at=None if row.retired_at is None else rows.moment(row.retired_at) or NEVER,
    )


def _key(row: Row[Any], tags: Mapping[str, str]) -> KeyRow | None:
    try:
        generation = rows.generation([getattr(row, name) for name in rows.GENERATION])
        return KeyRow(
            keystore=rows.plain(row.name),
            external_key_id=rows.external_key_id(row).value,
            status=rows.key_status(row),
            generation_id=generation.id,
            generation=generation.number,
            hsm=generation.hsm,
            label=generation.label,
            cka_id=generation.cka_id,
            takeover=rows.takeover(row),
            encryptions_reserved=rows.count(row.encryptions_reserved),
            created_at=rows.moment(row.created_at) or NEVER,
            token_serial=generation.token_serial,
            canary=generation.canary,
            stopped=generation.stopped,
            state=generation.state,
            state_since=rows.moment(row.state_since) or NEVER,
            activated_at=rows.moment(row.activated_at),
            compromised_at=rows.moment(row.compromised_at),
            destroy_after=rows.moment(row.destroy_after),
            tag=rows.tag(row),
            metadata_format=rows.metadata_format(row),
            enabled_until=rows.enabled_until(row),
            pinned_to=rows.pinned_to(row),
            description=rows.description(row, tags),
            attributes=rows.attributes(row.attributes),
            check_value=rows.octets(row.check_value),
            world=rows.said(row.world),
        )
    except BadRow:
        return None


def keystore_id(connection: Connection, name: str) -> int:
    """A keystore's row. Raises NotFound."""
    table = schema.keystores
    found: int | None = connection.execute(select(table.c.id).where(table.c.name == name)).scalar_one_or_none()
    if found is None:
        names = [rows.plain(known) for known in connection.execute(select(*raw(table, "name"))).scalars()]
        known = (
            f"there are {', '.join(sorted(names))}"
            if names
            else "there is none: make one with `holdfast keystore create`"
        )
        raise NotFound(f"there is no keystore {name!r}; {known}")
    return found
