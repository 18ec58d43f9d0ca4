import os
import shutil
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from tests.administered import Catalog
from tests.store import children
from tests.store.conftest import now
from tests.store.samples import PREFIX

from holdfast.store import database, migrate, schema
from holdfast.store.errors import CatalogError, SchemaMismatch, Unavailable


def test_a_new_catalog_is_empty_and_of_version_1(catalog: Catalog) -> None:
    assert (catalog.version(), catalog.keystores(), catalog.snapshot().keystores) == (1, [], {})


def test_the_migrations_make_the_tables_of_the_schema(catalog: Catalog) -> None:
    """Nothing that `schema.py` declares is missing or different in the database."""
    with catalog._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, schema.METADATA) == []


def test_upgrading_twice_changes_nothing(catalog: Catalog, url: str, tmp_path: Path) -> None:
    catalog.create_keystore("main", PREFIX)
    Catalog.create_or_upgrade(url, tmp_path / "secrets", now=now).close()
    assert [row.name for row in catalog.keystores()] == ["main"]


@pytest.mark.programs
def test_processes_that_start_at_once_make_one_catalog(
    url: str, open_catalog: Callable[[], Catalog], tmp_path: Path
) -> None:
    assert children.run(children.create, url, tmp_path / "secrets", times=3) == [0, 0, 0]
    assert open_catalog().version() == 1


def test_opening_never_makes_a_catalog(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="run `holdfast init`"):
        Catalog.open(f"sqlite:///{tmp_path}/none.db", tmp_path, now=now)
    assert list(tmp_path.iterdir()) == []


def test_opening_an_empty_database_asks_for_init(postgresql: object, url: str, tmp_path: Path) -> None:
    del postgresql
    if url.startswith("sqlite"):
        sqlite3.connect(tmp_path / "catalog.db").close()
    with pytest.raises(SchemaMismatch, match="no tables yet: run `holdfast init`"):
        Catalog.open(url, tmp_path, now=now)


def test_tables_of_a_newer_holdfast_are_refused(catalog: Catalog, url: str, tmp_path: Path) -> None:
    with catalog._engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for opening in (Catalog.open, Catalog.create_or_upgrade):
        with pytest.raises(SchemaMismatch, match="made by a newer Holdfast"):
            opening(url, tmp_path, now=now)


def test_a_migration_that_fails_leaves_nothing(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All tables or none, also on SQLite: the next start can try again."""
    script = Path(migrate.__file__).with_name("migrations") / "versions" / "v0001_initial.py"
    broken = tmp_path / "migrations"
    (broken / "versions").mkdir(parents=True)
    (broken / "env.py").write_text((script.parents[1] / "env.py").read_text())
    (broken / "versions" / "v0001.py").write_text(script.read_text() + "    raise RuntimeError('disk full')\n")
    with monkeypatch.context() as patched:
        patched.setattr(migrate, "__file__", str(tmp_path / "migrate.py"))
        migrate.head.cache_clear()
        try:
            with pytest.raises(RuntimeError, match="disk full"):
                Catalog.create_or_upgrade(url, tmp_path, now=now)
        finally:
            migrate.head.cache_clear()
    with pytest.raises(SchemaMismatch, match="no tables yet"):
        Catalog.open(url, tmp_path, now=now)
    Catalog.create_or_upgrade(url, tmp_path, now=now).close()


def test_an_sqlite_catalog_is_its_owners_alone_and_in_wal_mode(tmp_path: Path) -> None:
    file = tmp_path / "new folder %" / "catalog.db"
    with (
        closing(Catalog.create_or_upgrade(f"sqlite:///{file}", tmp_path / "secrets", now=now)) as catalog,
        catalog._reading() as connection,
    ):
        assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()} == {
            "catalog.db": 0o600,
            "catalog.db-wal": 0o600,
            "catalog.db-shm": 0o600,
        }
        pragmas = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar() for name in ("foreign_keys", "synchronous")
        }
    assert pragmas == {"foreign_keys": 1, "synchronous": 2}


@pytest.mark.parametrize(
    "url", ["", "catalog.db", "mysql://root@localhost/x", "sqlite://", "sqlite:///:memory:", "nonsense://x"]
)
def test_a_url_that_cannot_be_a_catalog_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(CatalogError):
        Catalog.open(url, tmp_path, now=now)


def test_a_password_in_the_url_is_never_shown(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        Catalog.open("postgresql://u:hunter2@/x?host=/nowhere", tmp_path, now=now)
    assert "hunter2" not in str(caught.value)


def test_a_catalog_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("this is no database, but it is as long as one must be to tell" * 10)
    for path, words in (
        ("file/catalog.db", f"{tmp_path}/file: Not a directory"),
        ("file", "file is not a database; restore it"),
    ):
        with pytest.raises(Unavailable, match=f"cannot be made: {words}"):
            Catalog.create_or_upgrade(f"sqlite:///{tmp_path}/{path}", tmp_path, now=now)


def test_a_damaged_catalog_says_what_to_do(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/catalog.db"
    Catalog.create_or_upgrade(url, tmp_path, now=now).close()
    (tmp_path / "catalog.db").write_bytes(b"no database" * 500)
    with pytest.raises(Unavailable, match="restore it from its backup"):
        Catalog.open(url, tmp_path, now=now)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_catalog_of_another_user_says_so(tmp_path: Path) -> None:
    Catalog.create_or_upgrade(f"sqlite:///{tmp_path}/catalog.db", tmp_path, now=now).close()
    (tmp_path / "catalog.db").chmod(0)
    with pytest.raises(Unavailable, match="run as the user that owns it"):
        Catalog.open(f"sqlite:///{tmp_path}/catalog.db", tmp_path, now=now)


def test_a_catalog_that_another_process_keeps_locked_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_SQLITE_BUSY", 0.1)
    with (
        closing(Catalog.create_or_upgrade(f"sqlite:///{tmp_path}/catalog.db", tmp_path, now=now)) as catalog,
        closing(sqlite3.connect(tmp_path / "catalog.db", isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="another process is writing to it"):
            catalog.create_keystore("main", PREFIX)


def test_a_catalog_of_the_first_version_is_upgraded_with_its_rows(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A count below zero, which nobody but an intruder writes, becomes a stopped key."""
    first_version(url, tmp_path, monkeypatch)
    with closing(Catalog.create_or_upgrade(url, tmp_path, now=now)) as catalog:
        rows = catalog.keys(None)
        found = [(row.external_key_id, row.encryptions_reserved, row.stopped is None) for row in rows]
        assert found == [("good", 5, True), ("good", 0, True), ("negative", 0, False)]
        # Before there were states the generation with the highest number encrypted. Each key gets a tag of its own,
        # and makes no ciphertexts with it before a person says so.
        assert [row.state for row in rows] == ["retired", "active", "active"]
        assert [row.metadata_format for row in rows] == [1, 1, 1]
        assert len({row.tag for row in rows}) == 2
        assert catalog.snapshot().keystores["/main"].keys["good"].active.number == 2
        with pytest.raises(CatalogError), catalog._writing() as connection:
            connection.execute(text("UPDATE key_generations SET encryptions_reserved = -1"))


_KEYS = """
    INSERT INTO external_keys (id, keystore_id, external_key_id, status, takeover, created_at)
      VALUES (1, 1, 'good', 'ENABLED', {no}, {now}), (2, 1, 'negative', 'ENABLED', {no}, {now})
"""
_GENERATIONS = """
    INSERT INTO key_generations (id, key_id, number, hsm, label, encryptions_reserved, created_at)
      VALUES (1, 1, 1, 'hsm', 'a', 5, {now}), (2, 1, 2, 'hsm', 'c', 0, {now}),
        (3, 2, 1, 'hsm', 'b', -4000000000, {now})
"""
_KEYSTORE = "INSERT INTO keystores (id, name, prefix, blocked, created_at) VALUES (1, 'main', '/main', {no}, {now})"


def first_version(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalog as Holdfast 0.1.0 made it, with two keys."""
    script = Path(migrate.__file__).with_name("migrations")
    old = tmp_path / "old" / "migrations"
    (old / "versions").mkdir(parents=True)
    for file in ("env.py", "versions/v0001_initial.py"):
        shutil.copy(script / file, old / file)
    with monkeypatch.context() as patched:
        patched.setattr(migrate, "__file__", str(old.parent / "migrate.py"))
        patched.setattr(migrate, "begin_records", lambda *_: None)  # Holdfast 0.1.0 had none
        migrate.head.cache_clear()
        catalog = Catalog.create_or_upgrade(url, tmp_path, now=now)
    migrate.head.cache_clear()
    with catalog._writing() as connection:
        for statement in (_KEYSTORE, _KEYS, _GENERATIONS):
            no = "FALSE" if connection.dialect.name == "postgresql" else "0"
            connection.execute(text(statement.format(no=no, now="CURRENT_TIMESTAMP")))
    catalog.close()
