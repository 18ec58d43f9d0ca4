import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event

import pytest
from sqlalchemy import delete, update
from tests.administered import Catalog
from tests.store.conftest import now
from tests.store.postgresql import NoPostgresql, cluster
from tests.store.samples import ID, KEY, OTHER_ID, OTHER_KEY, OTHER_SECRET, PREFIX, SECRET
from tests.waiting import PATIENCE, eventually

from holdfast.config.storage import EncryptionLimits
from holdfast.keys.budget import FIRST_BLOCK, EncryptionBudget
from holdfast.keys.model import ExternalKey
from holdfast.store import feed as feed_module
from holdfast.store import schema
from holdfast.store.errors import Unavailable
from holdfast.store.feed import CatalogFeed
from holdfast.store.memory import MemoryFile
from holdfast.store.nodes import Node, NodeReporter
from holdfast.xks.types import KeyStatus, UriPathPrefix

LIMITS = EncryptionLimits(2**30, 2**31, 2**32)


class Running:
    """A feed, its budget and what it said."""

    def __init__(
        self,
        catalog: Catalog,
        *,
        state: Path | None = None,
        stale_limit: float = 300.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.said: list[str] = []
        self.notices: list[str] = []
        self.budget = EncryptionBudget(catalog, LIMITS, monotonic=monotonic, on_warning=self.said.append)
        self.feed = CatalogFeed(
            catalog,
            self.budget,
            node=NodeReporter(
                catalog,
                Node("proxy-1", site=None, workers=1, lease=stale_limit),
                place=0,
                run="run",
                hsms=dict,
                holds_back=lambda: None,
            ),
            stale_limit=stale_limit,
            state=MemoryFile(state or catalog._secrets._directory.parent / "seen"),
            monotonic=monotonic,
            on_warning=self.said.append,
            on_notice=self.notices.append,
        )

    def key(self, prefix: str = "/main") -> ExternalKey:
        """The key `KEY` of a keystore."""
        return self.feed.snapshot.keystores[prefix].keys[KEY.value]

    def encrypt(self, key: ExternalKey | None = None) -> None:
        """Take one encryption, as a request with a minute left does."""
        current = (key or self.key()).active
        asyncio.run(self.budget.take(current, deadline=time.monotonic() + 60))


@contextmanager
def started(catalog: Catalog, *, state: Path | None = None, stale_limit: float = 300.0) -> Iterator[Running]:
    running = Running(catalog, state=state, stale_limit=stale_limit)
    running.feed.start()
    try:
        yield running
    finally:
        running.feed.stop()


@pytest.fixture
def operator(catalog: Catalog) -> Catalog:
    """The operator's own connection, to a catalog with a keystore, a credential and a key."""
    catalog.create_keystore("main", PREFIX)
    catalog.issue_credential("main", (ID, SECRET))
    catalog.register_key("main", KEY, hsm="hsm", label="label-1")
    return catalog


@pytest.fixture
def workers(operator: Catalog, open_catalog: Callable[[], Catalog]) -> Callable[[], Catalog]:
    """A worker's connection to the operator's catalog."""
    del operator
    return open_catalog


def test_a_started_feed_has_a_snapshot_and_can_count(workers: Callable[[], Catalog]) -> None:
    with started(workers()) as running:
        assert running.budget.counts() == {}
        running.encrypt()
        assert running.budget.counts() == {running.key().active.id: FIRST_BLOCK}
        assert running.said == []


def test_a_look_that_a_request_asks_for_does_not_wait_for_its_turn(
    operator: Catalog, workers: Callable[[], Catalog], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "POLL", 3600.0)
    with started(workers()) as running:
        operator.set_blocked("main", blocked=True)

        async def three_at_once() -> list[bool]:
            return await asyncio.gather(*[running.feed.look_again(time.monotonic() + 10) for _ in range(3)])

        assert asyncio.run(three_at_once()) == [True] * 3
        assert running.feed.snapshot.keystores["/main"].blocked


def test_a_look_that_comes_too_late_is_told(workers: Callable[[], Catalog]) -> None:
    with started(workers()) as running:
        assert not asyncio.run(running.feed.look_again(time.monotonic() - 1))


def test_a_block_is_seen(operator: Catalog, workers: Callable[[], Catalog]) -> None:
    with started(workers()) as running:
        operator.set_blocked("main", blocked=True)
        eventually(lambda: running.feed.snapshot.keystores["/main"].blocked)
        operator.set_key_status("main", KEY, KeyStatus.DISABLED)
        eventually(lambda: running.key().status is KeyStatus.DISABLED)


def test_a_block_for_a_time_keeps_its_end_unless_the_catalog_is_silent_for_too_long(
    operator: Catalog, workers: Callable[[], Catalog]
) -> None:
    end = now() + timedelta(hours=1)
    operator.set_blocked("main", blocked=True, until=end)
    with started(workers()) as running:
        keystore = running.feed.snapshot.keystores["/main"]
        assert (keystore.at(now()).blocked, keystore.at(end).blocked) == (True, False)
        assert running.feed._blocked.keystores["/main"].at(end).blocked


@pytest.mark.parametrize("version", [2**63 - 1, 0])
def test_a_block_is_seen_though_the_version_is_wrong(
    operator: Catalog, workers: Callable[[], Catalog], version: int
) -> None:
    with started(workers()) as running:
        with operator._writing() as connection:
            connection.execute(update(schema.catalog).values(version=version))
        operator.set_blocked("main", blocked=True)
        eventually(lambda: running.feed.snapshot.keystores["/main"].blocked)
        eventually(lambda: any("the catalog's own row is missing or wrong" in said for said in running.said))


@pytest.mark.parametrize("later", [None, timedelta(hours=3)])
def test_a_longer_block_than_the_one_before_is_seen_though_the_version_is_wrong(
    operator: Catalog, workers: Callable[[], Catalog], later: timedelta | None
) -> None:
    end = now() + timedelta(hours=1)
    operator.set_blocked("main", blocked=True, until=end)
    with started(workers()) as running:
        with operator._writing() as connection:
            connection.execute(update(schema.catalog).values(version=0))
            until = None if later is None else now() + later
            connection.execute(update(schema.keystores).values(blocked=True, blocked_until=until))
        eventually(lambda: running.feed.snapshot.keystores["/main"].at(end).blocked)
        with operator._writing() as connection:
            connection.execute(update(schema.keystores).values(blocked=True, blocked_until=end))
        eventually(lambda: not running.feed.snapshot.keystores["/main"].at(end).blocked)


def test_a_keystore_whose_row_was_deleted_by_hand_is_blocked(
    operator: Catalog, workers: Callable[[], Catalog]
) -> None:
    operator.create_keystore("empty", UriPathPrefix("/empty"))
    with started(workers()) as running:
        with operator._writing() as connection:
            connection.execute(delete(schema.keystores).where(schema.keystores.c.name == "empty"))
        eventually(lambda: running.feed.snapshot.keystores["/empty"].blocked)
        assert not running.feed.snapshot.keystores["/main"].blocked


def test_a_new_key_can_encrypt_as_soon_as_it_is_seen(operator: Catalog, workers: Callable[[], Catalog]) -> None:
    with started(workers()) as running:
        operator.register_key("main", OTHER_KEY, hsm="hsm", label="label-2")
        eventually(lambda: OTHER_KEY.value in running.feed.snapshot.keystores["/main"].keys)
        running.encrypt(running.feed.snapshot.keystores["/main"].keys[OTHER_KEY.value])


def test_a_stop_in_order_gives_back_what_was_not_made(operator: Catalog, workers: Callable[[], Catalog]) -> None:
    for made in (1, 2, 3):
        with started(workers()) as running:
            running.encrypt()
        assert operator.encryption_totals() == {1: made}


def test_a_busy_key_is_refilled_before_the_next_poll(
    workers: Callable[[], Catalog], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "_WRITE", 60.0)
    with started(workers()) as running:
        running.encrypt()
        for _ in range(4 * FIRST_BLOCK):
            if not running.budget.take_reserved(running.key().active):
                running.encrypt()
        assert running.budget.counts()[running.key().active.id] >= 4 * FIRST_BLOCK
        assert running.said == []


def test_stopping_writes_the_last_use(operator: Catalog, workers: Callable[[], Catalog]) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    with started(workers()) as running:
        eventually(lambda: running.feed._flush_at > 0)
        running.feed.used(ID.value, at)
    assert [row.last_used_at for row in operator.credentials("main")] == [at]


def test_uses_are_written_while_serving(
    operator: Catalog, workers: Callable[[], Catalog], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "_FLUSH", 0.0)
    with started(workers()) as running:
        version = operator.version()
        running.feed.used(ID.value, now())
        eventually(lambda: operator.credentials("main")[0].last_used_at is not None)
        assert operator.version() == version


def test_proxies_count_each_other(
    operator: Catalog, workers: Callable[[], Catalog], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "_HEARTBEAT", 0.0)
    with started(workers()) as running:
        operator.heartbeat("proxy-2")
        eventually(lambda: running.feed.snapshot.fleet_size == 2)


def test_a_secret_that_comes_back_serves_again(
    operator: Catalog, workers: Callable[[], Catalog], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "_RETRY_SECRETS", 0.0)
    operator.issue_credential("main", (OTHER_ID, OTHER_SECRET))
    file = tmp_path / "secrets" / ID.value
    content = file.read_bytes()
    file.unlink()
    with started(workers()) as running:
        assert list(running.feed.snapshot.keystores["/main"].credentials) == [OTHER_ID.value]
        assert [ID.value in text for text in running.said] == [True]
        file.write_bytes(content)
        eventually(lambda: len(running.feed.snapshot.keystores["/main"].credentials) == 2)


def test_a_mistake_of_ours_does_not_end_the_thread(
    operator: Catalog, workers: Callable[[], Catalog], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = workers()
    with started(worker) as running:
        monkeypatch.setattr(worker, "states", lambda: 1 // 0)
        eventually(lambda: bool(running.said), within=2)
        assert "the catalog's feed failed, ZeroDivisionError" in running.said[0]
        monkeypatch.undo()
        operator.set_blocked("main", blocked=True)
        eventually(lambda: running.feed.snapshot.keystores["/main"].blocked, within=2)


def test_a_feed_that_cannot_start_says_so(tmp_path: Path) -> None:
    running = Running(Catalog.create_or_upgrade(f"sqlite:///{tmp_path}/gone.db", tmp_path, now=now))
    (tmp_path / "gone.db").unlink()
    with pytest.raises(Unavailable, match="there is no catalog at"):
        running.feed.start()
    running.feed.stop()
    assert "there is no catalog at" not in "".join(running.said)  # nothing was used, so nothing was lost


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
class TestOutage:
    """The file of an SQLite catalog is moved away and comes back."""

    def test_the_last_snapshot_serves_then_everything_is_blocked_then_all_is_well(
        self, operator: Catalog, workers: Callable[[], Catalog], tmp_path: Path
    ) -> None:
        """The file is away for longer than `stale_limit`, and comes back."""
        operator.create_keystore("other", UriPathPrefix(""))
        file = tmp_path / "catalog.db"
        with started(workers(), stale_limit=1.5) as running:
            running.encrypt()
            file.rename(tmp_path / "away")
            eventually(lambda: bool(running.said), within=2)
            eventually(
                lambda: any("catalog.db: run" in text and "last read" in text for text in running.said), within=2
            )
            assert not running.feed.snapshot.keystores["/main"].blocked
            running.encrypt()
            eventually(lambda: running.feed.snapshot.keystores["/main"].blocked, within=3)
            assert running.feed.snapshot.keystores[""].blocked
            assert running.feed.stale_for() > 1.5
            eventually(lambda: any("ALARM" in text for text in running.said), within=2)
            (tmp_path / "away").rename(file)
            eventually(lambda: not running.feed.snapshot.keystores["/main"].blocked, within=2)
            eventually(lambda: any("answers again" in text for text in running.notices), within=2)

    def test_a_file_that_is_replaced_under_a_running_proxy_is_told(
        self, operator: Catalog, workers: Callable[[], Catalog], tmp_path: Path
    ) -> None:
        """A backup put in the file's place is another file: an open connection would never see it."""
        del operator
        (tmp_path / "backup.db").write_bytes((tmp_path / "catalog.db").read_bytes())
        with started(workers()) as running:
            (tmp_path / "backup.db").rename(tmp_path / "catalog.db")
            eventually(lambda: any("was replaced while it was in use" in text for text in running.said), within=2)

    def test_a_block_passes_though_nothing_can_be_reserved(
        self, operator: Catalog, workers: Callable[[], Catalog], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A disk that is full for the worker must not hold up an operator's block."""
        worker = workers()
        with started(worker) as running:

            def hang(_: object) -> dict[int, int]:
                assert hanging.wait(PATIENCE)
                raise Unavailable("disk full")

            hanging = Event()
            monkeypatch.setattr(worker, "reserve", hang)
            running.budget.take_reserved(running.key().active)
            operator.set_blocked("main", blocked=True)
            eventually(lambda: running.feed.snapshot.keystores["/main"].blocked, within=2)
            monkeypatch.undo()
            hanging.set()
            eventually(lambda: bool(running.budget.counts()), within=5)
            eventually(lambda: running.budget._accounts[1].granted > 0, within=5)
            running.encrypt()


@pytest.mark.programs
def test_a_postgresql_that_restarts_is_found_again(tmp_path: Path) -> None:
    try:
        with cluster() as own:
            url = own.database()
            with closing(Catalog.create_or_upgrade(url, tmp_path, now=now)) as operator:
                operator.create_keystore("main", PREFIX)
                with started(Catalog.open(url, tmp_path, now=now)) as running:
                    own.stop()
                    eventually(lambda: bool(running.said), within=5)
                    assert not running.feed.snapshot.keystores["/main"].blocked
                    own.start()
                    operator.set_blocked("main", blocked=True)
                    eventually(lambda: running.feed.snapshot.keystores["/main"].blocked, within=5)
    except NoPostgresql as reason:
        pytest.skip(f"no PostgreSQL here: {reason}")
