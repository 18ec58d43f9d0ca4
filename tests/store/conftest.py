import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.administered import Catalog


def now() -> datetime:
    return datetime.now(UTC)


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
