"""How much is read for a change, and what two snapshots share. Counts of work, not of time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import event, text
from tests.administered import Catalog
from tests.store.samples import ID, OTHER_KEY, PREFIX, SECRET

from holdfast.store.view import View
from holdfast.xks.types import ExternalKeyId, KeyStatus, UriPathPrefix

KEYS = 30


@pytest.fixture
def filled(catalog: Catalog) -> Catalog:
    """Two keystores of KEYS keys each; rows of `main` are odd."""
    catalog.create_keystore("main", PREFIX)
    catalog.create_keystore("other", UriPathPrefix("/other"))
    catalog.issue_credential("main", (ID, SECRET))
    for number in range(KEYS):
        for keystore in ("main", "other"):
            name = ExternalKeyId(f"key-{number}")
            catalog.register_key(keystore, name, hsm="hsm", label=f"{keystore}-{number}")
    return catalog


@pytest.fixture
def view(filled: Catalog) -> View:
    """A view of everything."""
    made = View()
    filled.refresh(made)
    return made


@contextmanager
def queries(catalog: Catalog) -> Iterator[list[str]]:
    """The statements that the block runs."""
    made: list[str] = []

    def note(*arguments: object) -> None:
        made.append(str(arguments[2]))

    event.listen(catalog._engine, "before_cursor_execute", note)
    yield made
    event.remove(catalog._engine, "before_cursor_execute", note)


CHANGES: dict[str, Callable[[Catalog], object]] = {
    "a key is disabled": lambda catalog: catalog.set_key_status("main", ExternalKeyId("key-3"), KeyStatus.DISABLED),
    "a generation is stopped": lambda catalog: catalog.stop_generation(7, "an unsafe IV"),
    "a canary is recorded": lambda catalog: catalog.record_canary(7, b"canary"),
    "a key is registered": lambda catalog: catalog.register_key("main", OTHER_KEY, hsm="hsm", label="new"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_one_key_is_read_for_a_change_of_one(
    filled: Catalog, view: View, change: Callable[[Catalog], object]
) -> None:
    if change is CHANGES["a key is registered"]:
        filled.register_key("other", ExternalKeyId("another"), hsm="hsm", label="another")
        filled.refresh(view)
        change = lambda catalog: catalog.register_key(  # noqa: E731 (a name that is free)
            "main", ExternalKeyId("new"), hsm="hsm", label="new"
        )
    before, rows = dict(view.keystores), view.rows_read
    change(filled)
    (difference,) = filled.refresh(view)
    assert view.rows_read - rows == 2  # the key and its generation
    assert difference.before != difference.after == view.keystores[1].keys[difference.external_key_id]
    assert view.keystores[2] is before[2]
    same = [name for name, key in view.keystores[1].keys.items() if key is before[1].keys.get(name)]
    assert len(same) >= KEYS - 1
    fresh = View()
    filled.refresh(fresh)
    assert fresh.keystores == view.keystores
    assert (fresh.disabled, fresh.stopped, fresh.owners) == (view.disabled, view.stopped, view.owners)


def test_no_key_is_read_for_a_block_or_a_credential(filled: Catalog, view: View) -> None:
    keys, rows = view.keystores[1].keys, view.rows_read
    filled.set_blocked("main", blocked=True)
    filled.retire_credential(ID)
    assert filled.refresh(view) == []
    assert (view.rows_read, view.keystores[1].keys is keys) == (rows, True)
    assert (view.keystores[1].blocked, view.keystores[1].credentials) == (True, {})


def test_a_look_without_news_costs_two_queries(filled: Catalog) -> None:
    with queries(filled) as made:
        filled.states()
    assert len([statement for statement in made if statement.startswith("SELECT")]) == 2


@pytest.mark.parametrize("size", [1, KEYS])
def test_a_change_costs_as_many_queries_whatever_the_size(filled: Catalog, view: View, size: int) -> None:
    for number in range(size):
        filled.set_key_status("main", ExternalKeyId(f"key-{number}"), KeyStatus.DISABLED)
    with queries(filled) as made:
        assert len(filled.refresh(view)) == size
    assert len([statement for statement in made if statement.startswith("SELECT")]) <= 10


def test_everything_is_read_again_after_a_removal_and_what_is_the_same_stays(filled: Catalog, view: View) -> None:
    filled.create_keystore("empty", UriPathPrefix("/empty"))
    filled.refresh(view)
    before = dict(view.keystores)
    filled.remove_keystore("empty")
    assert filled.refresh(view) == []
    assert list(view.keystores) == [1, 2]
    assert all(view.keystores[row] is before[row] for row in (1, 2))


def test_rows_that_somebody_changed_by_hand_are_found(filled: Catalog, view: View) -> None:
    """Their column `changed` says nothing, so everything is read."""
    with filled._writing() as connection:
        connection.execute(text("UPDATE key_generations SET label = 'moved' WHERE id = 1"))
        connection.execute(text("UPDATE external_keys SET keystore_id = 2, external_key_id = 'x' WHERE id = 3"))
        connection.execute(text("UPDATE catalog SET version = version + 1"))
    assert filled.refresh(view) == []  # what no record explains does not take effect
    assert [said.split(" was changed")[0] for said in view.unexplained] == [
        "key main/key-0 (key/1)",
        "key other/x (key/3)",
    ]


def test_a_refresh_that_fails_half_way_is_made_good_by_the_next(
    filled: Catalog, view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled.stop_generation(1, "an unsafe IV")
    with monkeypatch.context() as broken:
        broken.setattr(view, "_take_keystores", lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            filled.refresh(view)
    filled.refresh(view)
    fresh = View()
    filled.refresh(fresh)
    assert view.keystores == fresh.keystores


def test_much_is_read_with_pauses(filled: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.store.view._BREATH", 10)
    seen: list[object] = []
    view = View()
    filled.refresh(view, lambda: seen.append(view.keystores))
    assert len(seen) >= 4 * KEYS // 10
    assert not any(seen)  # and nothing half-read is shown


def test_reserving_for_one_key_reads_the_rows_of_its_label_alone(filled: Catalog) -> None:
    with queries(filled) as made:
        assert filled.reserve({1: 10}) == {1: 10}
    reads = [statement for statement in made if statement.startswith("SELECT") and "encryptions" in statement]
    assert len(reads) == 2
    assert all("label IN" in statement for statement in reads)


def test_one_token_under_two_names_counts_once(filled: Catalog) -> None:
    """NIST's limit is the HSM key's, whatever the configuration calls the HSM."""
    filled.register_key("other", ExternalKeyId("shared"), hsm="renamed", label="main-0")
    shared = 2 * KEYS + 1
    filled.reserve({1: 10, shared: 5})
    assert filled.encryption_totals([1, shared]) == {1: 10, shared: 5}  # nothing tells that it is the same token
    for generation in (1, shared):
        filled.record_token_serial(generation, "0042")
    assert filled.encryption_totals([1, shared]) == {1: 15, shared: 15}
    filled.record_token_serial(shared, "0043")
    assert filled.encryption_totals([1, shared]) == {1: 10, shared: 5}
