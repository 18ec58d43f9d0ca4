"""The catalog: what an operator manages, in one database, with the secrets beside it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Self

from sqlalchemy import Engine

from holdfast.keys.model import Snapshot
from holdfast.secrets.files import REFERENCE_PREFIX, SecretFiles
from holdfast.store import migrate
from holdfast.store.database import engine_of, errors_in_words
from holdfast.store.findings import Findings
from holdfast.store.nodes import Nodes
from holdfast.store.reads import Reads
from holdfast.store.records import Records
from holdfast.store.rotation import GenerationReports
from holdfast.store.transfer import Transfer
from holdfast.store.usage import KeyUsage
from holdfast.store.use import Use
from holdfast.store.view import Difference, States, View, read_states


class Catalog(Reads, Records, Findings, GenerationReports, Nodes, Use, KeyUsage, Transfer):
    """Opened with `open`, which never changes the tables, or with `create_or_upgrade`, which makes them fit.

    Safe to use from several threads, but not across a fork. Every method raises CatalogError.
    """

    def __init__(self, engine: Engine, secrets: SecretFiles, *, now: Callable[[], datetime]) -> None:
        super().__init__(engine, now=now)
        self._secrets = secrets

    @classmethod
    def open(
        cls, url: str, secrets: Path, *, now: Callable[[], datetime], reference_prefix: str = REFERENCE_PREFIX
    ) -> Self:
        """The catalog at `url` with the secret files in `secrets`. Raises SchemaMismatch, Unavailable.

        `reference_prefix`: how the name of a secret that lies elsewhere begins (`SecretFiles`).
        """
        engine = engine_of(url)
        with _disposed_on_error(engine), errors_in_words(engine.url), engine.connect() as connection:
            migrate.check(connection)
        return cls(engine, SecretFiles(secrets, reference_prefix), now=now)

    @classmethod
    def create_or_upgrade(
        cls, url: str, secrets: Path, *, now: Callable[[], datetime], reference_prefix: str = REFERENCE_PREFIX
    ) -> Self:
        """`open`, after making or upgrading the tables. Harmless when several processes do it at once."""
        engine = engine_of(url)
        with _disposed_on_error(engine):
            migrate.upgrade(engine, now=now)
        return cls(engine, SecretFiles(secrets, reference_prefix), now=now)

    def snapshot(self) -> Snapshot:
        """Everything the proxy reads.

        A credential whose secret cannot be read is left out and named in `unreadable`; what a wrong row stops is
        named in `bad_rows`.
        """
        view = View()
        self.refresh(view)
        keystores = {keystore.prefix.value: keystore for keystore in view.keystores.values()}
        return Snapshot(view.version, keystores, self.fleet_size(), view.unreadable, view.bad_rows, view.unexplained)

    def states(self) -> States:
        """The version, and which keystores are blocked. Raises Unavailable."""
        with self._reading() as connection:
            return read_states(connection)

    def refresh(self, view: View, pulse: Callable[[], None] = lambda: None) -> list[Difference]:
        """Bring a view up to date, as of one moment; the keys that differ. Raises Unavailable.

        `pulse` is called now and then while much is read.
        """
        with self._reading() as connection:
            return view.refresh(connection, self._secrets.read, pulse)


@contextmanager
def _disposed_on_error(engine: Engine) -> Iterator[None]:
    try:
        yield
    except BaseException:
        engine.dispose()
        raise
