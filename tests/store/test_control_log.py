"""From the catalog's records into the control log: each change once, whatever dies between the two."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from tests.administered import Catalog
from tests.audit.logs import LOG

from holdfast.audit.records import Change, decode
from holdfast.audit.search import SignedLog
from holdfast.audit.verify import verify_log
from holdfast.store import control_log
from holdfast.store.control_log import UNREADABLE, ControlLog
from holdfast.store.database import engine_of
from holdfast.store.errors import CatalogError
from holdfast.store.log_directory import LogDirectory, directory_reader
from holdfast.xks.types import UriPathPrefix

Open = Callable[[], Catalog]


class Crash(BaseException):
    """The process ends here."""


def make_changes(catalog: Catalog, count: int, *, first: int = 1) -> None:
    """A keystore each."""
    for number in range(first, first + count):
        catalog.create_keystore(f"store-{number}", UriPathPrefix.parse(f"/store-{number}"))


def by_hand(url: str, statement: str) -> None:
    """As a database administrator."""
    engine = engine_of(url)
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def pump(directory: Path, catalog: Catalog) -> int:
    with LogDirectory(directory, [(LOG.key, LOG.sign)]) as log:
        new = ControlLog(log, catalog).pump()
        log.checkpoint()
    return new


def changes(directory: Path) -> list[Change]:
    """What an auditor finds: the log must verify."""
    verify_log(directory_reader(directory), [LOG.key])
    with LogDirectory(directory, [(LOG.key, LOG.sign)]) as log:
        found = [decode(entry) for entry in log.entries()]
    return [record for record in found if isinstance(record, Change)]


def test_each_change_is_one_leaf_in_the_order_of_the_changes(catalog: Catalog, tmp_path: Path) -> None:
    make_changes(catalog, 3)
    assert (pump(tmp_path / "log", catalog), pump(tmp_path / "log", catalog)) == (3, 0)
    make_changes(catalog, control_log.BATCH + 2, first=4)
    assert pump(tmp_path / "log", catalog) == control_log.BATCH + 2
    found = changes(tmp_path / "log")
    recorded = catalog.changes()
    assert [change.id for change in found] == [row.id for row in recorded]
    assert all(row.logged is not None for row in recorded)
    assert list(SignedLog(directory_reader(tmp_path / "log")).find(recorded[1].id)) == [(1, None)]


@pytest.mark.parametrize("step", ["append", "mark_logged"])
@pytest.mark.parametrize("after", [False, True])
def test_a_crash_between_log_and_catalog_loses_and_repeats_nothing(  # noqa: PLR0913 (fixtures)
    catalog: Catalog, open_catalog: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, *, after: bool
) -> None:
    make_changes(catalog, 3)
    owner: Any = LogDirectory if step == "append" else Catalog
    real = getattr(owner, step)

    def crash(*arguments: Any) -> None:
        if after:
            real(*arguments)
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, crash)
        with pytest.raises(Crash):
            pump(tmp_path / "log", catalog)
    make_changes(catalog, 2, first=4)
    pump(tmp_path / "log", open_catalog())
    assert [change.id for change in changes(tmp_path / "log")] == [row.id for row in catalog.changes()]


def test_a_catalog_from_a_backup_repeats_nothing(catalog: Catalog, url: str, tmp_path: Path) -> None:
    """Rows that count as unlogged again are older than the last entries: the search goes as far back as they are."""
    make_changes(catalog, 2 * control_log.BATCH)
    pump(tmp_path / "log", catalog)
    by_hand(url, "UPDATE changes SET logged = NULL")
    assert pump(tmp_path / "log", catalog) == 0
    assert len(changes(tmp_path / "log")) == 2 * control_log.BATCH


def test_a_record_that_was_changed_by_hand_is_logged_as_unreadable_and_stops_nothing(
    catalog: Catalog, url: str, tmp_path: Path
) -> None:
    make_changes(catalog, 3)
    by_hand(url, "UPDATE changes SET record = '{}' WHERE number = 2")
    assert (pump(tmp_path / "log", catalog), pump(tmp_path / "log", catalog)) == (3, 0)
    assert [change.outcome for change in changes(tmp_path / "log")] == ["applied", UNREADABLE, "applied"]


def test_a_catalog_that_is_away_costs_nothing(catalog: Catalog, url: str, tmp_path: Path) -> None:
    make_changes(catalog, 1)
    by_hand(url, "ALTER TABLE changes RENAME TO elsewhere")
    with pytest.raises(CatalogError):
        pump(tmp_path / "log", catalog)
    by_hand(url, "ALTER TABLE elsewhere RENAME TO changes")
    assert pump(tmp_path / "log", catalog) == 1
