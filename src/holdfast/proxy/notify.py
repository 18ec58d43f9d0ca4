"""Tells the operator and systemd how the service is doing."""

import os
import socket
import sys
from contextlib import suppress

from holdfast.config.model import Configuration


def notify(state: str) -> None:
    """Send `READY=1`, `RELOADING=1`, `STOPPING=1` or `STATUS=...` (sd_notify(3)); nothing without systemd."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.sendto(state.encode(), address)


def say(level: str, text: str) -> None:
    """A line on standard error, the service's journal; standard output may carry the event lines."""
    print(f"holdfast: {level}: {text}", file=sys.stderr, flush=True)  # noqa: T201 (the service's voice)


def serving(configuration: Configuration) -> str:
    """What is served, and where."""
    listen = configuration.server.listen
    scheme = "plain HTTP" if configuration.tls is None else "HTTPS"
    return f"serving {scheme} on {listen.host} port {listen.port}"
