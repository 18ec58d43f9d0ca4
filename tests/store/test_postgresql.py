"""PostgreSQL as a place of trust: whom it is reached through, what is durable, and who may do what."""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import event, make_url
from tests.administered import Catalog
from tests.store.conftest import now
from tests.store.postgresql import POSTGRESQL, Cluster
from tests.store.samples import ID, KEY, OTHER_ID, OTHER_KEY, OTHER_SECRET, PREFIX, SECRET
from tests.store.test_feed import started
from tests.waiting import eventually

from holdfast.cli.failure import report
from holdfast.store.database import engine_of
from holdfast.store.errors import CatalogError, Refused, Unavailable
from holdfast.store.local_stop import Stop
from holdfast.store.usage import Used, usage_of
from holdfast.xks.types import KeyStatus, UriPathPrefix

ROLES = Path(__file__).parents[2] / "packaging" / "postgresql-roles.sql"
HERE = [
    "localhost/x",
    "127.0.0.1/x",
    "[::1]/x",
    "/x",
    "/x?host=/run/postgresql",
    "/x?host=localhost:1",
    "u@/x?host=@a",
]
ELSEWHERE = [
    "db.example.com/x",
    "192.0.2.7/x",
    "/x?host=db.example.com",
    "/x?host=/run/postgresql,db.example.com",
    "/x?host=localhost:1&host=db:2",
    "localhost/x?hostaddr=192.0.2.7",
    "/x?service=catalog",
]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGSSLMODE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("place", HERE)
def test_a_server_of_this_machine_needs_no_certificate(place: str) -> None:
    engine_of(f"postgresql://{place}").dispose()


@pytest.mark.parametrize("place", ELSEWHERE)
def test_a_server_elsewhere_must_prove_who_it_is(place: str) -> None:
    joined = "&" if "?" in place else "?"
    for mode in ("", f"{joined}sslmode=require", f"{joined}sslmode=verify-ca"):
        with pytest.raises(Refused, match="sslmode=verify-full"):
            engine_of(f"postgresql://{place}{mode}")
    engine_of(f"postgresql://{place}{joined}sslmode=verify-full").dispose()


def test_the_environment_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "db.example.com")
    with pytest.raises(Refused):
        engine_of("postgresql:///x")
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    engine_of("postgresql:///x").dispose()


def test_an_error_shows_the_url_as_it_was_written(tmp_path: Path) -> None:
    url = f"postgresql://u@/x?host=/nowhere&passfile={tmp_path}/pass"
    with pytest.raises(Unavailable) as caught:
        Catalog.open(url, tmp_path, now=now)
    assert f"the catalog {url} does not answer" in str(caught.value)


@pytest.mark.parametrize("url", [POSTGRESQL], indirect=True)
@pytest.mark.parametrize("wrong", ["user", "database"])
def test_a_server_that_lets_nobody_in_is_not_called_silent(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    known = make_url(url)
    query = {**known.query, "user": "stranger"} if wrong == "user" else known.query
    other = known.set(query=query, database="nowhere" if wrong == "database" else known.database)
    with pytest.raises(Unavailable, match=r"refuses the connection: .*FATAL") as caught:
        Catalog.open(other.render_as_string(hide_password=False), tmp_path, now=now)
    assert "does not answer" not in str(caught.value)
    report(caught.value)
    assert {"user": "the service's user", "database": "correct its name"}[wrong] in capsys.readouterr().err


@pytest.mark.parametrize("url", [POSTGRESQL], indirect=True)
def test_a_change_waits_for_the_disk_and_the_standby(catalog: Catalog) -> None:
    modes: list[str] = []

    def note(connection: psycopg.Connection[tuple[str]]) -> None:
        modes.extend(row[0] for row in connection.connection.execute("SHOW synchronous_commit"))  # type: ignore[attr-defined] # SQLAlchemy's

    event.listen(catalog._engine, "commit", note)
    catalog.create_keystore("main", PREFIX)
    catalog.heartbeat("proxy")
    event.remove(catalog._engine, "commit", note)
    assert modes == ["remote_apply", "on"]


@pytest.fixture
def roles(postgresql: Cluster, tmp_path: Path) -> Iterator[Callable[[str], Catalog]]:
    """Opens one catalog as the role that is named; its tables are made and the shipped script was run, twice."""
    url = postgresql.database()
    Catalog.create_or_upgrade(url, tmp_path / "secrets", now=now).close()
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(2):
            connection.execute(ROLES.read_text())
    opened: list[Catalog] = []

    def open_as(role: str) -> Catalog:
        opened.append(Catalog.open(url.replace("//holdfast@", f"//{role}@"), tmp_path / "secrets", now=now))
        return opened[-1]

    yield open_as
    for catalog in opened:
        catalog.close()


@pytest.fixture
def admin(roles: Callable[[str], Catalog]) -> Catalog:
    """The administrator's connection, to a catalog with a keystore, a credential and a key."""
    catalog = roles("holdfast_admin")
    catalog.create_keystore("main", PREFIX)
    catalog.issue_credential("main", (ID, SECRET))
    catalog.register_key("main", KEY, hsm="hsm", label="label-1")
    return catalog


@pytest.mark.programs
def test_the_service_can_serve(admin: Catalog, roles: Callable[[str], Catalog]) -> None:
    service = roles("holdfast_run")
    service.report_generation(1, proxy_id="proxy", worker=0, looks=1, fault=None)
    a_use = Used("main", KEY.value, 1, "arn", "decrypt", 20_000, "principal", None, 1, 1.0, 1.0)
    assert service.record_usage([a_use] * 2, lost=1) == []
    service.forget_usage_days()
    with started(service) as running:
        running.encrypt()
        running.feed.used(ID.value, now())
        assert service.record_canary(1, b"canary")
        assert service.record_token_serial(1, "0042")
        assert service.stop_generation(1, "an unsafe IV")
        eventually(lambda: running.key().active.stopped is not None)
        admin.set_blocked("main", blocked=True)
        eventually(lambda: running.feed.snapshot.keystores["/main"].blocked)
        assert running.said == []
    assert admin.encryption_totals() == {1: 1}
    assert admin.credentials("main")[0].last_used_at is not None
    with admin.reading() as state:
        assert [one.total.decrypts for one in usage_of(state)] == [2]


ADMINISTRATION: list[Callable[[Catalog], object]] = [
    lambda catalog: catalog.set_blocked("main", blocked=False),
    lambda catalog: catalog.create_keystore("other", UriPathPrefix("/other")),
    lambda catalog: catalog.change_keystore("main", region="eu-central-1"),
    lambda catalog: catalog.remove_keystore("empty"),
    lambda catalog: catalog.issue_credential("main", (OTHER_ID, OTHER_SECRET)),
    lambda catalog: catalog.retire_credential(ID),
    lambda catalog: catalog.register_key("main", OTHER_KEY, hsm="hsm", label="label-2"),
    lambda catalog: catalog.set_key_status("main", KEY, KeyStatus.ENABLED),
    lambda catalog: catalog.rebind_generation(1, label="stolen", cka_id=None),
    lambda catalog: catalog.release_generation(1),
    lambda catalog: catalog.replace_canary(1, b"another"),
]


@pytest.mark.programs
def test_the_service_cannot_administer(admin: Catalog, roles: Callable[[str], Catalog]) -> None:
    admin.create_keystore("empty", UriPathPrefix("/empty"))
    admin.set_blocked("main", blocked=True)
    admin.set_key_status("main", KEY, KeyStatus.DISABLED)
    admin.stop_generation(1, "an unsafe IV")
    admin.record_canary(1, b"canary")
    before = admin.snapshot()
    service = roles("holdfast_run")
    for change in ADMINISTRATION:
        with pytest.raises(CatalogError, match=r"permission denied|only holdfast_admin"):
            change(service)
    assert admin.snapshot() == before
    for change in ADMINISTRATION:
        change(admin)


@pytest.mark.programs
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE catalog SET version = 9223372036854775807",
        "UPDATE catalog SET version = version - 1",
        "UPDATE catalog SET removed = 5",
        "UPDATE key_generations SET changed = 0",
        "UPDATE keystores SET blocked = false",
        "UPDATE keystores SET blocked = true, blocked_until = now()",
        "UPDATE keystores SET blocked = true, changed = 0",
        "UPDATE keystores SET name = 'another'",
        "UPDATE key_generations SET label = 'another'",
        "UPDATE key_generations SET encryptions_reserved = -1",
        "INSERT INTO key_generations SELECT * FROM key_generations",
        "DELETE FROM key_generations",
        "DELETE FROM catalog",
        "ALTER TABLE catalog DISABLE TRIGGER ALL",
        "SET session_replication_role = replica",
        "SET ROLE holdfast_admin",
        "CREATE TABLE public.keystores2 (id int)",
        "CREATE OR REPLACE FUNCTION holdfast_keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    ],
)
def test_the_service_cannot_do_by_hand_what_ends_further_changes(
    admin: Catalog, roles: Callable[[str], Catalog], statement: str
) -> None:
    before = admin.snapshot()
    with pytest.raises(CatalogError), roles("holdfast_run")._writing() as connection:
        connection.exec_driver_sql(statement)
    assert admin.snapshot() == before
    admin.set_blocked("main", blocked=True)
    assert admin.snapshot().keystores["/main"].blocked


@pytest.mark.programs
def test_the_service_blocks_what_was_stopped_on_its_node_without_an_end(
    admin: Catalog, roles: Callable[[str], Catalog]
) -> None:
    admin.set_blocked("main", blocked=True, until=now() + timedelta(hours=1))
    stop = Stop(id="00112233", time=now(), actor="alice")
    assert roles("holdfast_run").record_local_stop(stop, node="node") == ["main"]
    assert [(row.blocked, row.blocked_until) for row in admin.keystores()] == [(True, None)]


@pytest.mark.programs
def test_the_administrator_upgrades_the_tables(
    admin: Catalog, roles: Callable[[str], Catalog], tmp_path: Path
) -> None:
    url = str(roles("holdfast_admin")._engine.url).replace("+psycopg", "")
    with closing(Catalog.create_or_upgrade(url, tmp_path / "secrets", now=now)) as catalog:
        assert catalog.version() == admin.version()
