"""File descriptors: how many a process may have, and how a worker shares them out.

A worker that ran out of them could neither accept a connection nor, what is worse, let the HSM's library open its
files. So connections get what is left once the HSM's sessions and the worker's own files have theirs.
"""

import resource
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from holdfast.config.model import Configuration

RESERVE = 80
"""Of a worker: standard streams, event loop, listening sockets, pipes, catalog, event log, Python's own files, and
connections that are being closed."""
PER_SESSION = 4
"""A session that hangs is replaced by a second one (twice as many at most), and a library may hold a socket and a
file for each."""
HEALTH_CONNECTIONS = 100
"""Connections of load balancers to `health_listen` in each worker, beside those of the main port."""
_HEALTH_PART = 8
"""Part of what is left that the health port may have, where that is less."""
FEWEST_CONNECTIONS = 32
"""Below this the proxy does not start."""


class TooFewDescriptors(Exception):
    """The limit of open files leaves no room to serve; the message says how many are needed."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Connections that a worker may have at most, to the main port and to the health port."""

    connections: int
    health: int


def needed(configuration: Configuration) -> int:
    """Descriptors of a worker that gives every connection of `max_connections` a place."""
    server = configuration.server
    return server.max_connections + (HEALTH_CONNECTIONS if server.health_listen else 0) + _own(configuration)


def share_out(configuration: Configuration, descriptors: int) -> Shares:
    """How a worker shares its `descriptors` out. Raises TooFewDescriptors."""
    left = descriptors - _own(configuration)
    health = max(0, min(HEALTH_CONNECTIONS, left // _HEALTH_PART)) if configuration.server.health_listen else 0
    connections = min(configuration.server.max_connections, left - health)
    if connections < min(FEWEST_CONNECTIONS, configuration.server.max_connections):
        health_part = FEWEST_CONNECTIONS // (_HEALTH_PART - 1) + 1 if configuration.server.health_listen else 0
        fewest = _own(configuration) + FEWEST_CONNECTIONS + health_part
        raise TooFewDescriptors(
            f"a process may open {descriptors} files here (RLIMIT_NOFILE), too few to serve: {fewest} are the fewest,"
            f" and {needed(configuration)} are needed for max_connections = {configuration.server.max_connections};"
            " raise LimitNOFILE of the systemd unit, `ulimit -n` of the shell, or the container's nofile limit"
        )
    return Shares(connections, health)


def raise_limit(wanted: int) -> int:
    """Raise the soft limit of open files up to `wanted`, as far as the hard limit allows; the limit then in force.

    No further: some libraries of HSMs take long, or fail, where the limit is a billion.
    """
    # A sandbox may forbid these calls: then the limit stays what it is.
    with suppress(OSError, ValueError):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        reachable = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        if soft != resource.RLIM_INFINITY and soft < reachable:
            resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))
    return limit()


def limit() -> int:
    """How many files this process may open."""
    try:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    except OSError:
        # Older versions of systemd count getrlimit's system call among those that change limits.
        lines = Path("/proc/self/limits").read_text().splitlines()
        found = next(line.split()[3] for line in lines if line.startswith("Max open files"))
        return sys.maxsize if found == "unlimited" else int(found)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def _own(configuration: Configuration) -> int:
    return RESERVE + PER_SESSION * sum(table.settings.sessions for table in configuration.serving.values())
