from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.exc import StatementError
from tests.administered import Catalog
from tests.store import children
from tests.store.postgresql import POSTGRESQL
from tests.store.samples import ID, KEY, OTHER_ID, OTHER_KEY, OTHER_SECRET, PREFIX, SECRET

from holdfast.keys.model import Takeover
from holdfast.secrets.errors import ReferenceRefused
from holdfast.store.errors import AlreadyExists, CatalogError, InUse, NotFound, Refused
from holdfast.store.records import begin_records
from holdfast.xks.types import ExternalKeyId, KeyStatus, UriPathPrefix


@pytest.fixture
def filled(catalog: Catalog) -> Catalog:
    """A keystore with a credential and a key."""
    catalog.create_keystore("main", PREFIX, region="eu-central-1")
    catalog.issue_credential("main", (ID, SECRET))
    catalog.register_key("main", KEY, hsm="hsm", label="label-1", cka_id=b"\x01")
    return catalog


def test_a_snapshot_holds_what_was_made(filled: Catalog) -> None:
    snapshot = filled.snapshot()
    keystore = snapshot.keystores["/main"]
    key = keystore.keys["key-1"]
    assert (keystore.name, keystore.region, keystore.blocked) == ("main", "eu-central-1", False)
    assert keystore.credentials == {ID.value: SECRET}
    assert (key.status, key.takeover, list(key.generations)) == (KeyStatus.ENABLED, None, [1])
    assert (key.active.number, key.active.hsm, key.active.label, key.active.cka_id) == (
        1,
        "hsm",
        "label-1",
        b"\x01",
    )
    assert (snapshot.version, snapshot.fleet_size, snapshot.unreadable) == (filled.version(), 1, ())


CHANGES: list[Callable[[Catalog], object]] = [
    lambda catalog: catalog.create_keystore("other", UriPathPrefix("")),
    lambda catalog: catalog.set_blocked("main", blocked=True),
    lambda catalog: catalog.change_keystore("main", prefix=UriPathPrefix("/moved")),
    lambda catalog: catalog.change_keystore("main", region=""),
    lambda catalog: catalog.issue_credential("main", (OTHER_ID, OTHER_SECRET)),
    lambda catalog: catalog.reference_credential("main", OTHER_ID, "env:HOLDFAST_SECRET_TEST"),
    lambda catalog: catalog.retire_credential(ID),
    lambda catalog: catalog.register_key("main", OTHER_KEY, hsm="hsm", label="label-2"),
    lambda catalog: catalog.set_key_status("main", KEY, KeyStatus.DISABLED),
    lambda catalog: catalog.record_canary(1, b"canary"),
    lambda catalog: catalog.replace_canary(1, b"canary"),
    lambda catalog: catalog.record_token_serial(1, "0123456789"),
    lambda catalog: catalog.stop_generation(1, "an unsafe IV"),
    lambda catalog: catalog.rebind_generation(1, label="other", cka_id=None),
]


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_changes_snapshot_and_version(
    filled: Catalog, change: Callable[[Catalog], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_SECRET_TEST", "u" * 43)
    before = filled.snapshot()
    change(filled)
    after = filled.snapshot()
    assert after.version == before.version + 1
    assert after.keystores != before.keystores


def test_use_leaves_the_version_alone(filled: Catalog) -> None:
    before = filled.version()
    filled.record_use({ID.value: datetime.now(UTC)})
    filled.heartbeat("proxy")
    filled.reserve_encryptions(filled.keys(None)[0].generation_id, 1)
    assert filled.version() == before


REFUSED: list[tuple[type[Exception], Callable[[Catalog], object]]] = [
    (AlreadyExists, lambda catalog: catalog.create_keystore("main", UriPathPrefix("/new"))),
    (AlreadyExists, lambda catalog: catalog.create_keystore("new", PREFIX)),
    (AlreadyExists, lambda catalog: catalog.change_keystore("spare", prefix=PREFIX)),
    (AlreadyExists, lambda catalog: catalog.issue_credential("spare", (ID, OTHER_SECRET))),
    (AlreadyExists, lambda catalog: catalog.reference_credential("spare", ID, "env:HOLDFAST_SECRET_TEST")),
    (AlreadyExists, lambda catalog: catalog.register_key("main", KEY, hsm="hsm", label="label-2")),
    (AlreadyExists, lambda catalog: catalog.register_key("main", OTHER_KEY, hsm="hsm", label="label-1")),
    (
        AlreadyExists,
        lambda catalog: catalog.register_key("main", OTHER_KEY, hsm="hsm", label="label-1", cka_id=b"\x01"),
    ),
    (InUse, lambda catalog: catalog.remove_keystore("main")),
    (NotFound, lambda catalog: catalog.remove_keystore("none")),
    (NotFound, lambda catalog: catalog.set_blocked("none", blocked=True)),
    (NotFound, lambda catalog: catalog.change_keystore("none", region="")),
    (NotFound, lambda catalog: catalog.issue_credential("none", (OTHER_ID, SECRET))),
    (NotFound, lambda catalog: catalog.retire_credential(OTHER_ID)),
    (NotFound, lambda catalog: catalog.register_key("none", OTHER_KEY, hsm="hsm", label="label-2")),
    (NotFound, lambda catalog: catalog.set_key_status("main", OTHER_KEY, KeyStatus.DISABLED)),
    (NotFound, lambda catalog: catalog.keys("none")),
    (NotFound, lambda catalog: catalog.credentials("none")),
    (NotFound, lambda catalog: catalog.reserve_encryptions(4711, 1)),
    (Refused, lambda catalog: catalog.create_keystore("Main Store", UriPathPrefix("/new"))),
    (Refused, lambda catalog: catalog.change_keystore("main", region="Frankfurt")),
    (Refused, lambda catalog: catalog.reference_credential("main", OTHER_ID, "file:/etc/secret")),
    (ReferenceRefused, lambda catalog: catalog.reference_credential("main", OTHER_ID, "s" * 43)),
    (Refused, lambda catalog: catalog.register_key("main", OTHER_KEY, hsm="hsm", label="")),
    (Refused, lambda catalog: catalog.register_key("main", OTHER_KEY, hsm="hsm", label="x", cka_id=b"")),
    (Refused, lambda catalog: catalog.register_key("main", OTHER_KEY, hsm="", label="x")),
    (
        Refused,
        lambda catalog: catalog.register_key("main", OTHER_KEY, hsm="hsm", label="x", takeover=Takeover(bytes(21))),
    ),
]


@pytest.mark.parametrize(("error", "change"), REFUSED)
def test_a_refused_change_changes_nothing(
    filled: Catalog, error: type[Exception], change: Callable[[Catalog], object], tmp_path: Path
) -> None:
    filled.create_keystore("spare", UriPathPrefix("/spare"))
    before = filled.snapshot()
    with pytest.raises((CatalogError, ReferenceRefused)) as caught:
        change(filled)
    assert type(caught.value) is error
    assert filled.snapshot() == before
    assert [path.name for path in (tmp_path / "secrets").iterdir()] == [ID.value]


def test_an_hsm_key_may_serve_two_keystores(filled: Catalog) -> None:
    """Spec, "Authorization", note: two accounts may have KMS keys based on one external key."""
    filled.create_keystore("other", UriPathPrefix(""))
    for share_with in ([], ["spare"]):
        with pytest.raises(AlreadyExists, match=r"serves the keystore 'main' already: .* add --share-with main"):
            filled.register_key("other", KEY, hsm="hsm", label="label-1", cka_id=b"\x01", share_with=share_with)
    filled.register_key("other", KEY, hsm="hsm", label="label-1", cka_id=b"\x01", share_with=["main"])
    assert [row.keystore for row in filled.keys(None)] == ["main", "other"]


def test_two_keys_with_one_label_are_told_apart_by_their_cka_id(filled: Catalog) -> None:
    filled.register_key("main", OTHER_KEY, hsm="hsm", label="label-1", cka_id=b"\x02")
    assert [row.cka_id for row in filled.keys("main")] == [b"\x01", b"\x02"]


def test_only_an_empty_keystore_is_removed(catalog: Catalog) -> None:
    catalog.create_keystore("main", PREFIX)
    catalog.issue_credential("main", (ID, SECRET))
    catalog.retire_credential(ID)
    catalog.remove_keystore("main")
    assert (catalog.keystores(), catalog.credentials(None)) == ([], [])


@pytest.mark.parametrize("takeover", [None, Takeover(), Takeover(b""), Takeover(b"metadata")])
def test_a_takeover_is_kept(catalog: Catalog, takeover: Takeover | None) -> None:
    catalog.create_keystore("main", PREFIX)
    catalog.register_key("main", KEY, hsm="hsm", label="x", takeover=takeover)
    assert catalog.snapshot().keystores["/main"].keys["key-1"].takeover == takeover
    assert catalog.keys("main")[0].takeover == takeover


def test_a_key_that_is_disabled_is_listed_so(filled: Catalog) -> None:
    filled.set_key_status("main", KEY, KeyStatus.DISABLED)
    assert filled.snapshot().keystores["/main"].keys["key-1"].status is KeyStatus.DISABLED
    assert filled.keys("main")[0].status is KeyStatus.DISABLED


def test_the_latest_use_is_kept_whatever_the_order_and_the_time_zone(filled: Catalog) -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    filled.record_use({ID.value: noon.astimezone(timezone(timedelta(hours=9)))})
    filled.record_use({ID.value: noon - timedelta(minutes=1), "UNKNOWN": noon})
    filled.record_use({})
    assert [row.last_used_at for row in filled.credentials("main")] == [noon]


def test_a_time_without_a_zone_is_refused(filled: Catalog) -> None:
    with pytest.raises(StatementError, match="aware times only"):
        filled.record_use({ID.value: datetime(2026, 1, 1)})  # noqa: DTZ001 (that is the point)


def test_the_fleet_is_the_proxies_seen_within_a_minute(catalog: Catalog) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for proxy, seconds in (("a", 0), ("b", 30), ("b", 59), ("c", 61)):
        catalog._now = lambda at=start + timedelta(seconds=seconds): at  # type: ignore[misc]  # a default
        catalog.heartbeat(proxy)
    assert catalog.fleet_size() == catalog.snapshot().fleet_size == 2
    catalog._now = lambda: start + timedelta(days=2)
    assert catalog.fleet_size() == 1
    catalog.heartbeat("d")
    with catalog._reading() as connection:
        assert connection.exec_driver_sql("SELECT id FROM proxies").scalars().all() == ["d"]


@pytest.mark.parametrize("url", [POSTGRESQL], indirect=True)
def test_workers_of_one_proxy_may_send_their_first_heartbeat_at_once(
    catalog: Catalog, open_catalog: Callable[[], Catalog]
) -> None:
    other = open_catalog()

    statements: list[str] = []

    @event.listens_for(catalog._engine, "before_cursor_execute", named=True)
    def overtake(statement: str, **_: object) -> None:
        statements.append(statement.split(maxsplit=1)[0])
        if statements == ["UPDATE", "SAVEPOINT", "INSERT"]:
            other.heartbeat("p")

    catalog.heartbeat("p")
    with catalog._reading() as connection:
        assert connection.exec_driver_sql("SELECT id FROM proxies").scalars().all() == ["p"]
    assert statements[3:5] == ["ROLLBACK", "UPDATE"]


@pytest.mark.programs
def test_reservations_of_several_processes_add_up(filled: Catalog, url: str, tmp_path: Path) -> None:
    generation = filled.keys(None)[0].generation_id
    arguments = (url, tmp_path / "secrets", generation, 7, 40)
    assert children.run(children.reserve, *arguments, times=3) == [0, 0, 0]
    assert filled.encryption_totals() == {generation: 3 * 40 * 7}
    assert filled.reserve_encryptions(generation, 1) == 3 * 40 * 7 + 1


def test_the_count_of_an_hsm_key_spans_the_keystores_that_share_it(filled: Catalog) -> None:
    """NIST's limit is the key's: shared by label alone, or by label and CKA_ID; not by another CKA_ID."""
    for name, cka_id in (("same", b"\x01"), ("label", None), ("different", b"\x02")):
        filled.create_keystore(name, UriPathPrefix(f"/{name}"))
        share_with = ["main", "same", "label"]
        filled.register_key(name, KEY, hsm="hsm", label="label-1", cka_id=cka_id, share_with=share_with)
    identities = {row.keystore: row.generation_id for row in filled.keys(None)}
    totals = filled.reserve({identities[name]: 10**power for power, name in enumerate(identities)})
    assert list(identities) == ["main", "same", "label", "different"]
    assert {name: totals[identity] for name, identity in identities.items()} == {
        "main": 111,
        "same": 111,
        "label": 1111,
        "different": 1100,
    }
    assert filled.encryption_totals() == totals


def test_a_tag_that_is_none_is_refused(filled: Catalog) -> None:
    with pytest.raises(Refused, match="a tag has 12 bytes"):
        filled.register_key("main", OTHER_KEY, hsm="hsm", label="label-2", tag=bytes(12))


def test_a_thousand_keys_make_one_snapshot(catalog: Catalog) -> None:
    """A keystore with many keys is read with as many statements as one with few."""
    catalog.create_keystore("main", PREFIX)
    with catalog._changing() as connection:
        octets = "80" * 12
        tag = f"'\\x{octets}'::bytea" if connection.dialect.name == "postgresql" else f"x'{octets}'"
        connection.exec_driver_sql(
            "INSERT INTO external_keys (keystore_id, external_key_id, status, takeover, created_at, tag)"
            " WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)"
            " SELECT 1, 'k' || i, 'ENABLED', FALSE, CURRENT_TIMESTAMP, TAG FROM n".replace("TAG", tag)
        )
        connection.exec_driver_sql(
            "INSERT INTO key_generations (key_id, number, hsm, label, encryptions_reserved, created_at, state)"
            " SELECT id, 1, 'hsm', external_key_id, 0, CURRENT_TIMESTAMP, 'active' FROM external_keys"
        )
        connection.exec_driver_sql("DELETE FROM recorded_entries")
        begin_records(connection, datetime.now(UTC))
    keys = catalog.snapshot().keystores["/main"].keys
    assert len(keys) == 1000
    assert keys["k1000"].active.label == "k1000"


def test_another_connection_sees_a_change_at_once(filled: Catalog, open_catalog: Callable[[], Catalog]) -> None:
    other = open_catalog()
    filled.set_blocked("main", blocked=True)
    assert other.version() == filled.version()
    assert other.snapshot().keystores["/main"].blocked
    other.set_blocked("main", blocked=False)
    assert not filled.snapshot().keystores["/main"].blocked


def test_a_thing_not_there_is_named_with_what_is(filled: Catalog) -> None:
    with pytest.raises(NotFound, match="there is no keystore 'mian'; there are main"):
        filled.keys("mian")
    with pytest.raises(NotFound, match="has no key nope: `holdfast key list main`"):
        filled.set_key_status("main", ExternalKeyId("nope"), KeyStatus.ENABLED)


def test_a_token_under_another_name_is_noticed_by_its_serial_number(filled: Catalog) -> None:
    """Two [hsm.NAME] tables of one token do not hide that a key is used already."""
    filled.record_token_serial(1, "0042")
    for keystore in ("main", "spare"):
        if keystore == "spare":
            filled.create_keystore("spare", UriPathPrefix("/spare"))
        with pytest.raises(AlreadyExists):
            filled.register_key(keystore, OTHER_KEY, hsm="renamed", label="label-1", token_serial="0042")


def test_a_count_can_begin_above_zero(filled: Catalog) -> None:
    filled.register_key("main", OTHER_KEY, hsm="hsm", label="label-2", prior_encryptions=2**31)
    assert filled.encryption_totals()[2] == 2**31
    for wrong in (-1, 2**32 + 1):
        with pytest.raises(Refused, match="from 0 to 2"):
            filled.register_key("main", KEY, hsm="hsm", label="label-3", prior_encryptions=wrong)


def test_many_keystores_are_blocked_in_one_version_or_none(filled: Catalog) -> None:
    filled.create_keystore("other", UriPathPrefix(""))
    before = filled.version()
    with pytest.raises(NotFound):
        filled.set_blocked("main", "none", blocked=True)
    assert (filled.version(), [row.blocked for row in filled.keystores()]) == (before, [False, False])
    filled.set_blocked("main", "other", blocked=True)
    assert (filled.version(), [row.blocked for row in filled.keystores()]) == (before + 1, [True, True])


def test_only_a_disabled_key_is_unregistered(filled: Catalog) -> None:
    with pytest.raises(InUse, match="is enabled: only a disabled key"):
        filled.unregister_key("main", KEY)
    filled.set_key_status("main", KEY, KeyStatus.DISABLED)
    filled.unregister_key("main", KEY)
    assert (filled.keys(None), filled.encryption_totals()) == ([], {})
    with pytest.raises(NotFound):
        filled.unregister_key("main", KEY)


REGIONS = ["eu-central-1", "us-gov-west-1", "cn-north-1", "eusc-de-east-1", "us-iso-east-1", "us-isob-east-1"]


@pytest.mark.parametrize("region", [*REGIONS, "eu-isoe-west-1", "ap-southeast-7", "mx-central-1"])
def test_regions_of_every_partition_are_taken(catalog: Catalog, region: str) -> None:
    catalog.create_keystore("main", PREFIX, region=region)


@pytest.mark.parametrize("region", ["frankfurt", "eu-central", "EU-central-1", "eu_central_1", "eu-central-1a", "1"])
def test_what_is_no_region_is_refused(catalog: Catalog, region: str) -> None:
    with pytest.raises(Refused, match="is not the name of an AWS region"):
        catalog.create_keystore("main", PREFIX, region=region)
