"""The connections of a worker: their number, their timeouts, and how they end."""

import asyncio
from collections.abc import Callable

from holdfast.proxy.http import HttpConnection
from holdfast.proxy.request import Limits

_FRACTION = 8
"""Timeouts are kept to this part of the shortest one: one timer for ten thousand connections, not one each."""
_LONGEST_SWEEP = 1.0
_SHORTEST_SWEEP = 0.05


class ConnectionTable:
    """All open connections of a worker, of every listener. Belongs to the event loop."""

    def __init__(self, limits: Limits, *, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]) -> None:
        self.limits = limits
        self.draining = False
        self.in_flight = 0
        self.places_taken = 0
        self._loop = loop
        self._clock = clock
        self._open: set[HttpConnection] = set()
        self._emptied = asyncio.Event()
        self._emptied.set()

    def __len__(self) -> int:
        return len(self._open)

    def take_place(self) -> None:
        """Count a connection that has been accepted, and may still be in its TLS handshake."""
        self.places_taken += 1
        self._emptied.clear()

    def free_place(self) -> None:
        """A connection has ended, or was never opened."""
        self.places_taken -= 1
        if not self.places_taken:
            self._emptied.set()

    def opened(self, connection: HttpConnection) -> None:
        """Watch its timeouts."""
        self._open.add(connection)
        if self.draining:
            connection.drain()

    def closed(self, connection: HttpConnection) -> None:
        """Forget it; its place is free."""
        self._open.discard(connection)
        self.free_place()

    def sweep(self) -> None:
        """End what has waited too long, now and from now on."""
        now = self._clock()
        for connection in [connection for connection in self._open if connection.expires <= now]:
            connection.expire()
        shortest = min(self.limits.idle_timeout, self.limits.read_timeout) / _FRACTION
        self._loop.call_later(max(_SHORTEST_SWEEP, min(_LONGEST_SWEEP, shortest)), self.sweep)

    def evict(self) -> int:
        """Close the hundredth part of the connections that has been idle longest; how many that is.

        When every place is taken, those who ask for nothing make room for those who may.
        """
        idle = sorted((c for c in self._open if c.idle), key=lambda connection: connection.expires)
        oldest = idle[: 1 + len(self._open) // 100]
        for connection in oldest:
            connection.abort()
        return len(oldest)

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 (a part of the drain, not of the caller's patience)
        """Close what is idle, let the rest be answered, and cut off what is left after `timeout` seconds.

        A connection that is still in its handshake is waited for: its client has been accepted, and is not to
        blame for our leaving.
        """
        self.draining = True
        for connection in list(self._open):
            connection.drain()
        try:
            await asyncio.wait_for(self._emptied.wait(), timeout)
        except TimeoutError:
            for connection in list(self._open):
                connection.abort()
