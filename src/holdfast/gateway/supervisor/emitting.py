"""The process that sends events and changes to the outlets, as one of the supervisor's companions."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from holdfast.gateway.outlets.start import OutletsStart, run
from holdfast.gateway.supervisor.companion import Companion, Kind

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from holdfast.config.model import Configuration
    from holdfast.gateway.observe.messages import OutletsReport

_END_TIMEOUT = 3.0
"""Seconds. It gives the receivers one."""
_BUFFER = 4 << 20
"""Bytes that are asked for between workers and outlets; the system may give less."""


class EventChannel:
    """From all workers to the process of the outlets: each message arrives whole.

    The supervisor holds both ends, so that what was sent while that process is replaced waits for the next one.
    """

    def __init__(self) -> None:
        self.receiver, self.sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)

    def close(self) -> None:
        """Both ends."""
        self.receiver.close()
        self.sender.close()


def outlets(events: EventChannel, *, say: Callable[[str, str], None]) -> Companion[OutletsReport]:
    """Its place."""

    def make(configuration: Configuration, control: Connection) -> OutletsStart:
        return OutletsStart(configuration, control, events.receiver)

    kind = Kind(
        name="outlets",
        title="the process of the outlets",
        needs=lambda configuration: (
            (configuration.outlets, configuration.catalog, configuration.node_name) if configuration.outlets else None
        ),
        make=make,
        run=run,
        end_timeout=_END_TIMEOUT,
    )
    return Companion(kind, say=say)
