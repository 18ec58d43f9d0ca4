"""What a worker process is started with. Light: the supervisor imports no HSM, database or event loop code."""

import os
import socket
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import DupFd
from typing import Any

from holdfast.config.model import Configuration
from holdfast.gateway.observe.messages import StoppedKeys


@dataclass(frozen=True, slots=True)
class WorkerStart:
    """What a worker is given. The sockets are bound and shared with the other workers; `cpu` is its own, if any.

    `number` counts all processes, `place` is that of the process which it replaces.

    `outlets` takes event lines for the outlets.

    `stopped`: by HSM, the keys that other workers have stopped. `proven`: workers have served this configuration.
    """

    number: int
    place: int
    configuration: Configuration
    listening: list[socket.socket]
    health: list[socket.socket]
    turn_file: "InheritedFile"
    control: Connection
    cpu: int | None
    outlets: socket.socket | None
    stopped: dict[str, StoppedKeys]
    proven: bool


def cpu_of(place: int, places: int) -> int | None:
    """The CPU of one worker's place; None where there are more workers than CPUs (docs/decisions/0010).

    A worker's threads share one GIL, so they gain nothing from a second CPU, and lose by every hand-over.
    """
    # The first CPU often has the interrupts, so it comes last.
    cpus = sorted(os.sched_getaffinity(0), reverse=True)
    return cpus[place] if places <= len(cpus) else None


class InheritedFile:
    """An open file that a spawned process inherits, under a descriptor of its own."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        return _adopt, (DupFd(self.descriptor),)


def _adopt(duplicate: Any) -> InheritedFile:
    return InheritedFile(duplicate.detach())


def run(start: WorkerStart) -> None:
    """The worker process. Everything heavy is imported here, in the spawned process, and not by the supervisor."""
    from holdfast.gateway.worker import worker  # noqa: PLC0415 (see above)

    worker.run(start)
