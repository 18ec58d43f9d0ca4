"""What holds for every test."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from tests.store.postgresql import POSTGRESQL, Cluster, NoPostgresql, cluster

# How long an example takes depends on what else the machine does; pytest's own timeout ends one that hangs.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")
# Where it is set, a program that forgets to flush what others wait for would pass.
os.environ.pop("PYTHONUNBUFFERED", None)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    """One cluster for the session; each test has a database of its own."""
    try:
        with cluster() as running:
            yield running
    except NoPostgresql as reason:
        pytest.skip(f"no PostgreSQL here: {reason}")


@pytest.fixture(params=["sqlite", POSTGRESQL])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database that is not there yet (SQLite) or empty (PostgreSQL)."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/catalog.db"
        return
    running: Cluster = request.getfixturevalue("postgresql")
    with running.lent() as url:
        yield url
