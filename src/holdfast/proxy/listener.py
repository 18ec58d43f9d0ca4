"""Accepting connections from a socket that the workers share.

All workers accept from the same listening sockets, one connection at a time, and rest for a moment after each. So a
busy worker, whose turns are long, takes fewer, and when a worker dies nothing that waited in the kernel's queue is
lost. With SO_REUSEPORT the kernel would spread by hash of the addresses, busy or not, and a dead worker's queue would
die with it. libuv's own acceptor takes everything that waits in one turn, and gives one worker all connections.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable

from holdfast.proxy.connections import ConnectionTable
from holdfast.proxy.http import HttpConnection

REST = 0.001
"""Seconds in which the other workers may take the next connection. Clients keep theirs for long, and a worker that is
awake already would take all that a client opens at once: in one of four runs the other worker had none (measured)."""
_PAUSE = 0.05
"""Seconds without accepting, when there is no room or no file descriptor."""
_TLS_SHUTDOWN = 2.0
"""Seconds to wait for the peer's close_notify."""
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Listener:
    """One listening socket in one worker. `tls` gives the context for the next connection, None for plain HTTP.

    `rest`: seconds without accepting after each connection; 0 where no other worker would take the next.
    """

    def __init__(  # noqa: PLR0913 (each is a thing of its own)
        self,
        listening: socket.socket,
        connect: Callable[[], HttpConnection],
        *,
        connections: ConnectionTable,
        max_connections: Callable[[], int],
        tls: Callable[[], ssl.SSLContext | None],
        rest: float,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        listening.setblocking(False)
        self._listening = listening
        self._connect = connect
        self._connections = connections
        self._max_connections = max_connections
        self._tls = tls
        self._rest = rest
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
            self._pause(_PAUSE)
            return
        try:
            accepted, _ = self._listening.accept()
        except OSError as error:
            # Another worker was faster, or the client has gone: both are normal.
            if error.errno in _EXHAUSTED:
                self._pause(_PAUSE)
            return
        accepted.setblocking(False)
        self._connections.take_place()
        task = self._loop.create_task(self._serve(accepted))
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)
        if self._rest:
            self._pause(self._rest)

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

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listening)
        self._loop.call_later(seconds, self.start)
