"""Listening sockets, bound once by the supervisor and shared by all workers."""

import errno
import socket
from contextlib import ExitStack

from holdfast.config.listeners import Address

_BACKLOG = 4096
"""Connections that wait in the kernel to be accepted; Linux caps it at net.core.somaxconn."""


class CannotListen(Exception):
    """An address could not be bound; the message says why and what to do."""


def bind(address: Address) -> list[socket.socket]:
    """One listening socket per address that the host name stands for. Raises CannotListen."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise CannotListen(f"cannot listen on {address.host}: {error.strerror or error}") from None
    with ExitStack() as undo:
        sockets = []
        for family, kind, protocol, _, where in dict.fromkeys(found):
            sock = undo.enter_context(socket.socket(family, kind, protocol))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                sock.bind(where)
                sock.listen(_BACKLOG)
            except OSError as error:
                raise CannotListen(f"cannot listen on {address.host} port {address.port}: {_remedy(error)}") from None
            sock.setblocking(False)
            sockets.append(sock)
        undo.pop_all()
    return sockets


def _remedy(error: OSError) -> str:
    match error:
        case PermissionError():
            return (
                "permission denied; ports below 1024 need the capability CAP_NET_BIND_SERVICE, "
                "which packaging/holdfast.service gives"
            )
        case _ if error.errno == errno.EADDRINUSE:
            return "the address is in use; stop the other process, or configure another port"
        case _:
            return error.strerror or str(error)
