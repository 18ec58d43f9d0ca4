"""The catalog: what an operator manages, in one database, with the secrets beside it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, Engine, Row, select

from holdfast.catalog import migrate, schema
from holdfast.catalog.changes import KeyChanges, KeystoreChanges
from holdfast.catalog.credentials import CredentialChanges
from holdfast.catalog.database import engine_of, errors_in_words
from holdfast.catalog.errors import CatalogError
from holdfast.catalog.generations import GenerationChanges
from holdfast.catalog.reads import Reads
from holdfast.catalog.secret_files import SecretFiles
from holdfast.catalog.secret_reference import SecretReference
from holdfast.catalog.snapshot import ExternalKey, Generation, Keystore, Snapshot, Takeover
from holdfast.catalog.use import Use, live_proxies
from holdfast.xks.types import KeyStatus, SecretAccessKey, UriPathPrefix


class Catalog(Reads, KeystoreChanges, KeyChanges, GenerationChanges, CredentialChanges, Use):
    """Opened with `open`, which never changes the tables, or with `create_or_upgrade`, which makes them fit.

    Safe to use from several threads, but not across a fork. Every method raises CatalogError.
    """

    def __init__(self, engine: Engine, secrets: Path, *, now: Callable[[], datetime]) -> None:
        super().__init__(engine, now=now)
        self._secrets = SecretFiles(secrets)
        self._secret_cache: dict[str, SecretAccessKey] = {}

    @classmethod
    def open(cls, url: str, secrets: Path, *, now: Callable[[], datetime]) -> Self:
        """The catalog at `url` with the secret files in `secrets`. Raises SchemaMismatch, Unavailable."""
        engine = engine_of(url)
        with _disposed_on_error(engine), errors_in_words(engine.url), engine.connect() as connection:
            migrate.check(connection)
        return cls(engine, secrets, now=now)

    @classmethod
    def create_or_upgrade(cls, url: str, secrets: Path, *, now: Callable[[], datetime]) -> Self:
        """`open`, after making or upgrading the tables. Harmless when several processes do it at once."""
        engine = engine_of(url)
        with _disposed_on_error(engine):
            migrate.upgrade(engine)
        return cls(engine, secrets, now=now)

    def snapshot(self) -> Snapshot:
        """Everything the proxy reads, as of one moment.

        A credential whose secret cannot be read is left out and named in `unreadable`.
        """
        with self._reading() as connection:
            rows = _Rows.read(connection)
            version = connection.execute(select(schema.catalog.c.version)).scalar_one()
            fleet_size = live_proxies(connection, self._now())
        secrets, unreadable = self._read_secrets(rows.credentials)
        keys = _external_keys(rows)
        keystores = {
            row.prefix: Keystore(
                name=row.name,
                prefix=UriPathPrefix(row.prefix),
                blocked=row.blocked,
                region=row.region,
                credentials=secrets.get(row.id, {}),
                keys=keys.get(row.id, {}),
            )
            for row in rows.keystores
        }
        return Snapshot(version, keystores, fleet_size, tuple(unreadable))

    def _read_secrets(self, rows: list[Row[Any]]) -> tuple[dict[int, dict[str, SecretAccessKey]], list[str]]:
        """The live credentials' secrets by keystore, and what went wrong, in words.

        A secret that was read once is not read again: its file is never rewritten, its reference never changes.
        """
        secrets: dict[int, dict[str, SecretAccessKey]] = {}
        cache: dict[str, SecretAccessKey] = {}
        unreadable = []
        for row in rows:
            reference = row.secret_ref
            try:
                secret = self._secret_cache.get(reference) or self._secrets.read(SecretReference.parse(reference))
            except CatalogError as error:
                unreadable.append(f"the credential {row.access_key_id} is refused until its secret is back: {error}")
                continue
            cache[reference] = secret
            secrets.setdefault(row.keystore_id, {})[row.access_key_id] = secret
        self._secret_cache = cache  # a retired credential's secret is forgotten
        return secrets, unreadable


@contextmanager
def _disposed_on_error(engine: Engine) -> Iterator[None]:
    try:
        yield
    except BaseException:
        engine.dispose()
        raise


@dataclass(frozen=True, slots=True)
class _Rows:
    keystores: list[Row[Any]]
    credentials: list[Row[Any]]
    external_keys: list[Row[Any]]
    generations: list[Row[Any]]

    @classmethod
    def read(cls, connection: Connection) -> Self:
        live = schema.credentials.c.retired_at.is_(None)
        return cls(
            keystores=list(connection.execute(select(schema.keystores))),
            credentials=list(connection.execute(select(schema.credentials).where(live))),
            external_keys=list(connection.execute(select(schema.external_keys))),
            generations=list(
                connection.execute(select(schema.key_generations).order_by(schema.key_generations.c.number))
            ),
        )


def _external_keys(rows: _Rows) -> dict[int, dict[str, ExternalKey]]:
    """The external keys by keystore row and external key id."""
    generations: dict[int, dict[int, Generation]] = {}
    for row in rows.generations:
        generation = Generation(
            row.id,
            row.number,
            row.hsm,
            row.label,
            row.cka_id,
            canary=row.canary,
            stopped=None if row.stopped_at is None else row.stopped_reason or "no reason is recorded",
            token_serial=row.token_serial,
        )
        generations.setdefault(row.key_id, {})[row.number] = generation
    keys: dict[int, dict[str, ExternalKey]] = {}
    for row in rows.external_keys:
        own = generations[row.id]
        keys.setdefault(row.keystore_id, {})[row.external_key_id] = ExternalKey(
            external_key_id=row.external_key_id,
            status=KeyStatus(row.status),
            current=own[max(own)],
            generations=own,
            takeover=Takeover(row.takeover_metadata) if row.takeover else None,
        )
    return keys
