"""A catalog that goes back in time, under a running proxy and across its restart."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs
from sqlalchemy import text
from tests.administered import Catalog
from tests.store.samples import ID, KEY, OTHER_ID, OTHER_SECRET, PREFIX, SECRET
from tests.store.test_feed import Running, started
from tests.waiting import eventually

from holdfast.audit.records import Effect
from holdfast.keys.model import Keystore
from holdfast.keys.states import GenerationState
from holdfast.store.errors import Unavailable
from holdfast.store.memory import Memory, MemoryFile
from holdfast.store.repairs import deviations
from holdfast.store.view import View
from holdfast.xks.types import KeyStatus


@pytest.fixture
def operator(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    """A catalog at which everything that can stand still stands still."""
    monkeypatch.setenv("HOLDFAST_SECRET_OLD", OTHER_SECRET.reveal().decode())
    catalog.create_keystore("main", PREFIX)
    catalog.issue_credential("main", (ID, SECRET))
    catalog.reference_credential("main", OTHER_ID, "env:HOLDFAST_SECRET_OLD")
    catalog.register_key("main", KEY, hsm="hsm", label="label-1")
    catalog.set_blocked("main", blocked=True)
    catalog.set_key_status("main", KEY, KeyStatus.DISABLED)
    catalog.stop_generation(1, "an unsafe IV")
    catalog.retire_credential(OTHER_ID)
    return catalog


def sql(catalog: Catalog, *statements: str) -> None:
    """What somebody with a database client does."""
    no = "FALSE" if catalog._engine.dialect.name == "postgresql" else "0"
    with catalog._writing() as connection:
        for statement in statements:
            connection.execute(text(statement.replace("FALSE", no)))


LOOSEN = (
    "UPDATE keystores SET blocked = FALSE",
    "UPDATE external_keys SET status = 'ENABLED'",
    "UPDATE key_generations SET stopped_at = NULL, stopped_reason = NULL",
    "UPDATE credentials SET retired_at = NULL",
)
OLDER = (*LOOSEN, "UPDATE catalog SET version = 2")


def stands_still(keystore: Keystore) -> bool:
    key = keystore.keys[KEY.value]
    return (
        keystore.blocked
        and key.status is KeyStatus.DISABLED
        and key.active.stopped == key.generations[1].stopped == "an unsafe IV"
        and list(keystore.credentials) == [ID.value]
    )


def main(running: Running) -> Keystore:
    return running.feed.snapshot.keystores["/main"]


def alarmed(running: Running) -> bool:
    return any(said.startswith("ALARM: the catalog is not believed") for said in running.said)


@pytest.mark.parametrize("attack", [OLDER, LOOSEN], ids=["an older version", "the same version"])
def test_a_catalog_that_goes_back_starts_nothing_again(
    operator: Catalog, open_catalog: Callable[[], Catalog], attack: tuple[str, ...]
) -> None:
    with started(open_catalog()) as running:
        assert stands_still(main(running))
        sql(operator, *attack)
        eventually(lambda: alarmed(running))
        assert stands_still(main(running))
    with started(open_catalog()) as running:  # a restart has not forgotten
        assert alarmed(running)
        assert stands_still(main(running))
        operator.set_blocked("main", blocked=False)  # nor does a later version undo it
        sql(operator, "UPDATE catalog SET version = 1000")
        eventually(lambda: running.feed.snapshot.version == 1000)
        assert stands_still(main(running))


def test_a_catalog_is_taken_back_while_no_proxy_runs(operator: Catalog, open_catalog: Callable[[], Catalog]) -> None:
    with started(open_catalog()):
        pass
    sql(operator, *OLDER)
    with started(open_catalog()) as running:
        assert alarmed(running)
        assert stands_still(main(running))


def test_every_worker_of_a_machine_doubts_and_one_acceptance_is_for_all(
    operator: Catalog, open_catalog: Callable[[], Catalog], tmp_path: Path
) -> None:
    with started(open_catalog()) as one, started(open_catalog()) as other:
        sql(operator, *OLDER)
        for running in (one, other):
            eventually(lambda: alarmed(running))  # noqa: B023 (called at once)
        eventually(lambda: not one.feed._file.changed() and one.feed._unsaved is None)
        with operator.change() as transaction:
            transaction.accept_entries(deviations(transaction)[0], all_of_them=True)
        view = View()
        operator.refresh(view)
        file = MemoryFile(tmp_path / "seen")
        file.read()
        assert file.write(Memory.of(view))
        for running in (one, other):
            eventually(lambda: not main(running).blocked)  # noqa: B023 (called at once)
            assert main(running).keys[KEY.value].status is KeyStatus.ENABLED


def test_a_block_by_hand_holds_at_once(operator: Catalog, open_catalog: Callable[[], Catalog]) -> None:
    """Somebody without the command line stops a keystore: no new version is needed."""
    operator.set_blocked("main", blocked=False)
    with started(open_catalog()) as running:
        assert not main(running).blocked
        sql(operator, "UPDATE keystores SET blocked = (1 = 1)")
        eventually(lambda: main(running).blocked)
        assert not alarmed(running)


def test_a_newer_version_is_believed(operator: Catalog, open_catalog: Callable[[], Catalog]) -> None:
    with started(open_catalog()) as running:
        operator.set_blocked("main", blocked=False)
        operator.set_key_status("main", KEY, KeyStatus.ENABLED)
        operator.release_generation(1)
        eventually(lambda: not main(running).blocked and main(running).keys[KEY.value].active.stopped is None)
        assert running.said == []


@pytest.mark.parametrize("opener", ["its own record", "a record that was too long to name it", "a new keystore"])
def test_a_keystore_that_a_recorded_change_has_opened_is_open(
    operator: Catalog, open_catalog: Callable[[], Catalog], opener: str
) -> None:
    """Also where other changes came before and after it, and the machine was not looking."""
    with started(open_catalog()):
        pass
    operator.change_keystore("main", region="eu-central-1")
    if opener == "its own record":
        operator.set_blocked("main", blocked=False)
    elif opener == "a new keystore":
        effect = Effect(subject="keystore main", after={"prefix": "/main", "region": None})
        with operator.change(effect) as transaction:
            transaction.set_blocked("main", blocked=False)
    else:
        effects = [Effect(subject=f"keystore {n:060}", after={"blocked": False}) for n in range(1000)]
        with operator.change(*effects) as transaction:
            transaction.set_blocked("main", blocked=False)
    operator.change_keystore("main", region="eu-west-1")
    with started(open_catalog()) as running:
        assert not main(running).blocked
        assert not alarmed(running)


def test_each_difference_is_told(operator: Catalog, open_catalog: Callable[[], Catalog]) -> None:
    with started(open_catalog()) as running:
        version = operator.version()
        operator.set_blocked("main", blocked=False)
        eventually(lambda: bool(running.notices))
        operator.release_generation(1)
        eventually(lambda: len(running.notices) == 2)
        operator.set_key_status("main", KEY, KeyStatus.ENABLED)
        eventually(lambda: len(running.notices) == 3)
    assert running.notices == [
        f"keystore main: blocked -> open (catalog version {version} -> {version + 1})",
        f"key main/key-1: generation 1 is released (catalog version {version + 1} -> {version + 2})",
        f"key main/key-1: DISABLED -> ENABLED (catalog version {version + 2} -> {version + 3})",
    ]


def test_a_memory_that_cannot_be_written_is_told_and_stops_nothing(
    operator: Catalog, open_catalog: Callable[[], Catalog], tmp_path: Path
) -> None:
    (tmp_path / "in the way").write_text("")
    with started(open_catalog(), state=tmp_path / "in the way" / "seen") as running:
        eventually(lambda: any("seen cannot be written" in said for said in running.said))
        operator.set_blocked("main", blocked=False)
        eventually(lambda: not main(running).blocked)
        sql(operator, "UPDATE catalog SET version = 2")
        eventually(lambda: alarmed(running))


@pytest.mark.parametrize("content", [b"", b"{}", b'{"version": "x"}', b"\xff"])
def test_a_damaged_memory_is_told_and_replaced(
    operator: Catalog, open_catalog: Callable[[], Catalog], tmp_path: Path, content: bytes
) -> None:
    del operator
    (tmp_path / "seen").write_bytes(content)
    with started(open_catalog()) as running:
        assert any("seen is damaged" in said for said in running.said)
        eventually(lambda: running.feed._unsaved is None)
    assert MemoryFile(tmp_path / "seen").read() is not None


def test_two_writers_do_not_overwrite_what_they_have_not_read(tmp_path: Path) -> None:
    memory = Memory(1, None, frozenset(), frozenset(), {}, frozenset())
    one, other = MemoryFile(tmp_path / "seen"), MemoryFile(tmp_path / "seen")
    assert one.read() is other.read() is None
    assert one.write(memory)
    assert not other.write(memory)
    other.read()
    assert other.write(memory)


def test_what_waits_to_be_written_does_not_undo_an_acceptance(
    operator: Catalog, open_catalog: Callable[[], Catalog], tmp_path: Path
) -> None:
    """A worker that could not write its doubt drops it when a person has accepted the catalog."""
    with started(open_catalog()) as running:
        eventually(lambda: running.feed._unsaved is None)
        view = View()
        operator.refresh(view)
        accepted = Memory.of(view)
        doubting = accepted.with_stricter(accepted, "of a test")
        for thread in running.feed.threads:
            running.feed._stopping.set()
            thread.join()
        running.feed._memory = running.feed._unsaved = doubting
        file = MemoryFile(tmp_path / "seen")
        file.read()
        assert file.write(accepted)
        running.feed._hear_of_others()
        running.feed._save_memory()
        assert file.read() == accepted


def test_a_memory_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "seen").mkdir()
    with pytest.raises(Unavailable, match="seen cannot be read: Is a directory"):
        MemoryFile(tmp_path / "seen").read()


@pytest.mark.parametrize("older", [True, False], ids=["set back", "deleted"])
def test_a_memory_that_was_set_back_or_deleted_is_written_again(
    operator: Catalog, open_catalog: Callable[[], Catalog], tmp_path: Path, *, older: bool
) -> None:
    file = tmp_path / "seen"
    with started(open_catalog()):
        pass
    before = file.read_bytes()
    operator.set_key_status("main", KEY, KeyStatus.DISABLED)
    with started(open_catalog()) as running:
        version = running.feed.snapshot.version
        eventually(lambda: running.feed._unsaved is None)
        if older:
            file.write_bytes(before)
        else:
            file.unlink()
        eventually(lambda: file.exists() and remembered(file) == version)


def remembered(file: Path) -> int:
    memory = MemoryFile(file).read()
    assert memory is not None
    return memory.version


def test_a_memory_that_turns_unreadable_again_and_again_delays_no_block(
    operator: Catalog, open_catalog: Callable[[], Catalog], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator.set_blocked("main", blocked=False)
    with started(open_catalog()) as running:
        eventually(lambda: running.feed._unsaved is None)
        (tmp_path / "seen").write_bytes(b"damaged")
        monkeypatch.setattr(MemoryFile, "changed", lambda _: True)
        operator.set_blocked("main", blocked=True)
        eventually(lambda: main(running).blocked)
        eventually(lambda: any("seen is damaged" in said for said in running.said))


def test_a_lock_that_another_process_keeps_is_not_waited_for(tmp_path: Path) -> None:
    memory = Memory(1, None, frozenset(), frozenset(), {}, frozenset())
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        assert not MemoryFile(tmp_path / "seen").write(memory)
    finally:
        os.close(descriptor)
    assert MemoryFile(tmp_path / "seen").write(memory)


def test_a_generation_that_was_taken_out_of_use_stays_so_in_an_older_catalog(operator: Catalog) -> None:
    keystores = {1: operator.snapshot().keystores["/main"]}
    empty = Memory(1, None, frozenset(), frozenset(), {}, frozenset())
    memory = structs.replace(empty, withheld={f"main/{KEY}/1": "suspended", f"main/{KEY}/9": "destroyed"})
    assert memory.looser(empty) == [
        f"key main/{KEY}/1: suspended -> in use",
        f"key main/{KEY}/9: destroyed -> in use",
    ]
    assert memory.with_stricter(empty, "doubt").withheld == memory.withheld
    (kept,) = memory.applied_to(keystores).values()
    key = kept.keys[KEY.value]
    assert key.generations[1].state is key.active.state is GenerationState.SUSPENDED
