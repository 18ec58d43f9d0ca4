"""The catalog that a configuration names."""

from collections.abc import Callable
from datetime import datetime

from holdfast.config.model import Configuration
from holdfast.store.store import Catalog


def create_catalog(configuration: Configuration, *, now: Callable[[], datetime]) -> Catalog:
    """The configuration's catalog, its tables made or upgraded."""
    settings = configuration.catalog
    return Catalog.create_or_upgrade(
        settings.url, settings.secrets_directory, reference_prefix=settings.reference_prefix, now=now
    )


def open_catalog(configuration: Configuration, *, now: Callable[[], datetime]) -> Catalog:
    """The configuration's catalog, which must be of this version."""
    settings = configuration.catalog
    return Catalog.open(settings.url, settings.secrets_directory, reference_prefix=settings.reference_prefix, now=now)
