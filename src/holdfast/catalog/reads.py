"""What the CLI lists: keystores, credentials and keys as rows, in the order they were made."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select

from holdfast.catalog import schema
from holdfast.catalog.database import Database
from holdfast.catalog.errors import NotFound
from holdfast.catalog.snapshot import Takeover
from holdfast.xks.types import KeyStatus, UriPathPrefix


@dataclass(frozen=True, slots=True)
class KeystoreRow:
    """A keystore. `region`: the only one its callers may sign for, None for any."""

    name: str
    prefix: UriPathPrefix
    region: str | None
    blocked: bool
    created_at: datetime


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

    `has_canary`: it can be proven to be the same key. `stopped`: why it may not be used; None: it may.
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
    has_canary: bool
    stopped: str | None


class Reads(Database):
    """Lists. They raise Unavailable, and NotFound for a keystore that is not there."""

    def keystores(self) -> list[KeystoreRow]:
        """Every keystore."""
        table = schema.keystores
        with self._reading() as connection:
            rows = connection.execute(select(table).order_by(table.c.id)).all()
        return [
            KeystoreRow(row.name, UriPathPrefix(row.prefix), row.region, row.blocked, row.created_at) for row in rows
        ]

    def credentials(self, keystore: str | None) -> list[CredentialRow]:
        """The credentials of one keystore, or of all; retired ones too."""
        table = schema.credentials
        query = (
            select(table, schema.keystores.c.name)
            .join(schema.keystores)
            .order_by(table.c.created_at, table.c.access_key_id)
        )
        with self._reading() as connection:
            if keystore is not None:
                query = query.where(table.c.keystore_id == keystore_id(connection, keystore))
            rows = connection.execute(query).all()
        return [
            CredentialRow(
                access_key_id=row.access_key_id,
                keystore=row.name,
                secret_ref=row.secret_ref,
                created_at=row.created_at,
                last_used_at=row.last_used_at,
                retired_at=row.retired_at,
            )
            for row in rows
        ]

    def keys(self, keystore: str | None) -> list[KeyRow]:
        """The keys of one keystore, or of all; one row per generation."""
        key, generation = schema.external_keys, schema.key_generations
        query = (
            select(
                schema.keystores.c.name.label("keystore"),
                key.c.external_key_id,
                key.c.status,
                key.c.takeover,
                key.c.takeover_metadata,
                generation,
            )
            .join_from(schema.keystores, key)
            .join(generation)
            .order_by(generation.c.id)
        )
        with self._reading() as connection:
            if keystore is not None:
                query = query.where(key.c.keystore_id == keystore_id(connection, keystore))
            rows = connection.execute(query).all()
        return [
            KeyRow(
                keystore=row.keystore,
                external_key_id=row.external_key_id,
                status=KeyStatus(row.status),
                generation_id=row.id,
                generation=row.number,
                hsm=row.hsm,
                label=row.label,
                cka_id=row.cka_id,
                takeover=Takeover(row.takeover_metadata) if row.takeover else None,
                encryptions_reserved=row.encryptions_reserved,
                created_at=row.created_at,
                token_serial=row.token_serial,
                has_canary=row.canary is not None,
                stopped=None if row.stopped_at is None else row.stopped_reason or "no reason is recorded",
            )
            for row in rows
        ]


def keystore_id(connection: Connection, name: str) -> int:
    """A keystore's row. Raises NotFound."""
    table = schema.keystores
    found: int | None = connection.execute(select(table.c.id).where(table.c.name == name)).scalar_one_or_none()
    if found is None:
        names = connection.execute(select(table.c.name).order_by(table.c.name)).scalars().all()
        known = (
            f"there are {', '.join(names)}" if names else "there is none: make one with `holdfast keystore create`"
        )
        raise NotFound(f"there is no keystore {name!r}; {known}")
    return found
