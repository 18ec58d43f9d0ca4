"""The listener of /metrics, in a thread of the supervisor: a few connections at most, each with its timeouts."""

import asyncio
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from holdfast.config.listeners import Address
from holdfast.gateway.http.connections import ConnectionTable, Place
from holdfast.gateway.http.listener import Listener
from holdfast.gateway.http.protocol import HttpConnection
from holdfast.gateway.http.request import HttpRequest, Limits
from holdfast.gateway.http.sockets import bind
from holdfast.gateway.observe.notify import say
from holdfast.protocols.port import Response
from holdfast.threads import LivingThread

PLACES = 32
"""Connections at most. Prometheus needs one; these are descriptors of the supervisor, which needs its own."""
_PER_SOURCE = 8
_LIMITS = Limits(max_headers=16_384, max_body=1_024, read_timeout=5.0, idle_timeout=120.0)
_PAGE_AGE = 0.25
"""Seconds for which a page is good: workers report twice a second, and making one takes the supervisor's time."""
_END_TIMEOUT = 2.0


class MetricsServer:
    """Listens on `address` from `start` to `close`. `page` makes the text; `tls` is for new connections, None: HTTP.

    Making one raises CannotListen.
    """

    def __init__(self, address: Address, page: Callable[[], bytes], *, tls: ssl.SSLContext | None) -> None:
        self.address = address
        self.tls = tls
        self._page = page
        self._sockets = bind(address)
        self._closing = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._done: asyncio.Event | None = None
        self._thread = LivingThread("metrics", self._run, on_failure=lambda text: say("error", text))

    def start(self) -> None:
        """Answer scrapes."""
        self._thread.start()

    def close(self) -> None:
        """End the thread and the sockets."""
        self._closing.set()
        if self._loop is not None and self._done is not None:
            # It may have ended already.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join(_END_TIMEOUT)
        for listening in self._sockets:
            listening.close()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        self._done, self._loop = asyncio.Event(), loop
        table = ConnectionTable(_LIMITS, places=PLACES, per_source=_PER_SOURCE, loop=loop, clock=time.monotonic)
        handler = _MetricsHandler(self._page)

        def connect(place: Place) -> HttpConnection:
            return HttpConnection(handler, table, place, loop=loop, clock=time.monotonic)

        def listener(listening: socket.socket) -> Listener:
            return Listener(
                listening.dup(),
                connect,
                connections=table,
                tls=lambda: self.tls,
                workers=1,
                networks=(),
                counts=Counter(),
                loop=loop,
            )

        listeners = [listener(listening) for listening in self._sockets]
        table.sweep()
        try:
            for each in listeners:
                each.start()
            if not self._closing.is_set():
                await self._done.wait()
        finally:
            for each in listeners:
                each.stop()
            await table.drain(0)


class _MetricsHandler:
    """GET and HEAD of /metrics, and nothing else."""

    def __init__(self, page: Callable[[], bytes]) -> None:
        self._page = page
        self._made_at = float("-inf")
        self._text = b""

    def begin(self, request: HttpRequest) -> Response:
        """The page, or why not."""
        if request.refusal is not None:
            return Response(400, _PLAIN, b"the request is not as HTTP/1.1 wants it\n")
        if request.target.partition(b"?")[0] != b"/metrics":
            return Response(404, _PLAIN, b"only /metrics is served here\n")
        if request.method not in ("GET", "HEAD"):
            return Response(405, [(b"allow", b"GET, HEAD")], b"")
        now = time.monotonic()
        if now - self._made_at > _PAGE_AGE:
            self._text, self._made_at = self._page(), now
        return Response(200, _EXPOSITION, self._text)


_PLAIN = [(b"content-type", b"text/plain; charset=utf-8")]
_EXPOSITION = [(b"content-type", CONTENT_TYPE_PLAIN_0_0_4.encode())]
