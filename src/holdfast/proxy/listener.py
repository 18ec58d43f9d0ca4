"""Accepting connections from a socket that the workers share.

All workers accept from the same listening sockets, one connection per turn of the event loop. So a busy worker,
whose turns are long, takes fewer, and when a worker dies nothing that waited in the kernel's queue is lost. With
SO_REUSEPORT the kernel would spread by hash of the addresses, busy or not, and a dead worker's queue would die
with it. libuv's own acceptor takes everything that waits in one turn, and gives one worker all connections.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable

from holdfast.proxy.connections import ConnectionTable
from holdfast.proxy.http import HttpConnection

_PAUSE = 0.05
"""Seconds without accepting, when there is no room or no file descriptor."""
_TLS_SHUTDOWN = 2.0
"""Seconds to wait for the peer's close_notify."""
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Listener:
    """One listening socket in one worker. `tls` gives the context for the next connection, None for plain HTTP."""

    def __init__(  # noqa: PLR0913 (each is a thing of its own)
        self,
        listening: socket.socket,
        connect: Callable[[], HttpConnection],
        *,
        connections: ConnectionTable,
        max_connections: Callable[[], int],
        tls: Callable[[], ssl.SSLContext | None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        listening.setblocking(False)
        self._listening = listening
        self._connect = connect
        self._connections = connections
        self._max_connections = max_connections
        self._tls = tls
        self._loop = loop
        self._handshakes: set[asyncio.Task[None]] = set()
        self._stopped = False

    def start(self) -> None:
        """Accept from now on."""
        if not self._stopped:
            self._loop.add_reader(self._listening, self._accept)

    def stop(self) -> None:
        """Accept no more; the socket stays open in the supervisor and in the other workers."""
        self._stopped = True
        self._loop.remove_reader(self._listening)
        self._listening.close()

    def _accept(self) -> None:
        if self._connections.places_taken >= self._max_connections() and not self._connections.evict():
            self._pause()
            return
        try:
            accepted, _ = self._listening.accept()
        except OSError as error:
            # Another worker was faster, or the client has gone: both are normal.
            if error.errno in _EXHAUSTED:
                self._pause()
            return
        accepted.setblocking(False)
        self._connections.take_place()
        task = self._loop.create_task(self._serve(accepted))
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    async def _serve(self, accepted: socket.socket) -> None:
        context = self._tls()
        timeouts = (
            {}
            if context is None
            else {
                "ssl_handshake_timeout": self._connections.limits.read_timeout,
                "ssl_shutdown_timeout": _TLS_SHUTDOWN,
            }
        )
        try:
            await self._loop.connect_accepted_socket(self._connect, accepted, ssl=context, **timeouts)
        except (OSError, TimeoutError):
            # A handshake that fails never reaches HTTP, and is no event of this proxy's.
            accepted.close()
            self._connections.free_place()

    def _pause(self) -> None:
        self._loop.remove_reader(self._listening)
        self._loop.call_later(_PAUSE, self.start)
