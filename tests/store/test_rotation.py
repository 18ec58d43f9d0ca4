"""Generations in the catalog: planned, found by the nodes, activated, retired; and no other way."""

from datetime import timedelta

import pytest
from sqlalchemy import text
from tests.administered import Catalog
from tests.store.conftest import now
from tests.store.samples import KEY, OTHER_KEY, PREFIX

from holdfast.keys.model import ExternalKey
from holdfast.keys.proof import Proof
from holdfast.keys.readiness import Readiness
from holdfast.keys.states import GenerationState, Step
from holdfast.store import rotation
from holdfast.store.errors import AlreadyExists, CatalogError, InUse, NotFound
from holdfast.store.nodes import Node, WorkerState

S = GenerationState


@pytest.fixture
def filled(catalog: Catalog) -> Catalog:
    """A catalog with one key."""
    catalog.create_keystore("main", PREFIX)
    catalog.register_key("main", KEY, hsm="hsm", label="first")
    return catalog


def key(catalog: Catalog) -> ExternalKey:
    return catalog.snapshot().keystores["/main"].keys[KEY.value]


def states(catalog: Catalog) -> dict[int, str]:
    return {number: one.state.value for number, one in key(catalog).generations.items()}


def planned(catalog: Catalog, label: str = "second", *, of: str = KEY.value) -> int:
    """The row of a generation that is planned."""
    with catalog.change() as transaction:
        rotation.plan_generation(transaction, "main", of, hsm="hsm", label=label)
    (row,) = (one.generation_id for one in catalog.keys("main") if one.state is S.PLANNED)
    return row


def make_ready(catalog: Catalog, row: int, canary: bytes = b"canary") -> None:
    with catalog.change() as transaction:
        rotation.make_ready(transaction, row, Proof(cka_id=b"2", canary=canary, token_serial="7"))


def made_ready(catalog: Catalog, label: str = "second") -> int:
    """The row of a generation that is ready."""
    row = planned(catalog, label)
    make_ready(catalog, row)
    return row


def activate(catalog: Catalog, row: int) -> None:
    with catalog.change() as transaction:
        rotation.activate(transaction, row)


def step(catalog: Catalog, row: int, taken: Step) -> None:
    with catalog.change() as transaction:
        rotation.take_step(transaction, row, taken)


def ask_again(catalog: Catalog, row: int) -> None:
    with catalog.change() as transaction:
        rotation.ask_again(transaction, row)


def plan_destruction(catalog: Catalog, row: int, days: int) -> None:
    with catalog.change() as transaction:
        rotation.plan_destruction(transaction, row, days=days)


def readiness(catalog: Catalog, row: int) -> Readiness:
    with catalog.reading() as state:
        return rotation.readiness(state, row, now())


def report(catalog: Catalog, row: int, *, proxy: str = "a:443", worker: int = 0, fault: str | None = None) -> None:
    """One worker has looked for it, as often as it was asked to."""
    (looks,) = (one.looks for one in key(catalog).generations.values() if one.id == row)
    catalog.report_generation(row, proxy_id=proxy, worker=worker, looks=looks, fault=fault)


def test_a_rotation_goes_from_planned_over_ready_to_active_and_the_old_one_retires(filled: Catalog) -> None:
    row = planned(filled)
    versions = [filled.version()]
    assert states(filled) == {1: "active", 2: "planned"}
    make_ready(filled, row)
    versions += [filled.version()]
    ready = key(filled).generations[2]
    assert (ready.state, ready.canary, ready.cka_id, ready.token_serial) == (S.READY, b"canary", b"2", "7")
    assert key(filled).active.number == 1
    activate(filled, row)
    versions += [filled.version()]
    assert states(filled) == {1: "retired", 2: "active"}
    assert key(filled).active.number == 2
    assert filled.encryption_totals()[row] == 1  # the canary's
    first, second = filled.keys("main")
    assert first.activated_at is not None is not second.activated_at
    step(filled, first.generation_id, Step.ROLL_BACK)
    assert states(filled) == {1: "active", 2: "retired"}
    assert versions == sorted(set(versions)), "each step is a new version, which readers take over"


def test_a_generation_is_active_only_when_every_worker_of_every_live_node_has_found_it(filled: Catalog) -> None:
    filled.heartbeat("a:443", workers=2)
    filled.heartbeat("b:443", workers=1)
    row = made_ready(filled)
    with pytest.raises(InUse, match=r"ready on 0 of 2 nodes.*a:443: 0 of 2 workers have opened its canary"):
        activate(filled, row)
    report(filled, row)
    report(filled, row, proxy="b:443")
    with pytest.raises(InUse, match="a:443: 1 of 2 workers"):
        activate(filled, row)
    report(filled, row, worker=1, fault="no such key")
    with pytest.raises(InUse, match="a:443: no such key"):
        activate(filled, row)
    report(filled, row, worker=1)
    activate(filled, row)


def test_a_node_that_is_asked_again_must_answer_again(filled: Catalog) -> None:
    filled.heartbeat("a:443")
    row = made_ready(filled)
    report(filled, row)
    ask_again(filled, row)
    assert not readiness(filled, row).is_complete
    report(filled, row)
    assert readiness(filled, row).is_complete
    activate(filled, row)
    with pytest.raises(InUse, match="generation 2 is active, and not ready"):
        ask_again(filled, row)


def test_a_node_that_is_gone_is_not_waited_for(filled: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    filled.heartbeat("a:443")
    row = made_ready(filled)
    with pytest.raises(InUse):
        activate(filled, row)
    monkeypatch.setattr("holdfast.store.use.LIVE", timedelta(0))
    monkeypatch.setattr("holdfast.store.use._LATEST_LOOK", timedelta(0))
    activate(filled, row)


@pytest.mark.parametrize(("silent", "waits"), [(61, True), (300, True), (331, False)])
def test_a_silent_node_is_waited_for_until_its_lease_has_ended(filled: Catalog, silent: int, *, waits: bool) -> None:
    """Cut off from the catalog it serves on, and could not open what the new generation encrypts."""
    filled.heartbeat("a:443")
    filled.report_worker(Node("a:443", None, 1, lease=300), 0, WorkerState(1, {}, None), run="1", first=True)
    row = made_ready(filled)
    with filled.reading() as state:
        found = rotation.readiness(state, row, now() + timedelta(seconds=silent))
    assert [node.node for node in found.missing] == ["a:443"] * waits


def test_a_node_of_an_older_version_is_waited_for(filled: Catalog) -> None:
    row = made_ready(filled)
    filled.heartbeat("a:443")
    with filled._writing() as connection:
        connection.execute(text("UPDATE proxies SET workers = NULL"))
    with pytest.raises(InUse, match="a:443 runs an older Holdfast"):
        activate(filled, row)


def test_a_key_of_format_1_does_not_rotate(filled: Catalog) -> None:
    with filled._writing() as connection:
        connection.execute(text("UPDATE external_keys SET metadata_format = 1"))
    with pytest.raises(InUse, match=r"only format 2 rotates: `holdfast key upgrade main key-1`"):
        planned(filled)


def test_one_generation_is_planned_at_a_time(filled: Catalog) -> None:
    row = planned(filled)
    assert planned(filled, "another") == row
    assert (states(filled), key(filled).generations[2].label) == ({1: "active", 2: "planned"}, "another")
    make_ready(filled, row)
    with pytest.raises(InUse, match="generation 2 of the key key-1 is ready: activate it first"):
        planned(filled, "third")


def test_an_hsm_key_that_serves_already_is_no_new_generation(filled: Catalog) -> None:
    filled.register_key("main", OTHER_KEY, hsm="hsm", label="other")
    for label in ("first", "other"):
        with pytest.raises(AlreadyExists):
            planned(filled, label)


def test_what_is_not_there_cannot_rotate(filled: Catalog) -> None:
    with pytest.raises(NotFound):
        planned(filled, of="key-9")
    for change in (activate, ask_again, readiness):
        with pytest.raises(NotFound):
            change(filled, 99)
    filled.report_generation(99, proxy_id="a:443", worker=0, looks=1, fault=None)  # of a key that was forgotten


def test_a_refused_step_changes_nothing(filled: Catalog) -> None:
    row = made_ready(filled)
    version = filled.version()
    with pytest.raises(InUse, match=r"generation 2 is ready; to suspend it, it must be retired or compromised"):
        step(filled, row, Step.SUSPEND)
    with pytest.raises(InUse, match="another one must encrypt first"):
        step(filled, 1, Step.COMPROMISE)
    assert (filled.version(), states(filled)) == (version, {1: "active", 2: "ready"})


def test_a_destruction_waits_for_its_period_and_can_be_undone(filled: Catalog) -> None:
    activate(filled, made_ready(filled))
    step(filled, 1, Step.SUSPEND)
    plan_destruction(filled, 1, 30)
    with pytest.raises(InUse, match="the waiting period of generation 1 ends at 20"):
        step(filled, 1, Step.DESTROY)
    step(filled, 1, Step.KEEP)
    assert filled.keys("main")[0].destroy_after is None
    plan_destruction(filled, 1, 0)
    step(filled, 1, Step.DESTROY)
    assert states(filled) == {1: "destroyed", 2: "active"}


def test_a_compromised_generation_is_dated_and_never_encrypts_again(filled: Catalog) -> None:
    activate(filled, made_ready(filled))
    step(filled, 1, Step.COMPROMISE)
    assert filled.keys("main")[0].compromised_at is not None
    with pytest.raises(InUse, match="generation 1 is compromised"):
        step(filled, 1, Step.ROLL_BACK)


def test_the_database_takes_no_second_active_generation(filled: Catalog) -> None:
    row = made_ready(filled)
    with pytest.raises(CatalogError), filled._writing() as connection:
        connection.execute(text("UPDATE key_generations SET state = 'active' WHERE id = :row"), {"row": row})


def test_a_key_is_forgotten_with_what_nodes_said_of_its_generations(filled: Catalog) -> None:
    report(filled, made_ready(filled))
    with filled._writing() as connection:
        connection.execute(text("UPDATE external_keys SET status = 'DISABLED'"))
    filled.unregister_key("main", KEY)
    assert filled.keys("main") == []
