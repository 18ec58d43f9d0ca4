"""The local stop's file, and its record in the catalog."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.administered import Catalog

from holdfast.store.local_stop import SIZE, Stop, StopFile, TooLong
from holdfast.xks.types import UriPathPrefix

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
ALL = Stop(id="00112233", time=NOW, actor="alice", reason="drill")
ALPHA = Stop(id="44556677", time=NOW, actor="alice", keystores=("alpha",))


@pytest.fixture
def file(tmp_path: Path) -> StopFile:
    made = StopFile(tmp_path / "catalog.db.stop")
    made.prepare()
    return made


@pytest.mark.parametrize("stop", [ALL, ALPHA])
def test_what_is_stopped_is_read_back_until_it_is_lifted(file: StopFile, stop: Stop) -> None:
    assert file.read() is None
    file.write(stop)
    assert file.read() == stop
    file.prepare()  # as a restart does
    assert file.read() == stop
    file.write(None)
    assert file.read() is None


def test_a_stop_and_a_lift_need_no_new_space_and_no_new_name(file: StopFile) -> None:
    before = file.path.stat()
    for written in (ALL, None):
        file.write(written)
        after = file.path.stat()
        assert (after.st_ino, after.st_size, after.st_blocks) == (before.st_ino, SIZE, before.st_blocks)
    assert list(file.path.parent.iterdir()) == [file.path]


@pytest.mark.parametrize("content", [b"x", b" " * (SIZE - 1), b"", b"{}".ljust(SIZE), b"\xff" * SIZE])
def test_a_file_that_was_damaged_stops_everything(file: StopFile, content: bytes) -> None:
    file.path.write_bytes(content)
    found = file.read()
    assert found is not None
    assert (found.covers("any"), found.id) == (True, "")


def test_more_keystores_than_fit_are_refused_and_change_nothing(file: StopFile) -> None:
    file.write(ALPHA)
    with pytest.raises(TooLong):
        file.write(Stop(id="1", time=NOW, actor="a", keystores=tuple(f"keystore-{number}" for number in range(500))))
    assert file.read() == ALPHA


def test_a_file_that_is_a_link_is_not_followed(file: StopFile, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    file.path.unlink()
    file.path.symlink_to(target)
    with pytest.raises(OSError, match="symbolic link"):
        file.write(ALL)
    assert target.read_bytes() == b"precious"


def blocked(catalog: Catalog) -> set[str]:
    return {row.name for row in catalog.keystores() if row.blocked}


def test_a_stop_is_recorded_as_a_block_once(catalog: Catalog) -> None:
    for name in ("alpha", "beta"):
        catalog.create_keystore(name, UriPathPrefix.parse(f"/{name}"))
    assert catalog.record_local_stop(ALPHA, node="madrid-1") == ["alpha"]
    assert blocked(catalog) == {"alpha"}
    change = catalog.changes(beginning=ALPHA.id)[0].change
    assert change is not None
    assert (change.actor.name, change.actor.known_by, change.actor.where) == ("alice", "node", "madrid-1")
    catalog.set_blocked("alpha", blocked=False)
    version = catalog.version()
    assert catalog.record_local_stop(ALPHA, node="madrid-1") == []  # a person has unblocked it since
    assert (blocked(catalog), catalog.version()) == (set(), version)
    assert catalog.record_local_stop(ALL, node="madrid-1") == ["alpha", "beta"]


def test_a_damaged_file_blocks_nothing_for_the_others(catalog: Catalog, file: StopFile) -> None:
    catalog.create_keystore("alpha", UriPathPrefix.parse("/alpha"))
    file.path.write_bytes(b"x")
    found = file.read()
    assert found is not None
    assert catalog.record_local_stop(found, node="madrid-1") == []
    assert blocked(catalog) == set()
