"""Refusing what could not be answered in time, before any work is spent on it.

This looks at the event loop. Each HSM's queue has a look of its own: holdfast/hsm/pkcs11/pool says why both stay.
"""

from collections.abc import Callable

SHARE = 0.35
"""Part of the deadline that a request may expect to wait behind others. The rest is for the HSM, and for the turns of
the event loop, which grow with what is let in."""
ALWAYS = 8
"""Requests in flight that are never too many: a single slow answer does not mean overload."""
FIRST_GUESS = 0.0005
"""Seconds between two answers, until it is known: a burst onto a new worker must not all be let in."""
_WEIGHT = 1 / 64
_LONGEST_INTERVAL = 0.05


class Admission:
    """Predicts a request's wait from the requests in flight and the pace at which answers leave (Little's law)."""

    def __init__(self, deadline: float, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._patience = deadline * SHARE
        self._interval = FIRST_GUESS
        self._last_answer: float | None = None
        self.lag = 0.0

    def refuses(self, in_flight: int) -> bool:
        """Whether a request that has just arrived would wait too long."""
        return in_flight >= ALWAYS and in_flight * self._interval + self.lag > self._patience

    def answered(self, in_flight: int) -> None:
        """An answer has left; `in_flight` are still to come."""
        now = self._clock()
        if self._last_answer is not None:
            # A long gap is one hung call, not a slow server.
            interval = min(now - self._last_answer, _LONGEST_INTERVAL)
            self._interval += (interval - self._interval) * _WEIGHT
        # The gap that follows an idle moment says nothing of the pace.
        self._last_answer = now if in_flight else None
