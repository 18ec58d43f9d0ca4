"""Looks at the catalog for metrics, in one worker of the node, on a thread of its own.

Now and then it compares every row with what recorded changes have left: a row that was changed by hand, and does not
say so, is read by nobody else before the next start.
"""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from holdfast.keys.model import Snapshot
from holdfast.store import repairs
from holdfast.store.errors import CatalogError
from holdfast.store.gauges import look
from holdfast.store.store import Catalog
from holdfast.threads import LivingThread

if TYPE_CHECKING:
    from holdfast.store.gauge_values import CatalogGauges

INTERVAL = 15.0
"""Seconds between two looks."""
COMPARE = 600.0
"""Seconds between two comparisons of everything."""
_BREATH = 0.02
"""Seconds for requests after some hundred rows."""
_MOST = 20
"""Lines of one comparison."""
_END_TIMEOUT = 1.0


class GaugeReader:
    """`latest` is for the event loop. That the catalog is silent is told by those who serve from it.

    `serving` is what the worker serves from; what is unexplained in that was told already.
    """

    def __init__(  # noqa: PLR0913 (what one worker gives it)
        self,
        catalog: Catalog,
        *,
        age_days: int | None,
        serving: Callable[[], Snapshot],
        monotonic: Callable[[], float],
        on_alarm: Callable[[str], None],
        on_failure: Callable[[str], None],
    ) -> None:
        self._catalog = catalog
        self._age_days = age_days
        self._serving = serving
        self._monotonic = monotonic
        self._on_alarm = on_alarm
        self._compare_at = monotonic() + COMPARE  # the feed has just read everything
        self._found: tuple[str, ...] = ()
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
            self.look()
            self._ending.wait(INTERVAL)

    def look(self) -> None:
        """Once."""
        try:
            if self._found or self._monotonic() >= self._compare_at:
                self._compare()
            unexplained = {*self._found, *self._serving().unexplained}
            found = look(self._catalog, now=datetime.now(UTC), age_days=self._age_days)
            self.latest = replace(found, unexplained=len(unexplained))
        except CatalogError:
            self.latest = None

    def _compare(self) -> None:
        """Raises CatalogError. Where something was found it is done at each look, until it is no more."""
        with self._catalog.reading() as state:
            found = repairs.unexplained(state, breathe=lambda: self._ending.wait(_BREATH))
        for text in found[:_MOST]:
            if text not in self._found and text not in self._serving().unexplained:
                self._on_alarm(f"ALARM: {text}")
        self._found = found
        self._compare_at = self._monotonic() + COMPARE
