"""One connection of the HTTP layer in memory: octets in, requests out."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from holdfast.gateway.http.connections import Place
from holdfast.gateway.http.protocol import HttpConnection
from holdfast.gateway.http.request import HttpRequest, Limits
from holdfast.protocols.port import Response
from holdfast.protocols.xks.pipeline import error_response, to_wire

if TYPE_CHECKING:
    from collections.abc import Callable

LIMITS = Limits(max_headers=16384, max_body=65536, read_timeout=5.0, idle_timeout=5.0)


class Memory(asyncio.Transport):
    """A transport to nobody."""

    _closing = False

    def write(self, data: Any) -> None:
        """Nobody reads it."""

    def close(self) -> None:
        """Nothing more is sent."""
        self._closing = True

    write_eof = abort = close

    def is_closing(self) -> bool:
        """Whether the connection has been ended."""
        return self._closing

    def can_write_eof(self) -> bool:
        """As TCP can."""
        return True

    def resume_reading(self) -> None:
        """Nothing waits."""

    pause_reading = resume_reading

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ARG002 (asyncio's signature)
        """There is no socket."""
        return default


class Turns:
    """The part of an event loop that answers need when none of them waits."""

    def __init__(self) -> None:
        self._due: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()

    def call_soon(self, callback: Callable[..., Any], *arguments: Any) -> None:
        """Later in this run."""
        self._due.append((callback, arguments))

    def run(self) -> None:
        """Until nothing is due."""
        while self._due:
            callback, arguments = self._due.popleft()
            callback(*arguments)


@dataclass
class Table:
    """What the connections of a worker share, for one."""

    limits: Limits = LIMITS
    draining: bool = False
    in_flight: int = 0

    def opened(self, connection: HttpConnection) -> None:
        """It is the only one."""

    authenticate = closed = opened


@dataclass
class Noting:
    """A handler that answers at once and keeps what it was asked."""

    seen: list[HttpRequest] = field(default_factory=list)

    def begin(self, request: HttpRequest) -> Response:
        """200, or the refusal."""
        self.seen.append(request)
        return Response(200, [], b"") if request.refusal is None else error_response(to_wire(request.refusal))


def read(data: bytes) -> list[HttpRequest]:
    """The requests that the HTTP layer makes of these octets; those that it refuses have a `refusal`."""
    handler, turns, transport = Noting(), Turns(), Memory()
    loop: Any = turns
    connection = HttpConnection(handler, Table(), Place("192.0.2.1", "192.0.2.1"), loop=loop, clock=lambda: 0.0)
    connection.connection_made(transport)
    connection.data_received(data)
    turns.run()
    return handler.seen
