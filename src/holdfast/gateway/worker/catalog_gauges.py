"""Looks at the catalog for metrics, in one worker of the node, on a thread of its own."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from holdfast.store.errors import CatalogError
from holdfast.store.gauges import look
from holdfast.store.store import Catalog
from holdfast.threads import LivingThread

if TYPE_CHECKING:
    from holdfast.store.gauge_values import CatalogGauges

INTERVAL = 15.0
"""Seconds between two looks."""
_END_TIMEOUT = 1.0


class GaugeReader:
    """`latest` is for the event loop. That the catalog is silent is told by those who serve from it."""

    def __init__(self, catalog: Catalog, *, age_days: int | None, on_failure: Callable[[str], None]) -> None:
        self._catalog = catalog
        self._age_days = age_days
        self._ending = threading.Event()
        self.latest: CatalogGauges | None = None
        self.thread = LivingThread("catalog-gauges", self._run, on_failure=on_failure)

    def start(self) -> None:
        """Look now, and again."""
        self.thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._ending.set()
        self.thread.join(_END_TIMEOUT)

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                self.latest = look(self._catalog, now=datetime.now(UTC), age_days=self._age_days)
            except CatalogError:
                self.latest = None
            self._ending.wait(INTERVAL)
