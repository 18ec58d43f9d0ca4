"""Accepting connections from a socket that the workers share.

All workers accept from the same listening sockets, a few connections at a time, and rest for a moment after each
turn. So a busy worker, whose turns are long, takes fewer, and when a worker dies nothing that waited in the kernel's
queue is lost. With SO_REUSEPORT the kernel would spread by hash of the addresses, busy or not, and a dead worker's
queue would die with it. libuv's own acceptor takes everything that waits in one turn, and gives one worker all
connections.
"""

import asyncio
import errno
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

from holdfast.gateway.http.connections import ConnectionTable, Place
from holdfast.gateway.http.handshake import HANDSHAKE, Handshake
from holdfast.gateway.http.protocol import HttpConnection
from holdfast.gateway.observe.notify import say

HANDSHAKE_TIMEOUT = 1.0
"""Seconds. KMS gives up a connection after 250 ms, TCP and TLS included."""
REST = 0.001
"""Seconds in which the other workers may take the next connections. Clients keep theirs for long, and a worker that
is awake would take all that a client opens at once: in one of four runs the other worker had none (measured)."""
_MOST_AT_ONCE = 32
"""Connections that one turn accepts; the requests that are being answered wait meanwhile."""
_PAUSE = 0.05
"""Seconds without accepting, when there is no room or no file descriptor."""
_TLS_SHUTDOWN = 2.0
"""Seconds to wait for the peer's close_notify."""
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER of zero seconds: nothing of a refused connection stays behind."""
_TCP_INFO = struct.Struct("24xI")
"""tcpi_unacked in Linux's struct tcp_info: of a listening socket, the connections that wait to be accepted."""
_CLIENT_CERTIFICATE = ("certificate_verify_failed", "client_subject", "peer_did_not_return_a_certificate")
_CLIENT_INTERVAL = 10.0
"""Seconds between two messages about refused client certificates."""
_KINDS_OF_FAILURE = 100
"""Reasons of failed handshakes that are counted apart."""


class Listener:
    """One listening socket in one worker. `tls` gives the context for the next connection, None for plain HTTP.

    `workers` accept from the same socket. With `networks` only addresses in one of them are served. `counts` is by
    metric and reason: `handshakes_failed`, `connections_refused`.
    """

    def __init__(  # noqa: PLR0913 (independent settings)
        self,
        listening: socket.socket,
        connect: Callable[[Place], HttpConnection],
        *,
        connections: ConnectionTable,
        tls: Callable[[], ssl.SSLContext | None],
        workers: int,
        networks: Sequence[IPv4Network | IPv6Network],
        counts: Counter[tuple[str, str]],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        listening.setblocking(False)
        self._listening = listening
        self._connect = connect
        self._connections = connections
        self._tls = tls
        self._workers = workers
        self._networks = networks
        self._counts = counts
        self._loop = loop
        self._handshakes: set[asyncio.Task[None]] = set()
        self._stopped = False
        self._client_reported_at = float("-inf")
        self._clients_unreported = 0

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
        share = _waiting(self._listening) // self._workers
        for _ in range(max(1, min(share, _MOST_AT_ONCE))):
            if not self._connections.has_room():
                self._pause(_PAUSE)
                return
            try:
                accepted, address = self._listening.accept()
            except OSError as error:
                # Otherwise another worker was faster, or the client has gone: both are normal.
                if error.errno in _EXHAUSTED:
                    self._pause(_PAUSE)
                    return
                break
            self._begin(accepted, address[0])
        if self._workers > 1:
            self._pause(REST)

    def _begin(self, accepted: socket.socket, source: str) -> None:
        if not self._admits(source):
            self._refuse(accepted, "network")
            return
        place = self._connections.take_place(source)
        if place is None:
            self._refuse(accepted, "source")
            return
        accepted.setblocking(False)
        task = self._loop.create_task(self._serve(accepted, place))
        place.cancel = task.cancel
        self._handshakes.add(task)

        def done(task: asyncio.Task[None]) -> None:
            # Here and not in the task, which may be cancelled before it begins.
            self._handshakes.discard(task)
            if place.connection is None:
                accepted.close()
                self._connections.free_place(place)

        task.add_done_callback(done)

    def _admits(self, source: str) -> bool:
        if not self._networks:
            return True
        address = ip_address(source)
        return any(address in network for network in self._networks)

    def _refuse(self, accepted: socket.socket, reason: str) -> None:
        self._counts["connections_refused", reason] += 1
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        accepted.close()

    async def _serve(self, accepted: socket.socket, place: Place) -> None:
        context = self._tls()
        timeouts: dict[str, Any] = (
            {}
            if context is None
            else {"ssl_handshake_timeout": HANDSHAKE_TIMEOUT, "ssl_shutdown_timeout": _TLS_SHUTDOWN}
        )
        handshake = Handshake()
        HANDSHAKE.set(handshake)
        try:
            await self._loop.connect_accepted_socket(lambda: self._connect(place), accepted, ssl=context, **timeouts)
        except Exception as error:  # noqa: BLE001 (whatever it is, only this connection fails)
            reason = handshake.refusal or _reason(error)
            self._count_failure(reason)
            if reason in _CLIENT_CERTIFICATE:
                self._report_client(place.source, reason)

    def _count_failure(self, reason: str) -> None:
        key = ("handshakes_failed", reason)
        if key not in self._counts and len(self._counts) >= _KINDS_OF_FAILURE:
            key = ("handshakes_failed", "other")
        self._counts[key] += 1

    def _report_client(self, source: str, reason: str) -> None:
        """Anybody can cause this: one message in a while, and the number of the others."""
        now = self._loop.time()
        if now - self._client_reported_at < _CLIENT_INTERVAL:
            self._clients_unreported += 1
            return
        others = f"; {self._clients_unreported} others since the last message" if self._clients_unreported else ""
        self._client_reported_at, self._clients_unreported = now, 0
        say("warning", f"a client certificate from {source} is refused: {reason}{others}")

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listening)
        self._loop.call_later(seconds, self.start)


def _waiting(listening: socket.socket) -> int:
    """Connections in the kernel's queue; 0 where the system does not say."""
    try:
        return int(_TCP_INFO.unpack(listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size))[0])
    except (OSError, struct.error):
        return 0


def _reason(error: Exception) -> str:
    match error:
        case ssl.SSLError():
            return (error.reason or "unknown").lower()
        case TimeoutError() | ConnectionAbortedError():
            return "expired"
        case ConnectionError():
            return "closed by the client"
        case _:
            return type(error).__name__
