"""Says what is wrong with the catalog: at once, and then once a minute while it lasts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from holdfast.store.errors import CatalogError

REPEAT = 60.0
"""Seconds between two sayings of the same."""


class Warnings:
    """Passes texts on to `on_warning`, each at most once per REPEAT."""

    def __init__(self, on_warning: Callable[[str], None], monotonic: Callable[[], float]) -> None:
        self._on_warning = on_warning
        self._monotonic = monotonic
        self._said_at: dict[str, float] = {}

    def say(self, text: str) -> None:
        """Pass the text on, unless it was said within the last minute."""
        now = self._monotonic()
        self._said_at = {said: at for said, at in self._said_at.items() if now - at < REPEAT}
        if text not in self._said_at:
            self._said_at[text] = now
            self._on_warning(text)

    @contextmanager
    def instead_of_errors(self, consequence: str) -> Iterator[None]:
        """The block's error, if any, becomes a warning that ends in `consequence`."""
        try:
            yield
        except CatalogError as error:
            self.say(f"{error.message}; {consequence}")
        except Exception as error:  # noqa: BLE001 (the thread that finds blocked keys must survive any fault of Holdfast's)
            self.say(f"the catalog's feed failed, {type(error).__name__}: {error}; {consequence}")
