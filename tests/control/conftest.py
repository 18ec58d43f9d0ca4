"""An installation whose catalog is changed by its road; no HSM."""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.administered import Catalog

from holdfast.audit.records import Actor
from holdfast.config.load import parse
from holdfast.control.runner import Control
from holdfast.xks.types import UriPathPrefix

TEXT = """
[server]
listen = "127.0.0.1:8443"
[hsm.main]
profile = "softhsm2"
library = "/no/such/library.so"
token = { label = "holdfast" }
pin = { file = "no-such-pin" }
health_key = "health"
"""


class Clock:
    """What time it is, for the test to say."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 25, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        """The time now."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def catalog(url: str, tmp_path: Path, clock: Clock) -> Iterator[Catalog]:
    """A catalog with the keystores alpha and beta."""
    with closing(Catalog.create_or_upgrade(url, tmp_path / "secrets", now=clock)) as made:
        for name in ("alpha", "beta"):
            made.create_keystore(name, UriPathPrefix(f"/{name}"))
        yield made


@pytest.fixture
def as_(catalog: Catalog, clock: Clock, tmp_path: Path) -> Callable[[str], Control]:
    """The catalog in the hands of a person."""
    configuration = parse(TEXT, tmp_path / "holdfast.toml")

    def hands(name: str, **more: Any) -> Control:
        actor = Actor(name=name, known_by="os-user", where=f"{name}@here")
        return Control(configuration, catalog, actor=actor, now=clock, **more)

    return hands
