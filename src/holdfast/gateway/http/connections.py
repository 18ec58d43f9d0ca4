"""The connections of a worker: how many there may be, which ones end when there are too many, and their timeouts.

A client that has not signed a request yet is unknown. When every place is taken, connections of unknown clients end
first, the oldest before the others, and then those that have signed a request. The unknown connections of one address
(IPv6: of one /64) may take only a part of the places.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from ipaddress import IPv6Address, ip_address
from itertools import islice

from holdfast.gateway.http.protocol import HttpConnection
from holdfast.gateway.http.request import Limits

_FRACTION = 8
"""Timeouts are kept to this part of the shortest one: one timer for ten thousand connections, not one each."""
_LONGEST_SWEEP = 1.0
_SHORTEST_SWEEP = 0.05


class Place:
    """What one accepted connection takes: in its TLS handshake first, then as an HTTP connection.

    `cancel` ends the handshake. `network` is whose the address `source` is taken to be.
    """

    __slots__ = ("cancel", "connection", "network", "source")

    def __init__(self, source: str, network: str) -> None:
        self.source = source
        self.network = network
        self.cancel: Callable[[], object] = lambda: None
        self.connection: HttpConnection | None = None

    def end(self) -> None:
        """Close without another byte."""
        if self.connection is None:
            self.cancel()
        else:
            self.connection.abort()


class ConnectionTable:
    """All connections to one kind of listener in a worker. Belongs to the event loop.

    `places`: connections at most. `per_source`: of those that have not signed a request, at most so many from one
    address. `ended` counts those that were ended to make room, by what they were.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        places: int,
        per_source: int,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
    ) -> None:
        self.limits = limits
        self.draining = False
        self.in_flight = 0
        self.ended: Counter[str] = Counter()
        self.places = places
        self._per_source = per_source
        self._loop = loop
        self._clock = clock
        # Dictionaries as ordered sets: the oldest comes first.
        self._handshakes: dict[Place, None] = {}
        self._unauthenticated: dict[Place, None] = {}
        self._authenticated: dict[Place, None] = {}
        self._by_source: dict[str, dict[Place, None]] = {}
        self._emptied = asyncio.Event()
        self._emptied.set()

    def __len__(self) -> int:
        return len(self._unauthenticated) + len(self._authenticated)

    @property
    def handshakes(self) -> int:
        """Connections in their TLS handshake."""
        return len(self._handshakes)

    @property
    def authenticated(self) -> int:
        """Connections that have signed a request."""
        return len(self._authenticated)

    def has_room(self) -> bool:
        """Whether another connection may be accepted: there is a free place, or a connection that may be ended."""
        return (
            self._taken() < self.places
            or bool(self._handshakes)
            or any(True for _ in _not_answering(self._unauthenticated))
            or any(place.connection is not None and place.connection.idle for place in self._authenticated)
        )

    def take_place(self, source: str) -> Place | None:
        """Count a connection that has been accepted; None if its address has too many that have signed nothing.

        If every place is taken, a hundredth part of them is ended.
        """
        network = network_of(source)
        others = self._by_source.get(network, {})
        if len(others) >= self._per_source and not self._end("source", islice(_not_answering(others), 1)):
            return None
        if self._taken() >= self.places:
            self._make_room(1 + self.places // 100)
        place = Place(source, network)
        self._handshakes[place] = None
        self._by_source.setdefault(network, {})[place] = None
        self._emptied.clear()
        return place

    def free_place(self, place: Place) -> None:
        """The connection has ended, or its handshake has failed."""
        for group in (self._handshakes, self._unauthenticated, self._authenticated):
            group.pop(place, None)
        self._forget_source(place)
        if not self._taken():
            self._emptied.set()

    def opened(self, connection: HttpConnection) -> None:
        """HTTP begins: watch its timeouts. A connection whose place was taken away meanwhile ends."""
        place = connection.place
        if place not in self._handshakes:
            connection.abort()
            return
        place.connection = connection
        del self._handshakes[place]
        self._unauthenticated[place] = None
        if self.draining:
            connection.drain()

    def authenticate(self, connection: HttpConnection) -> None:
        """The connection has signed a request."""
        place = connection.place
        if place in self._unauthenticated:
            del self._unauthenticated[place]
            self._authenticated[place] = None
            self._forget_source(place)

    def closed(self, connection: HttpConnection) -> None:
        """Forget it; its place is free."""
        self.free_place(connection.place)

    def sweep(self) -> None:
        """End what has waited too long, now and from now on."""
        now = self._clock()
        for connection in self._connections():
            if connection.expires <= now:
                connection.expire()
        shortest = min(self.limits.idle_timeout, self.limits.read_timeout) / _FRACTION
        self._loop.call_later(max(_SHORTEST_SWEEP, min(_LONGEST_SWEEP, shortest)), self.sweep)

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 (a part of the drain, not of the caller's patience)
        """Close what is idle, let the rest be answered, and cut off what is left after `timeout` seconds.

        A connection that is still in its handshake is waited for: it may be a client's with a request to send.
        """
        self.draining = True
        for connection in self._connections():
            connection.drain()
        try:
            await asyncio.wait_for(self._emptied.wait(), timeout)
        except TimeoutError:
            for connection in self._connections():
                connection.abort()

    def _taken(self) -> int:
        return len(self._handshakes) + len(self)

    def _connections(self) -> list[HttpConnection]:
        return [
            place.connection
            for group in (self._unauthenticated, self._authenticated)
            for place in group
            if place.connection is not None
        ]

    def _make_room(self, count: int) -> None:
        _ = (
            self._end("handshake", islice(self._handshakes, count))
            or self._end("unauthenticated", islice(_not_answering(self._unauthenticated), count))
            or self._end("authenticated", self._longest_idle(count))
        )

    def _longest_idle(self, count: int) -> Iterable[Place]:
        idle = [c for place in self._authenticated if (c := place.connection) is not None and c.idle]
        idle.sort(key=lambda connection: connection.expires)
        return (connection.place for connection in idle[:count])

    def _end(self, what: str, places: Iterable[Place]) -> bool:
        """End these connections; whether there were any."""
        ended = list(places)
        for place in ended:
            self.free_place(place)
            place.end()
        if ended:
            self.ended[what] += len(ended)
        return bool(ended)

    def _forget_source(self, place: Place) -> None:
        others = self._by_source.get(place.network)
        if others is not None:
            others.pop(place, None)
            if not others:
                del self._by_source[place.network]


def network_of(source: str) -> str:
    """What counts as one address: of IPv6 the first 64 bits, since whoever has one address has all with these."""
    address = ip_address(source)
    return source if address.version == 4 else str(IPv6Address(int(address) >> 64 << 64))  # noqa: PLR2004 (IPv4)


def _not_answering(places: Iterable[Place]) -> Iterable[Place]:
    return (place for place in places if place.connection is None or not place.connection.answering)
