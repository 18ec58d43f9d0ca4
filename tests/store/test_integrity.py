"""Somebody with a database client: what no record explains is told and opens nothing; what it closes stays closed."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from tests.administered import Catalog
from tests.store.samples import ID, KEY, OTHER_ID, OTHER_SECRET, PREFIX, SECRET
from tests.store.test_feed import Running, started
from tests.store.test_memory import sql
from tests.waiting import eventually

from holdfast.gateway.worker.catalog_gauges import COMPARE, GaugeReader
from holdfast.keys.model import ExternalKey, Keystore, Snapshot
from holdfast.keys.states import GenerationState
from holdfast.store import schema
from holdfast.store.errors import Refused
from holdfast.store.repairs import deviations
from holdfast.store.view import View
from holdfast.xks.types import ExternalKeyId, KeyStatus, UriPathPrefix


@pytest.fixture
def filled(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    """Two keystores; in `main` two credentials and a key with a canary, and one that is disabled."""
    monkeypatch.setenv("HOLDFAST_SECRET_OTHER", OTHER_SECRET.reveal().decode())
    catalog.create_keystore("main", PREFIX)
    catalog.create_keystore("other", UriPathPrefix("/other"))
    catalog.issue_credential("main", (ID, SECRET))
    catalog.reference_credential("main", OTHER_ID, "env:HOLDFAST_SECRET_OTHER")
    catalog.retire_credential(OTHER_ID)
    catalog.register_key("main", KEY, hsm="hsm", label="label", cka_id=b"\x00\xff", canary=b"canary")
    catalog.register_key("main", ExternalKeyId("off"), hsm="hsm", label="off")
    catalog.set_key_status("main", ExternalKeyId("off"), KeyStatus.DISABLED)
    return catalog


ARN = "arn:aws:kms:eu-central-1:111122223333:key/1234"
NEW_VERSION = "UPDATE catalog SET version = version + 1"


def viewed(catalog: Catalog) -> View:
    """The catalog as read whole."""
    view = View()
    catalog.refresh(view)
    return view


def main(view: View) -> Keystore:
    return view.keystores[1]


def key(view: View) -> ExternalKey:
    return main(view).keys[KEY.value]


OPENS: dict[str, tuple[str, str, Callable[[View], bool]]] = {
    "a key is enabled": (
        "UPDATE external_keys SET status = 'ENABLED'",
        "key main/off (key/2) was changed in the database, and no record explains it: status 'DISABLED' -> 'ENABLED'",
        lambda view: main(view).keys["off"].status is KeyStatus.DISABLED,
    ),
    "a retired credential lives again": (
        "UPDATE credentials SET retired_at = NULL",
        f"credential {OTHER_ID} of the keystore main (credential/{OTHER_ID}) was changed in the database",
        lambda view: list(main(view).credentials) == [ID.value],
    ),
    "another secret": (
        "UPDATE credentials SET secret_ref = 'env:HOLDFAST_SECRET_OTHER' WHERE retired_at IS NULL",
        f"secret_ref 'file:{ID}' -> 'env:HOLDFAST_SECRET_OTHER'",
        lambda view: main(view).credentials[ID.value] == SECRET,
    ),
    "another prefix": (
        "UPDATE keystores SET prefix = '/elsewhere' WHERE id = 1",
        "no record explains it: prefix '/main' -> '/elsewhere'.",
        lambda view: main(view).prefix == PREFIX,
    ),
    "another HSM key": (
        "UPDATE key_generations SET label = 'label of another' WHERE id = 1",
        "generation 1 (row 1): label 'label' -> 'label of another'",
        lambda view: key(view).active.label == "label" and key(view).active.cka_id == b"\x00\xff",
    ),
    "no canary": (
        "UPDATE key_generations SET canary = NULL WHERE id = 1",
        "generation 1 (row 1): canary 'Y2FuYXJ5' -> None",
        lambda view: key(view).active.canary == b"canary",
    ),
    "a key moves to another keystore": (
        "UPDATE external_keys SET keystore_id = 2 WHERE id = 1",
        "keystore_id 1 -> 2",
        lambda view: KEY.value in main(view).keys and not view.keystores[2].keys,
    ),
    "a new keystore": (
        "INSERT INTO keystores (id, name, prefix, blocked, created_at) VALUES (9, 'n', '/n', FALSE, '2026-01-01')",
        "keystore n (keystore/9) was changed in the database, and no record explains it: it is new.",
        lambda view: list(view.keystores) == [1, 2],
    ),
    "a new generation": (
        """INSERT INTO key_generations (id, key_id, number, hsm, label, encryptions_reserved, created_at, state)
        VALUES (9, 1, 2, 'hsm', 'x', 0, '2026-01-01', 'retired')""",
        "generation 2 (row 9): it 'not there' -> 'there'",
        lambda view: list(key(view).generations) == [1],
    ),
}


@pytest.mark.parametrize("later", [False, True], ids=["read whole", "read by what changed"])
@pytest.mark.parametrize(("statement", "words", "holds"), OPENS.values(), ids=OPENS)
def test_what_a_hand_opens_does_not_take_effect(
    filled: Catalog, statement: str, words: str, holds: Callable[[View], bool], *, later: bool
) -> None:
    view = viewed(filled)
    sql(filled, statement, NEW_VERSION)
    if later:  # a row is read again because it says that it has changed
        sql(
            filled,
            *(
                f"UPDATE {table} SET changed = (SELECT version FROM catalog)"  # noqa: S608 (names of tables)
                for table in ("external_keys", "key_generations", "keystores")
            ),
        )
    filled.refresh(view)
    assert [words in said for said in view.unexplained] == [True]
    assert holds(view)
    assert "`holdfast catalog accept " in view.unexplained[0]


CLOSES: dict[str, tuple[str, Callable[[View], bool]]] = {
    "a block": ("UPDATE keystores SET blocked = NOT FALSE WHERE id = 1", lambda view: main(view).blocked),
    "a key is disabled": (
        "UPDATE external_keys SET status = 'DISABLED' WHERE id = 1",
        lambda view: key(view).status is KeyStatus.DISABLED,
    ),
    "a pin": (
        f"UPDATE external_keys SET pinned_to = '{ARN}' WHERE id = 1",  # noqa: S608 (an ARN)
        lambda view: key(view).pinned_to == (ARN,),
    ),
    "an end": (
        "UPDATE external_keys SET enabled_until = '2026-01-01 00:00:00' WHERE id = 1",
        lambda view: key(view).enabled_until == datetime(2026, 1, 1, tzinfo=UTC),
    ),
    "a stop": (
        "UPDATE key_generations SET stopped_at = '2026-01-01 00:00:00', stopped_reason = 'why' WHERE id = 1",
        lambda view: key(view).active.stopped == "why",
    ),
    "a credential is retired": (
        "UPDATE credentials SET retired_at = '2026-01-01 00:00:00'",
        lambda view: not main(view).credentials,
    ),
    "the active generation is retired": (
        "UPDATE key_generations SET state = 'retired' WHERE id = 1",
        lambda view: KEY.value not in main(view).keys,
    ),
    "a generation is gone": (
        "DELETE FROM key_generations WHERE id = 1",
        lambda view: KEY.value not in main(view).keys,
    ),
}


@pytest.mark.parametrize(("statement", "holds"), CLOSES.values(), ids=CLOSES)
def test_what_a_hand_closes_stays_closed_and_is_told(
    filled: Catalog, statement: str, holds: Callable[[View], bool]
) -> None:
    sql(filled, statement, NEW_VERSION)
    view = viewed(filled)
    assert len(view.unexplained) == 1
    assert holds(view)


def test_a_suspended_generation_that_a_hand_resumes_stays_suspended(filled: Catalog) -> None:
    with filled.change() as transaction:
        transaction.add(
            schema.key_generations,
            key_id=1,
            number=2,
            hsm="hsm",
            label="second",
            encryptions_reserved=0,
            created_at=transaction.now,
            state=GenerationState.SUSPENDED.value,
        )
    sql(filled, "UPDATE key_generations SET state = 'retired' WHERE number = 2", NEW_VERSION)
    assert key(viewed(filled)).generations[2].state is GenerationState.SUSPENDED


def test_a_pin_that_a_hand_takes_away_or_changes_stays(filled: Catalog) -> None:
    with filled.change() as transaction:
        transaction.pin_key("main", KEY, [ARN, f"{ARN}5"])
    for pins, served in (("NULL", (ARN, f"{ARN}5")), (f"'{ARN} {ARN}6'", (ARN,)), (f"'{ARN}6'", (ARN, f"{ARN}5"))):
        sql(filled, f"UPDATE external_keys SET pinned_to = {pins} WHERE id = 1", NEW_VERSION)  # noqa: S608 (ARNs)
        assert key(viewed(filled)).pinned_to == served


def test_a_row_that_says_nothing_of_its_change_has_no_effect_until_it_is_found(filled: Catalog) -> None:
    """It is not read again; a reading of everything finds it."""
    view = viewed(filled)
    sql(filled, "UPDATE key_generations SET label = 'another' WHERE id = 1")
    filled.set_blocked("other", blocked=True)
    filled.refresh(view)
    assert (view.unexplained, key(view).active.label) == ((), "label")
    assert [key(viewed(filled)).active.label, len(viewed(filled).unexplained)] == ["label", 1]


def test_recorded_changes_go_on_beside_what_no_record_explains(filled: Catalog) -> None:
    sql(filled, "UPDATE key_generations SET label = 'another' WHERE id = 1", NEW_VERSION)
    view = viewed(filled)
    filled.set_key_status("main", ExternalKeyId("off"), KeyStatus.ENABLED)
    filled.set_key_status("main", KEY, KeyStatus.DISABLED)
    filled.refresh(view)
    assert main(view).keys["off"].status is KeyStatus.ENABLED
    assert (key(view).status, key(view).active.label) == (KeyStatus.DISABLED, "label")
    assert len(view.unexplained) == 1


def test_a_key_is_refused_whose_record_somebody_has_removed(filled: Catalog) -> None:
    view = viewed(filled)
    sql(filled, "DELETE FROM recorded_entries WHERE kind = 'key' AND id = '1'")
    filled.set_key_status("main", KEY, KeyStatus.DISABLED)
    filled.refresh(view)
    assert KEY.value not in main(view).keys
    assert len(view.unexplained) == 1


def test_a_keystore_is_blocked_also_where_its_recorded_entry_is_no_text(filled: Catalog) -> None:
    statement = "UPDATE recorded_entries SET content = CAST(X'ff' AS TEXT) WHERE kind = 'keystore'"
    if filled._engine.dialect.name == "postgresql":  # which takes no text that is not UTF-8
        statement = statement.replace("CAST(X'ff' AS TEXT)", "chr(1)")
    sql(filled, statement)
    filled.set_blocked("main", blocked=True)
    assert [row.blocked for row in filled.keystores() if row.name == "main"] == [True]
    assert 1 not in viewed(filled).keystores, "nor is it served by what somebody has written there"


def test_rows_and_recorded_entries_that_were_changed_together_do_not_add_up(filled: Catalog) -> None:
    """Without the record nobody can say which; the machine keeps to what it remembers (`memory`)."""
    sql(
        filled,
        "UPDATE external_keys SET status = 'ENABLED' WHERE id = 2",
        "UPDATE recorded_entries SET content = replace(content, 'DISABLED', 'ENABLED')",
        NEW_VERSION,
    )
    view = viewed(filled)
    (said,) = view.unexplained
    assert said.startswith("the recorded entries do not add up to the digest of the latest record")


@pytest.mark.parametrize(("statement", "words", "holds"), OPENS.values(), ids=OPENS)
def test_what_is_accepted_is_recorded_and_serves(
    filled: Catalog, statement: str, words: str, holds: Callable[[View], bool]
) -> None:
    view = viewed(filled)
    sql(filled, statement, NEW_VERSION)
    filled.refresh(view)
    with filled.change() as transaction:
        found, _ = deviations(transaction)
        transaction.accept_entries(found, all_of_them=False)
    filled.refresh(view)
    for one in (view, viewed(filled)):
        assert one.unexplained == (), words
        assert not holds(one)


REVERTIBLE = {name: case[0] for name, case in {**OPENS, **CLOSES}.items() if name != "a generation is gone"}


@pytest.mark.parametrize("statement", REVERTIBLE.values(), ids=REVERTIBLE)
def test_what_is_reverted_is_as_it_was(filled: Catalog, statement: str) -> None:
    view = viewed(filled)
    before = viewed(filled).keystores
    sql(filled, statement, NEW_VERSION)
    filled.refresh(view)
    with filled.change() as transaction:
        found, _ = deviations(transaction)
        transaction.revert_entries(found)
    filled.refresh(view)
    for one in (view, viewed(filled)):
        assert one.unexplained == ()
        assert one.keystores == before


def test_a_key_whose_rows_are_gone_cannot_be_put_back(filled: Catalog) -> None:
    sql(filled, "DELETE FROM key_generations WHERE id = 1", NEW_VERSION)
    with pytest.raises(Refused, match="the count of its encryptions"), filled.change() as transaction:
        transaction.revert_entries(deviations(transaction)[0])
    with filled.change() as transaction:
        transaction.accept_entries(deviations(transaction)[0], all_of_them=True)
    assert viewed(filled).unexplained == ()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE recorded_entries SET content = replace(content, 'DISABLED', 'ENABLED')",
        "UPDATE changes SET record = 'x'",
        "DELETE FROM changes",
        "DELETE FROM recorded_entries",
    ],
)
def test_after_acceptance_of_everything_the_catalog_adds_up_again(filled: Catalog, statement: str) -> None:
    sql(filled, statement, NEW_VERSION)
    with filled.change() as transaction:
        found = deviations(transaction)
        assert found != ([], None)
        transaction.accept_entries(found[0], all_of_them=True)
    with filled.reading() as state:
        assert deviations(state) == ([], None)
    assert viewed(filled).unexplained == ()


def alarms(running: Running) -> list[str]:
    return [said for said in running.said if said.startswith("ALARM: ")]


def test_a_running_node_tells_an_alarm_and_serves_what_is_accepted(
    filled: Catalog, open_catalog: Callable[[], Catalog]
) -> None:
    with started(open_catalog()) as running:
        sql(
            filled,
            NEW_VERSION,
            "UPDATE external_keys SET status = 'ENABLED', changed = (SELECT version FROM catalog)",
        )
        eventually(lambda: bool(alarms(running)))
        assert alarms(running)[0].startswith("ALARM: key main/off (key/2) was changed in the database")
        keys = running.feed.snapshot.keystores["/main"].keys
        assert keys["off"].status is KeyStatus.DISABLED
        assert running.feed.snapshot.unexplained
        with filled.change() as transaction:
            transaction.accept_entries(deviations(transaction)[0], all_of_them=False)
        eventually(lambda: running.feed.snapshot.keystores["/main"].keys["off"].status is KeyStatus.ENABLED)
        assert running.feed.snapshot.unexplained == ()


def test_a_keystore_that_a_hand_has_opened_stays_blocked(
    filled: Catalog, open_catalog: Callable[[], Catalog]
) -> None:
    filled.set_blocked("main", blocked=True)
    with started(open_catalog()) as running:
        sql(
            filled,
            NEW_VERSION,
            "UPDATE keystores SET blocked = FALSE, changed = (SELECT version FROM catalog)",
        )
        eventually(lambda: bool(alarms(running)))
        filled.change_keystore("main", region="eu-central-1")  # a record of something else explains nothing
        eventually(lambda: running.feed.snapshot.version == filled.version())
        assert running.feed.snapshot.keystores["/main"].blocked


def test_one_worker_of_a_node_finds_what_does_not_say_that_it_changed(filled: Catalog) -> None:
    """By comparing everything now and then; until it is accepted or put back it looks each time."""
    told: list[str] = []
    clock = [0.0]
    reader = GaugeReader(
        filled,
        age_days=None,
        serving=viewed_snapshot(filled),
        monotonic=lambda: clock[0],
        on_alarm=told.append,
        on_failure=told.append,
    )
    sql(filled, "UPDATE key_generations SET label = 'another' WHERE id = 1")
    reader.look()
    assert (found(reader), told) == (0, [])
    clock[0] = COMPARE
    reader.look()
    reader.look()
    assert (found(reader), len(told)) == (1, 1)
    assert told[0].startswith("ALARM: key main/key-1 (key/1) was changed in the database")
    sql(filled, "UPDATE key_generations SET label = 'label' WHERE id = 1")
    reader.look()
    assert found(reader) == 0


def found(reader: GaugeReader) -> int:
    assert reader.latest is not None
    return reader.latest.unexplained


def viewed_snapshot(catalog: Catalog) -> Callable[[], Snapshot]:
    snapshot = catalog.snapshot()
    return lambda: snapshot
