"""Loopback ports for servers that a test starts in another process."""

import fcntl
import secrets
import socket
import tempfile
from pathlib import Path
from typing import TextIO

_RANGE = range(15_000, 30_000)
"""Below the ports that Linux gives to whoever asks for any (32768 and up): no other program is given one of these."""
_LOCKS = Path(tempfile.gettempdir()) / "holdfast-test-ports"
_held: list[TextIO] = []


def free_ports(count: int) -> list[int]:
    """Ports on which nobody listens, reserved for this process until it ends."""
    _LOCKS.mkdir(exist_ok=True)
    ports: list[int] = []
    while len(ports) < count:
        port = secrets.choice(_RANGE)
        if _reserve(port):
            ports.append(port)
    return ports


def _reserve(port: int) -> bool:
    """Other processes that run tests see the lock; other programs are seen by the port itself."""
    lock = (_LOCKS / str(port)).open("w")  # closed when the process ends, and with it the lock is gone
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        lock.close()
        return False
    _held.append(lock)
    return True
