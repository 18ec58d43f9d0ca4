"""What the process of the outlets is started with. Light: the supervisor imports no database code."""

import socket
from dataclasses import dataclass
from multiprocessing.connection import Connection

from holdfast.config.model import Configuration


@dataclass(frozen=True, slots=True)
class OutletsStart:
    """`control` brings one message, or its end: then what waits is sent, and the process ends. `events`: lines."""

    configuration: Configuration
    control: Connection
    events: socket.socket


def run(start: OutletsStart) -> None:
    """The process. Everything heavy is imported here, in the spawned process, and not by the supervisor."""
    from holdfast.gateway.outlets import process  # noqa: PLC0415 (see above)

    process.run(start)
