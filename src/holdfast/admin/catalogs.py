"""The catalog that a configuration names."""

from collections.abc import Callable
from datetime import datetime

from holdfast.catalog.store import Catalog
from holdfast.config.model import Configuration


def create_catalog(configuration: Configuration, *, now: Callable[[], datetime]) -> Catalog:
    """The configuration's catalog, its tables made or upgraded."""
    return Catalog.create_or_upgrade(configuration.catalog.url, configuration.catalog.secrets, now=now)


def open_catalog(configuration: Configuration, *, now: Callable[[], datetime]) -> Catalog:
    """The configuration's catalog, which must be of this version."""
    return Catalog.open(configuration.catalog.url, configuration.catalog.secrets, now=now)
