"""Somebody writes to the database by hand: whatever stands in a row, the other keystores serve.

SQLite takes any type in any column; the constraints that the tables have are switched off here.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.administered import Catalog
from tests.store.conftest import now
from tests.store.samples import ID, KEY, OTHER_ID, OTHER_SECRET, PREFIX, SECRET

from holdfast.keys.model import Keystore, Snapshot
from holdfast.store import schema
from holdfast.store.errors import CatalogError, NoVersion
from holdfast.store.view import States, View
from holdfast.xks.types import UriPathPrefix

COLUMNS = [
    (table.name, column.name)
    for table in schema.METADATA.sorted_tables
    if table.name != "catalog"
    for column in table.columns
]
VALUES: list[Any] = [None, "", "x", "a'b\x00\n", -1, 2**63 - 1, 2.5, b"", b"\xff" * 300, "é" * 5000]


@dataclass(frozen=True)
class Two:
    """A catalog of two keystores, `main` (the rows with the id 1) and `other`, and a copy of it.

    The copy is opened once: a new engine would compile every statement anew, which takes longer than they do.
    """

    original: Path
    copy: Path
    secrets: Path
    catalog: Catalog


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    directory = tmp_path_factory.mktemp("two")
    original, copy, secrets = directory / "catalog.db", directory / "changed.db", directory / "secrets"
    with closing(Catalog.create_or_upgrade(f"sqlite:///{original}", secrets, now=now)) as made:
        for name, prefix, credential in (
            ("main", PREFIX, (ID, SECRET)),
            ("other", UriPathPrefix("/other"), (OTHER_ID, OTHER_SECRET)),
        ):
            made.create_keystore(name, prefix)
            made.issue_credential(name, credential)
            made.register_key(name, KEY, hsm="hsm", label=f"label-{name}")
        made.heartbeat("proxy")
    restore(original, copy)
    with closing(Catalog.open(f"sqlite:///{copy}", secrets, now=now)) as catalog:
        yield Two(original, copy, secrets, catalog)


def restore(original: Path, copy: Path) -> None:
    """Put the copy back."""
    with closing(sqlite3.connect(original)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)


@contextmanager
def changed(two: Two, *statements: tuple[str, tuple[Any, ...]]) -> Iterator[Catalog]:
    """The catalog after somebody ran these statements; it can be opened."""
    restore(two.original, two.copy)
    with closing(sqlite3.connect(two.copy)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for statement, values in statements:
            with suppress(sqlite3.IntegrityError):  # NOT NULL and UNIQUE hold even here
                connection.execute(statement, values)
        connection.execute("UPDATE catalog SET version = version + 1")
        connection.commit()
    Catalog.open(f"sqlite:///{two.copy}", two.secrets, now=now).close()
    yield two.catalog


def serves_the_other(catalog: Catalog) -> Snapshot:
    """Checks that everything about the keystore `other` goes on, and gives the snapshot."""
    snapshot = catalog.snapshot()
    other = snapshot.keystores["/other"]
    assert (other.name, other.blocked, dict(other.credentials)) == ("other", False, {OTHER_ID.value: OTHER_SECRET})
    generation = other.keys[KEY.value].active
    assert generation.label == "label-other"
    assert catalog.reserve_encryptions(generation.id, 5) >= 5
    # What an administrator needs to stop it: the command reads all rows to say what a block reaches.
    assert "other" in [row.name for row in catalog.keystores()]
    assert OTHER_ID.value in [row.access_key_id for row in catalog.credentials(None)]
    assert "other" in [row.keystore for row in catalog.keys(None)]
    catalog.set_blocked("other", blocked=True)
    assert catalog.states().blocked[2]
    return snapshot


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_a_wrong_value_stops_at_most_its_own_keystore(two: Two, table: str, column: str) -> None:
    for value in VALUES:
        with changed(two, (update(table, column), (value,))) as catalog:
            serves_the_other(catalog)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(
        st.tuples(
            st.sampled_from(COLUMNS),
            st.one_of(
                st.none(), st.integers(-(2**63), 2**63 - 1), st.text(), st.binary(), st.floats(), st.booleans()
            ),
        ),
        min_size=2,
        max_size=8,
    )
)
def test_whatever_stands_in_the_rows_of_one_keystore_another_serves(
    two: Two, changes: list[tuple[tuple[str, str], Any]]
) -> None:
    statements = [(update(table, column), (storable(value),)) for (table, column), value in changes]
    with changed(two, *statements) as catalog:
        serves_the_other(catalog)


def update(table: str, column: str, value: str = "?") -> str:
    """The statement that sets a column of the first row of a table."""
    return f"UPDATE {table} SET {column} = {value} WHERE rowid = 1"  # noqa: S608 (names of the schema)


def storable(value: Any) -> Any:
    """Python's driver takes no lone surrogates; octets that are not UTF-8 get in as a cast."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_a_text_that_is_not_utf_8_stops_at_most_its_own_keystore(two: Two, table: str, column: str) -> None:
    with changed(two, (update(table, column, "CAST(x'ff00fe' AS TEXT)"), ())) as catalog:
        serves_the_other(catalog)


def refused(keystore: Keystore) -> bool:
    return KEY.value in keystore.faulty and KEY.value not in keystore.keys


STOPS: list[tuple[str, str, Callable[[Snapshot], bool]]] = [
    ("DELETE FROM key_generations WHERE id = 1", "it has no generation", lambda s: refused(s.keystores["/main"])),
    (
        "UPDATE external_keys SET status = 'PENDING' WHERE id = 1",
        "status is 'PENDING', neither ENABLED nor DISABLED",
        lambda s: refused(s.keystores["/main"]),
    ),
    (
        "UPDATE key_generations SET encryptions_reserved = -4000000000 WHERE id = 1",
        "encryptions_reserved is -4000000000, below zero",
        lambda s: refused(s.keystores["/main"]),
    ),
    (
        "UPDATE key_generations SET state = 'newest' WHERE id = 1",
        "state is 'newest': there are planned, ready, active, retired",
        lambda s: refused(s.keystores["/main"]),
    ),
    (
        "UPDATE key_generations SET state = 'retired' WHERE id = 1",
        "0 of its generations are active, and exactly one encrypts",
        lambda s: refused(s.keystores["/main"]),
    ),
    (
        "UPDATE external_keys SET tag = NULL WHERE id = 1",
        "tag is None, not 12 bytes of 0x80 and more",
        lambda s: refused(s.keystores["/main"]),
    ),
    (
        "UPDATE external_keys SET purpose = 'azure-kw' WHERE id = 1",
        "purpose is 'azure-kw': keys of another purpose are not for AWS KMS",
        lambda s: refused(s.keystores["/main"]),
    ),
    (
        "UPDATE external_keys SET metadata_format = 3 WHERE id = 1",
        "metadata_format is 3: this Holdfast makes 1 to 2",
        lambda s: refused(s.keystores["/main"]),
    ),
    (
        "UPDATE key_generations SET number = 0 WHERE id = 1",
        "number is 0, not 1 to 4294967295",
        lambda s: refused(s.keystores["/main"]),
    ),
    (
        "UPDATE keystores SET prefix = 'main' WHERE id = 1",
        "the keystore main (keystores row 1) is not served: prefix 'main'",
        lambda s: list(s.keystores) == ["/other"],
    ),
    (
        "UPDATE keystores SET region = 'Frankfurt!' WHERE id = 1",
        "the keystore main (keystores row 1) is blocked: region is 'Frankfurt!'",
        lambda s: s.keystores["/main"].blocked,
    ),
    (
        "UPDATE keystores SET blocked = 'no' WHERE id = 1",
        "is blocked: blocked is 'no', neither true nor false",
        lambda s: s.keystores["/main"].blocked,
    ),
    (
        "UPDATE credentials SET access_key_id = 'short' WHERE rowid = 1",
        "the credential short is refused: access_key_id 'short'",
        lambda s: not s.keystores["/main"].credentials,
    ),
    (
        """INSERT INTO key_generations (id, key_id, number, hsm, label, encryptions_reserved, created_at)
           VALUES (9, 99, 1, 'hsm', 'x', 0, '2026-01-01')""",
        "the generation in row 9 is not used: there is no key 99",
        lambda s: KEY.value in s.keystores["/main"].keys,
    ),
]


@pytest.mark.parametrize(("statement", "words", "holds"), STOPS, ids=[words[:40] for _, words, _ in STOPS])
def test_a_bad_row_is_named_and_stops_what_it_must(
    two: Two, statement: str, words: str, holds: Callable[[Snapshot], bool]
) -> None:
    with changed(two, (statement, ())) as catalog:
        snapshot = serves_the_other(catalog)
    (said,) = snapshot.bad_rows
    assert words in said
    assert holds(snapshot)


def test_a_row_that_is_corrected_serves_again(two: Two) -> None:
    view = View()
    with changed(two, ("UPDATE external_keys SET status = 'PENDING' WHERE id = 1", ())) as catalog:
        catalog.refresh(view)
        assert refused(view.keystores[1])
        with catalog._writing() as connection:
            connection.exec_driver_sql("UPDATE external_keys SET status = 'ENABLED' WHERE id = 1")
            connection.exec_driver_sql("UPDATE catalog SET version = version + 1")
        catalog.refresh(view)
    assert (list(view.keystores[1].keys), view.bad_rows) == ([KEY.value], ())


NO_VERSION = (
    "DELETE FROM catalog",
    "UPDATE catalog SET version = 'x'",
    "UPDATE catalog SET version = 2.5",
    "UPDATE catalog SET version = 0",
    "UPDATE catalog SET version = -5",
    "UPDATE catalog SET version = 9223372036854775807",
    "UPDATE catalog SET removed = 'x'",
)


@contextmanager
def without_version(two: Two, statement: str) -> Iterator[Catalog]:
    """The catalog with its own row changed, after the version of all other changes was counted."""
    with changed(two) as catalog:
        with closing(sqlite3.connect(two.copy)) as connection:
            connection.execute(statement)
            connection.commit()
        yield catalog


@pytest.mark.parametrize("statement", NO_VERSION)
def test_without_its_own_row_the_catalog_is_as_one_that_is_down_and_shows_its_blocks(
    two: Two, statement: str
) -> None:
    """The proxy goes on with what it last read, and blocks everything after `stale_limit_s`."""
    with without_version(two, statement) as catalog:
        assert catalog.states() == States(0, 0, {1: False, 2: False}, {})
        with pytest.raises(NoVersion, match="the catalog's own row is missing or wrong"):
            catalog.snapshot()


@pytest.mark.parametrize("statement", NO_VERSION)
def test_a_block_needs_no_version_and_an_unblock_does(two: Two, statement: str) -> None:
    with without_version(two, statement) as catalog:
        catalog.set_blocked("main", blocked=True)
        assert catalog.states().blocked == {1: True, 2: False}
        if "removed" not in statement:
            with pytest.raises(NoVersion):
                catalog.set_blocked("main", blocked=False)


def test_a_keystore_with_a_bad_row_can_be_blocked(two: Two) -> None:
    with changed(two, ("UPDATE keystores SET region = 5, created_at = 'x' WHERE id = 1", ())) as catalog:
        catalog.set_blocked("main", blocked=True)
        assert [row.blocked for row in catalog.keystores()] == [True, False]


def test_every_list_raises_nothing_but_catalog_errors(two: Two) -> None:
    with changed(two, ("DROP TABLE proxies", ())) as catalog, pytest.raises(CatalogError):
        catalog.snapshot()
