"""The catalog's engine and its transactions, with the driver's errors turned into ours."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import unquote

from sqlalchemy import URL, BigInteger, Connection, Engine, cast, create_engine, event, make_url, select, text, update
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from holdfast.durable import give_to_owner_of, make_directory
from holdfast.store import schema
from holdfast.store.errors import AlreadyExists, CatalogError, NoVersion, Refused, SchemaMismatch, Unavailable

_SQLITE_BUSY = 5.0
"""Seconds that SQLite waits for another process's write to end."""
_POSTGRESQL_SESSION = (
    "SET statement_timeout = 10000",
    "SET lock_timeout = 5000",
    "SET idle_in_transaction_session_timeout = 30000",
    "SET synchronous_commit = on",
    "SET timezone = 'UTC'",
)
"""Milliseconds. A database that hangs must not hang the thread that finds out whether a key is blocked.

A count that was reserved is on disk, whatever the server's default. Rows that hold times have one digest.
"""
_POSTGRESQL_CONNECT = {
    "connect_timeout": 5,
    "application_name": "holdfast",
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}

THIS_VERSION = select(schema.catalog.c.version).scalar_subquery()
"""For the column `changed` of each row that a change touches: the version that the change makes."""


MAX_VERSION = 2**62
"""A version above it was not counted up to. The column ends at 2^63, where no further change would be possible."""
_VERSION = schema.catalog.c.version
_NEXT_VERSION = (
    update(schema.catalog)
    .where(_VERSION.between(1, MAX_VERSION), cast(_VERSION, BigInteger) == _VERSION)
    .values(version=_VERSION + 1)
)


class Database:
    """A catalog's database. Every public method of the classes built on it raises CatalogError."""

    def __init__(self, engine: Engine, *, now: Callable[[], datetime]) -> None:
        self._engine = engine
        self._now = now

    def close(self) -> None:
        """Close the idle connections."""
        self._engine.dispose()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """A transaction that sees one moment of the catalog."""
        isolation = {"isolation_level": "REPEATABLE READ"} if self._engine.dialect.name == "postgresql" else {}
        with errors_in_words(self._engine.url), self._engine.connect().execution_options(**isolation) as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction that leaves the version alone: counts, last use, heartbeats."""
        with (
            errors_in_words(self._engine.url),
            self._engine.execution_options(holdfast_begin="IMMEDIATE").begin() as connection,
        ):
            yield connection

    @contextmanager
    def _changing(self, *, in_snapshot: bool = True, needs_version: bool = True) -> Iterator[Connection]:
        """A transaction that changes what a Snapshot holds, or with `in_snapshot` False what only control reads.

        It takes the version's row first: so changes happen one after the other on every database, and what a
        change has checked still holds when it commits. Raises NoVersion where that row is missing or wrong, unless
        the change can do without (`needs_version` False).
        """
        with self._writing() as connection:
            if connection.dialect.name == "postgresql":
                # A failover must not undo a block: where there is a synchronous standby, it has applied the change.
                connection.execute(text("SET LOCAL synchronous_commit = remote_apply"))
            if not in_snapshot:
                connection.execute(select(_VERSION).with_for_update())
            elif not connection.execute(_NEXT_VERSION).rowcount and needs_version:
                raise NoVersion
            yield connection

    def version(self) -> int:
        """The catalog's version. Raises NoVersion, Unavailable."""
        with errors_in_words(self._engine.url), self._engine.connect() as connection:
            version = connection.execute(select(_VERSION)).scalar()
        if type(version) is not int:
            raise NoVersion
        return version


def engine_of(url: str) -> Engine:
    """An engine for `sqlite:///PATH` or `postgresql://...`. Raises CatalogError; never connects."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise Refused(
            "the catalog URL is not a URL: write sqlite:////var/lib/holdfast/catalog.db"
            " or postgresql://USER@HOST/DATABASE"
        ) from None
    match parsed.get_backend_name():
        case "sqlite":
            return _sqlite(parsed)
        case "postgresql":
            return _postgresql(parsed)
        case other:
            raise Refused(f"the catalog is kept in sqlite or postgresql, not in {other}")


def sqlite_file(engine: Engine) -> Path | None:
    """The file of an SQLite catalog, None for PostgreSQL."""
    if engine.dialect.name != "sqlite":
        return None
    return Path(engine.url.database or "")


def _sqlite(url: URL) -> Engine:
    if not url.database or url.database == ":memory:" or url.query:
        raise Refused(
            "an SQLite catalog is a file, shared by several processes: write sqlite:///PATH, without a question mark"
        )
    path = Path(url.database).absolute()
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        hide_parameters=True,
        pool_size=2,
        creator=lambda: _open_sqlite(path),
    )

    file: list[tuple[int, int]] = []

    @event.listens_for(engine, "checkout")
    def checkout(_connection: DBAPIConnection, _record: ConnectionPoolEntry, _proxy: PoolProxiedConnection) -> None:
        # An open connection would continue with a file that is no longer there, and never see a change again.
        found = _check_file(path)
        if file and file[0] != found:
            raise Unavailable(
                f"the catalog {path} was replaced while it was in use, and SQLite cannot tell what its -wal file then"
                " means: stop the proxies, restore the catalog without -wal and -shm files, and start them"
            )
        file[:] = [found]

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A deferred transaction that turns into a write can fail half-way with SQLITE_BUSY, whatever the timeout.
        mode = connection.get_execution_options().get("holdfast_begin", "DEFERRED")
        connection.exec_driver_sql(f"BEGIN {mode}")

    return engine


def _open_sqlite(path: Path) -> sqlite3.Connection:
    # mode=rw: a missing file is an error here and never made; `create_sqlite_file` makes it, with mode 0600.
    _check_file(path)
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode=rw", uri=True, timeout=_SQLITE_BUSY, isolation_level=None, check_same_thread=False
    )
    try:
        # A text that is not UTF-8 is one bad value, and by default an error for the whole query.
        connection.text_factory = lambda octets: octets.decode("utf-8", "surrogateescape")
        connection.execute("PRAGMA foreign_keys = ON")
        # FULL: after a power loss every reserved encryption is still reserved. NORMAL may lose the latest commits.
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def _check_file(path: Path) -> tuple[int, int]:
    """Which file this is: device and inode.

    Raises Unavailable with the reason, where SQLite would say "unable to open database file" for each.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise Unavailable(
            f"there is no catalog at {path}: run `holdfast init`, or restore the file from its backup"
        ) from None
    except OSError as error:
        raise Unavailable(f"the catalog {path} cannot be reached: {error.strerror}") from None
    if not os.access(path, os.R_OK | os.W_OK):
        raise Unavailable(
            f"the catalog {path} cannot be read and written by this user (uid {os.geteuid()}):"
            " run as the user that owns it, as in `sudo -u holdfast holdfast ...`"
        )
    return found.st_dev, found.st_ino


def create_sqlite_file(path: Path) -> None:
    """An empty database in WAL mode that only its owner can read; one that exists is left as it is.

    Raises Unavailable.
    """
    try:
        make_directory(path.parent)
        with suppress(FileExistsError):
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                give_to_owner_of(path.parent, descriptor)
            finally:
                os.close(descriptor)
        with closing(_open_sqlite(path)) as connection:
            # SQLite gives the -wal and -shm files the mode of the database itself.
            connection.execute("PRAGMA journal_mode = WAL")
    except OSError as error:
        raise Unavailable(f"the catalog {path} cannot be made: {error.filename}: {error.strerror}") from None
    except sqlite3.Error as error:
        raise Unavailable(f"the catalog {path} cannot be made: {error}{_remedy(error)}") from None


def _postgresql(url: URL) -> Engine:
    _require_verified(url)
    try:
        engine = _postgresql_engine(url)
    except ImportError:
        raise CatalogError("PostgreSQL needs its driver: pip install 'holdfast[postgresql]'") from None

    @event.listens_for(engine, "connect")
    def connect(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        for statement in _POSTGRESQL_SESSION:
            cursor.execute(statement)
        cursor.close()
        connection.commit()

    return engine


def _require_verified(url: URL) -> None:
    """Raises Refused for a server on another machine whose certificate is not verified.

    Another server in its place would give another catalog: other keys enabled, other credentials.
    """
    modes = _parameter(url, "sslmode") or [os.environ.get("PGSSLMODE", "")]
    hosts = [url.host] if url.host else _parameter(url, "host") or [os.environ.get("PGHOST", "")]
    places = [*_parameter(url, "hostaddr"), *(part for host in hosts for part in (host or "").split(","))]
    remote = [place for place in places if not _is_here(place)] or _parameter(url, "service")
    if remote and modes != ["verify-full"]:
        raise Refused(
            f"the PostgreSQL server {remote[0]} is on another machine, and its certificate would not be verified: end"
            " the URL with ?sslmode=verify-full&sslrootcert=/PATH/OF/THE/AUTHORITY.pem"
        )


def _parameter(url: URL, name: str) -> list[str]:
    value = url.query.get(name, ())
    return [value] if isinstance(value, str) else list(value)


def _is_here(place: str) -> bool:
    """Whether a host of a URL is a directory of Unix sockets, or this machine. Empty: the default socket."""
    if not place or place[0] in "/@" or place == "localhost":
        return True
    host = place if place.count(":") > 1 else place.partition(":")[0]
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _postgresql_engine(url: URL) -> Engine:
    return create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args={name: value for name, value in _POSTGRESQL_CONNECT.items() if name not in url.query},
        hide_parameters=True,
        pool_size=2,
        pool_pre_ping=True,  # a connection that a restarted server has dropped is replaced, not reported
    )


@contextmanager
def errors_in_words(url: URL) -> Iterator[None]:
    """The block's database errors as CatalogError. The URL is shown without its password."""
    # As it was written: without the driver's name, paths readable.
    where = unquote(url.set(drivername=url.get_backend_name()).render_as_string(hide_password=True))
    try:
        yield
    except IntegrityError as error:
        raise AlreadyExists(f"the catalog refuses the change: {_first_line(error)}") from None
    except DBAPIError as error:
        if _lacks_tables(error):
            raise SchemaMismatch(f"{where} is not a Holdfast catalog: it lacks tables. Run `holdfast init`") from None
        # PostgreSQL's FATAL is an answer: it lets this user, password or address not in, or is not ready.
        said = "does not answer" if url.get_backend_name() == "postgresql" else "cannot be used"
        if "FATAL:" in str(error.orig):
            said = "refuses the connection"
        raise Unavailable(f"the catalog {where} {said}: {_first_line(error)}{_remedy(error.orig)}") from None
    except PoolTimeout as error:
        raise Unavailable(f"the catalog {where} does not answer: {error}") from None


def _lacks_tables(error: DBAPIError) -> bool:
    # SQLite has one code for every error in a statement; PostgreSQL says undefined_table, undefined_column.
    if getattr(error.orig, "sqlstate", None) in {"42P01", "42703"}:
        return True
    return isinstance(error.orig, sqlite3.OperationalError) and str(error.orig).startswith("no such ")


def _remedy(error: BaseException | None) -> str:
    # SQLite's word for a file that is damaged, or is something else; what passes by itself is an OperationalError.
    if type(error) is sqlite3.DatabaseError:
        return "; restore it from its backup, or move it away and run `holdfast init`"
    words = str(error)
    if "database is locked" in words:
        return ": another process is writing to it and does not end; `fuser -v` with the file's name shows which"
    if "disk is full" in words:
        return ": free some space on its file system"
    return ""


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().partition("\n")[0]
