"""Makes and upgrades the catalog's tables with Alembic, from inside the package."""

from collections.abc import Callable
from datetime import datetime
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from holdfast.store.database import create_sqlite_file, errors_in_words, sqlite_file
from holdfast.store.errors import SchemaMismatch
from holdfast.store.records import begin_records

_ADVISORY_LOCK = 0x484F4C4446415354
"""PostgreSQL's advisory lock for upgrading the catalog: the letters HOLDFAST."""


def upgrade(engine: Engine, *, now: Callable[[], datetime]) -> None:
    """Bring the tables to this version's, creating them where there are none. All or nothing; twice is harmless.

    Of several processes that call it at once one works and the others wait. Raises CatalogError.
    """
    file = sqlite_file(engine)
    if file is not None:
        create_sqlite_file(file)
    with (
        errors_in_words(engine.url),
        engine.execution_options(holdfast_begin="IMMEDIATE").begin() as connection,  # SQLite's lock
    ):
        if file is None:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ADVISORY_LOCK})
        if _revision(connection) == head():
            return
        _refuse_newer(connection)
        scripts = _config()
        scripts.attributes["connection"] = connection
        command.upgrade(scripts, "head")
        begin_records(connection, now())


def check(connection: Connection) -> None:
    """Raises SchemaMismatch unless the tables are exactly this version's."""
    found = _revision(connection)
    if found == head():
        return
    if found is None:
        raise SchemaMismatch("the catalog has no tables yet: run `holdfast init`")
    _refuse_newer(connection)
    raise SchemaMismatch(
        f"the catalog's tables are of version {found}, and this Holdfast needs {head()}:"
        " stop the older proxies, then run `holdfast init`"
    )


@cache
def head() -> str:
    """The newest version of the tables that this Holdfast knows."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None  # noqa: S101 (a package without its own migrations is broken)
    return revision


def _refuse_newer(connection: Connection) -> None:
    found = _revision(connection)
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if found is not None and found not in known:
        raise SchemaMismatch(
            f"the catalog's tables are of version {found}, made by a newer Holdfast: upgrade this one"
            f" (it knows {head()})"
        )


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    return config
