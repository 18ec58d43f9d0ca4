"""Many callers at once, and what the server's own event log says of them."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from holdfast.xks.types import Operation

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

    from tests.server.client import Caller, Reply
    from tests.server.proxy_server import ProxyServer

KMS_PATIENCE = 250.0
"""Milliseconds after which KMS gives up."""


def at_once(callers: list[Caller], work: Callable[[Caller], Reply]) -> list[Reply]:
    """One reply for each caller; they call side by side."""
    with ThreadPoolExecutor(len(callers)) as threads:
        return list(threads.map(work, callers))


def callers_of_every_worker(server: ProxyServer, stack: ExitStack) -> list[Caller]:
    """Connections that reach both of two workers, as the event log shows."""
    callers: list[Caller] = []
    marker = str(uuid.uuid4())

    def reached() -> bool:
        callers.append(stack.enter_context(server.caller()))
        callers[-1].call(Operation.GET_HEALTH_STATUS, metadata={"kmsRequestId": marker})
        return len({event["worker"] for event in server.events() if event.get("kmsRequestId") == marker}) == 2

    server.eventually(reached, within=10, what="both workers are reached")
    return callers


def told(reply: Reply) -> tuple[int, str]:
    """Status and errorName."""
    return reply.status, reply.error


class EventsSince:
    """The events of the requests that are made after this moment, to a server with one worker."""

    def __init__(self, server: ProxyServer) -> None:
        assert server.settings["server"]["workers"] == 1, "each worker writes its lines in its own order"
        self._server = server
        # Lines are written a little after their answers: a request of its own marks where the new ones begin.
        self._marker = str(uuid.uuid4())
        with server.caller() as caller:
            caller.call(Operation.GET_HEALTH_STATUS, metadata={"kmsRequestId": self._marker})

    def wait_for(self, count: int) -> list[dict[str, Any]]:
        """The new events, once there are `count` of them."""
        self._server.eventually(lambda: len(self._new()) >= count, within=5, what=f"{count} events")
        return self._new()

    def _new(self) -> list[dict[str, Any]]:
        events = self._server.events()
        ids = [event.get("kmsRequestId") for event in events]
        return events[ids.index(self._marker) + 1 :] if self._marker in ids else []


def totals(events: list[dict[str, Any]]) -> list[float]:
    """Milliseconds from the first byte of each request to its answer."""
    return [event["milliseconds"]["total"] for event in events]
