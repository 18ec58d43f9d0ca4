"""The HTTP layer alone on a loopback port, in a thread, with a handler whose answers a test controls."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import uvloop
from tests.waiting import PATIENCE, eventually

from holdfast.gateway.http.connections import ConnectionTable
from holdfast.gateway.http.listener import Listener
from holdfast.gateway.http.protocol import HttpConnection
from holdfast.gateway.http.request import HttpRequest, Limits
from holdfast.protocols.port import Response
from holdfast.protocols.xks.pipeline import error_response, to_wire
from holdfast.xks.encoding import decode_json_object

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from types import TracebackType

LIMITS = Limits(max_headers=4096, max_body=8192, read_timeout=2.0, idle_timeout=2.0)


@dataclass
class Desk:
    """A handler that notes what it was asked.

    Targets that begin with /wait are answered when `gate` is opened, those that begin with /task as signed ones.
    """

    seen: list[HttpRequest] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self, request: HttpRequest) -> Response | Coroutine[Any, Any, Response]:
        """Refusals, what need not wait, and what must."""
        self.seen.append(request)
        if request.refusal is not None:
            return error_response(to_wire(request.refusal))
        waits = request.target.startswith((b"/wait", b"/task"))
        return self._answer(request) if waits else self._response(request)

    async def _answer(self, request: HttpRequest) -> Response:
        if request.target.startswith(b"/wait"):
            await self.gate.wait()
        request.authenticated = request.target.startswith(b"/task")
        return self._response(request)

    def _response(self, request: HttpRequest) -> Response:
        return Response(200, [(b"content-type", b"text/plain")], request.target)


class Wire:
    """Context manager: `connect` gives a client socket, `desk` the requests that came through."""

    def __init__(
        self, limits: Limits = LIMITS, *, max_connections: int = 1000, per_source: int = 1000, workers: int = 1
    ) -> None:
        self.desk = Desk()
        self._clients: list[Client] = []
        self._limits = limits
        self._max_connections = max_connections
        self._per_source = per_source
        self._workers = workers
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="wire")

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(PATIENCE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for client in self._clients:
            client.close()
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join(PATIENCE)

    def connect(self) -> Client:
        """A client of the listener."""
        client = Client(socket.create_connection(self.address, PATIENCE))
        self._clients.append(client)
        return client

    def refuses(self) -> bool:
        """Whether a new connection is closed at once. Its reset may come before `connect` returns."""
        try:
            return self.connect().closed()
        except ConnectionResetError:
            return True

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """The event loop does nothing while the block runs."""
        go_on = threading.Event()
        self._loop.call_soon_threadsafe(go_on.wait)
        try:
            yield
        finally:
            go_on.set()

    def open_gate(self) -> None:
        """Let /wait be answered."""
        self._loop.call_soon_threadsafe(self.desk.gate.set)

    def drain(self, timeout: float) -> None:
        """Drain as a worker does on SIGTERM, and wait for its end."""
        asyncio.run_coroutine_threadsafe(self.table.drain(timeout), self._loop).result(PATIENCE)

    def start_drain(self, timeout: float) -> None:
        """Begin to drain."""
        asyncio.run_coroutine_threadsafe(self.table.drain(timeout), self._loop)

    def wait_for_requests(self, count: int) -> None:
        """Until so many requests have come through."""
        eventually(lambda: len(self.desk.seen) >= count)

    def wait_for_connections(self, count: int) -> None:
        """Until HTTP has begun on so many connections."""
        eventually(lambda: len(self.table) >= count)

    def wait_for_no_connections(self) -> None:
        """Until every place is free."""
        eventually(lambda: len(self.table) + self.table.handshakes == 0)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._done = asyncio.Event()
        self.table = ConnectionTable(
            self._limits,
            places=self._max_connections,
            per_source=self._per_source,
            loop=self._loop,
            clock=time.monotonic,
        )
        self.counts: Counter[tuple[str, str]] = Counter()
        listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.address = listening.getsockname()
        self.other_worker = listening.dup()
        listener = Listener(
            listening,
            lambda place: HttpConnection(self.desk, self.table, place, loop=self._loop, clock=time.monotonic),
            connections=self.table,
            tls=lambda: None,
            workers=self._workers,
            networks=(),
            counts=self.counts,
            loop=self._loop,
        )
        self.table.sweep()
        listener.start()
        self._started.set()
        await self._done.wait()
        listener.stop()
        self.other_worker.close()
        await self.table.drain(0)


@dataclass
class Answer:
    """One response as a strict client reads it."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> tuple[int, str]:
        """Status and errorName."""
        return self.status, decode_json_object(self.body)["errorName"]


class Client:
    """A socket that speaks bytes."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = b""

    def send(self, data: bytes) -> Self:
        """Send as is."""
        self.sock.sendall(data)
        return self

    def answer(self, *, head: bool = False) -> Answer:
        """The next final response; the connection stays in step after it."""
        while True:
            answer = self._read(head=head)
            if answer.status >= 200:
                return answer

    def interim(self) -> Answer:
        """The next response, which may be an interim one."""
        return self._read(head=True)

    def closed(self) -> bool:
        """Whether the server ends the connection without another byte."""
        try:
            return self._buffer + self.sock.recv(65536) == b""
        except ConnectionResetError:
            return True

    def rest(self) -> bytes:
        """Everything until the end."""
        parts = [self._buffer]
        while data := self.sock.recv(65536):
            parts.append(data)
        return b"".join(parts)

    def close(self) -> None:
        """Go away."""
        self.sock.close()

    def _read(self, *, head: bool) -> Answer:
        block = self._until(b"\r\n\r\n")
        line, *fields = block.decode("ascii").split("\r\n")
        headers = dict(f.lower().split(": ", 1) for f in fields if f)
        length = 0 if head else int(headers.get("content-length", "0"))
        while len(self._buffer) < length:
            self._fill()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return Answer(int(line.split(" ")[1]), headers, body)

    def _until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            self._fill()
        block, self._buffer = self._buffer.split(end, 1)
        return block

    def _fill(self) -> None:
        data = self.sock.recv(65536)
        assert data, f"the server closed after {self._buffer!r}"
        self._buffer += data
