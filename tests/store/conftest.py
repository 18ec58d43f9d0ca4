import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.administered import Catalog
from tests.store.postgresql import Cluster, NoPostgresql, cluster


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    """One cluster for the session; each test has a database of its own."""
    try:
        with cluster() as running:
            yield running
    except NoPostgresql as reason:
        pytest.skip(f"no PostgreSQL here: {reason}")


POSTGRESQL = pytest.param("postgresql", marks=pytest.mark.programs)


@pytest.fixture(params=["sqlite", POSTGRESQL])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database that is not there yet (SQLite) or empty (PostgreSQL)."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/catalog.db"
        return
    running: Cluster = request.getfixturevalue("postgresql")
    with running.lent() as url:
        yield url


@pytest.fixture
def open_catalog(url: str, tmp_path: Path) -> Iterator[Callable[[], Catalog]]:
    """Opens the catalog of this test once more, as another process would."""
    opened: list[Catalog] = []

    def open_one() -> Catalog:
        opened.append(Catalog.open(url, tmp_path / "secrets", now=now))
        return opened[-1]

    yield open_one
    for catalog in opened:
        catalog.close()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an empty SQLite catalog, migrated once."""
    file = tmp_path_factory.mktemp("template") / "catalog.db"
    Catalog.create_or_upgrade(f"sqlite:///{file}", file.parent, now=now).close()
    return file


@pytest.fixture
def catalog(url: str, tmp_path: Path, template: Path) -> Iterator[Catalog]:
    """An empty catalog, on SQLite and on PostgreSQL."""
    if url.startswith("sqlite"):
        shutil.copy(template, tmp_path / "catalog.db")
    with closing(Catalog.create_or_upgrade(url, tmp_path / "secrets", now=now)) as made:
        yield made
