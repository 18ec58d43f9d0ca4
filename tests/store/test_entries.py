"""What a record says of the catalog's rows: all that a recorded change has set, and nothing else."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text, update
from tests.administered import Catalog
from tests.store.conftest import now
from tests.store.samples import ID, KEY, OTHER_ID, OTHER_KEY, OTHER_SECRET, PREFIX, SECRET
from tests.store.test_migrations import first_version

from holdfast.audit.catalog_digest import digest_of, element, encode
from holdfast.keys.proof import Proof
from holdfast.store import rotation, schema
from holdfast.store.entries import KIND_OF, KINDS, NOT_RECORDED, as_recorded, in_catalog, recorded_digest
from holdfast.xks.types import KeyStatus, UriPathPrefix


def unexplained(catalog: Catalog) -> set[str]:
    """The entries that are not as recorded; fails if the latest record has not the sum of those that are recorded."""
    found, total = set(), 0
    with catalog._reading() as connection:
        for name, kind in KINDS.items():
            recorded = as_recorded(connection, kind, None)
            entries = {
                identity: encode(entry).decode() for identity, entry in in_catalog(connection, kind, None).items()
            }
            found |= {
                f"{name} {one}" for one in entries.keys() | recorded.keys() if entries.get(one) != recorded.get(one)
            }
            total += sum(element(name, content.encode()) for content in recorded.values())
        assert recorded_digest(connection) == digest_of(total)
    return found


@pytest.fixture
def filled(catalog: Catalog) -> Catalog:
    """Two keystores, a key and a credential each."""
    for name, key, credential in (("main", KEY, (ID, SECRET)), ("other", OTHER_KEY, (OTHER_ID, OTHER_SECRET))):
        catalog.create_keystore(name, UriPathPrefix(f"/{name}"))
        catalog.issue_credential(name, credential)
        catalog.register_key(name, key, hsm="hsm", label=f"label-{name}", cka_id=b"\x00\xff", canary=b"canary")
    return catalog


def sql(catalog: Catalog, statement: str) -> None:
    """What somebody with a database client does."""
    with catalog._writing() as connection:
        connection.execute(text(statement))


@pytest.mark.parametrize("table", KIND_OF, ids=lambda table: table.name)
def test_each_column_of_an_entry_is_covered_by_records_or_listed_as_not(table: object) -> None:
    """A new column goes to the end of the recorded ones, and is NULL in old rows; or it is listed with its reason."""
    assert isinstance(table, type(schema.keystores))
    recorded = set(KIND_OF[table].columns_of(table))
    assert recorded.isdisjoint(NOT_RECORDED[table.name])
    assert recorded | set(NOT_RECORDED[table.name]) == set(table.columns.keys())


def test_the_recorded_columns_keep_their_order() -> None:
    """Digests of older records hold only so. Further columns may follow, which are NULL in older rows."""
    assert encode([[1, "main", "/main", None, False, None]]) == b'[[1,"main","/main",null,false]]'
    begin = {
        "keystores": ("id", "name", "prefix", "region", "blocked", "blocked_until"),
        "credentials": ("access_key_id", "keystore_id", "secret_ref"),
        "external_keys": (
            *("id", "keystore_id", "external_key_id", "status", "takeover", "takeover_metadata"),
            *("tag", "metadata_format", "enabled_until", "pinned_to", "purpose"),
        ),
        "key_generations": (
            *("id", "key_id", "number", "hsm", "label", "cka_id", "canary", "stopped_at", "stopped_reason"),
            *("token_serial", "state", "looks", "compromised_at", "destroy_after"),
        ),
    }
    for table, kind in KIND_OF.items():
        columns = kind.columns_of(table)
        first = begin[table.name]
        assert columns[: len(first)] == first
        assert all(table.c[name].nullable for name in columns[len(first) :])


CHANGES: dict[str, Callable[[Catalog], object]] = {
    "a keystore is made": lambda catalog: catalog.create_keystore("third", UriPathPrefix("/third")),
    "a keystore is changed": lambda catalog: catalog.change_keystore("main", prefix=PREFIX, region="eu-west-1"),
    "a block": lambda catalog: catalog.set_blocked("main", "other", blocked=True),
    "a block with an end": lambda catalog: catalog.set_blocked("main", blocked=True, until=now()),
    "a key is disabled": lambda catalog: catalog.set_key_status("main", KEY, KeyStatus.DISABLED),
    "a key is enabled for a time": lambda catalog: catalog.set_key_status(
        "main", KEY, KeyStatus.ENABLED, until=now()
    ),
    "keys are upgraded": lambda catalog: catalog.upgrade_keys([("main", KEY.value), ("other", OTHER_KEY.value)]),
    "a stop": lambda catalog: catalog.stop_generation(1, "an unsafe IV"),
    "a token": lambda catalog: catalog.record_token_serial(1, "0001"),
    "another canary": lambda catalog: catalog.replace_canary(1, b"\xff"),
    "another label": lambda catalog: catalog.rebind_generation(1, label="moved", cka_id=None),
    "a credential is retired": lambda catalog: catalog.retire_credential(ID),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_recorded_change_leaves_its_entries_as_recorded(
    filled: Catalog, change: Callable[[Catalog], object]
) -> None:
    change(filled)
    assert unexplained(filled) == set()


def test_keys_and_keystores_that_are_removed_are_no_entries_any_more(filled: Catalog) -> None:
    filled.set_key_status("main", KEY, KeyStatus.DISABLED)
    filled.unregister_key("main", KEY)
    filled.retire_credential(ID)
    filled.remove_keystore("main")
    assert unexplained(filled) == set()
    with filled._reading() as connection:
        assert [len(as_recorded(connection, kind, None)) for kind in KINDS.values()] == [1, 1, 1]


def test_the_steps_of_a_rotation_are_recorded(filled: Catalog) -> None:
    filled.heartbeat("node", 1)
    with filled.change() as transaction:
        rotation.plan_generation(transaction, "main", KEY.value, hsm="hsm", label="second")
    with filled.change() as transaction:
        rotation.make_ready(transaction, 3, Proof(cka_id=b"\x01", canary=b"canary", token_serial="0001"))
    filled.report_generation(3, proxy_id="node", worker=0, looks=1, fault=None)
    with filled.change() as transaction:
        rotation.activate(transaction, 3)
    assert unexplained(filled) == set()


def test_counters_and_last_uses_are_not_covered(filled: Catalog) -> None:
    filled.reserve_encryptions(1, 1000)
    filled.record_use({ID.value: now()})
    assert unexplained(filled) == set()


def test_an_imported_catalog_is_recorded(filled: Catalog, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/copy.db"
    copy = Catalog.create_or_upgrade(url, tmp_path / "secrets", now=now)
    copy.import_(filled.export())
    assert unexplained(copy) == set()
    copy.close()


def test_a_change_by_hand_is_not_as_recorded_and_no_later_change_covers_it(filled: Catalog) -> None:
    """Each change takes over what it has set itself, also in the same row."""
    sql(filled, "UPDATE key_generations SET label = 'another' WHERE id = 1")
    sql(filled, "UPDATE keystores SET region = 'us-east-1' WHERE id = 2")
    assert unexplained(filled) == {"key 1", "keystore 2"}
    filled.set_key_status("main", KEY, KeyStatus.DISABLED)
    filled.set_blocked("other", blocked=True)
    filled.record_token_serial(1, "0001")
    assert unexplained(filled) == {"key 1", "keystore 2"}
    sql(filled, "UPDATE key_generations SET label = 'label-main' WHERE id = 1")
    sql(filled, "UPDATE keystores SET region = NULL WHERE id = 2")
    assert unexplained(filled) == set()


def test_a_change_to_a_row_that_nobody_recorded_records_none(filled: Catalog) -> None:
    sql(filled, "DELETE FROM recorded_entries WHERE kind = 'keystore' AND id = '1'")
    filled.set_blocked("main", blocked=True)
    with filled._reading() as connection:
        assert list(as_recorded(connection, KINDS["keystore"], None)) == ["2"]


def test_a_row_cannot_be_changed_past_its_record(filled: Catalog) -> None:
    with (
        pytest.raises(RuntimeError, match="a row of keystores was to be changed without its record"),
        filled.change() as transaction,
    ):
        transaction.connection.execute(update(schema.keystores).values(blocked=False))


def test_an_upgrade_takes_what_it_finds_for_recorded_and_says_so_once(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_version(url, tmp_path, monkeypatch)
    for _ in range(2):
        catalog = Catalog.create_or_upgrade(url, tmp_path, now=now)
        assert unexplained(catalog) == set()
        (row,) = catalog.changes()
        assert row.change is not None
        assert (row.change.action, row.change.subject, row.change.actor.known_by) == (
            "catalog begin",
            "catalog",
            "upgrade",
        )
        assert row.change.effects[0].after == {"keystores": 1, "credentials": 0, "keys": 2}
        catalog.close()
