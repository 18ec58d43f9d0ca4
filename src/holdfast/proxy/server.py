"""The event loop's side of a worker: listeners, connections, readiness, draining."""

import asyncio
import socket
import ssl
from dataclasses import asdict
from typing import TYPE_CHECKING

from holdfast.operations.event import Event
from holdfast.operations.get_health_status import current_status
from holdfast.operations.pipeline import Pipeline
from holdfast.proxy.connections import ConnectionTable
from holdfast.proxy.event_log import Record
from holdfast.proxy.http import HttpConnection
from holdfast.proxy.listener import REST, Listener
from holdfast.proxy.messages import HsmReport, KeyCount, Report, ThreadReport
from holdfast.proxy.notify import messages_lost
from holdfast.proxy.request import Limits, Site
from holdfast.proxy.site import ApiSite, Probes, ProbeSite
from holdfast.xks.types import HealthStatus

if TYPE_CHECKING:
    from holdfast.proxy.parts import Parts

_HEALTH_CONNECTIONS = 100
"""Connections of load balancers beside those of the main port."""


class Server:
    """Serves `parts` on the given listening sockets."""

    def __init__(
        self,
        parts: "Parts",
        listening: list[socket.socket],
        health: list[socket.socket],
        *,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._parts = parts
        self._loop = loop
        settings = parts.configuration.server
        limits = Limits(settings.max_headers, settings.max_body, settings.read_timeout, settings.idle_timeout)
        clock = parts.services.clock
        self._connections = ConnectionTable(limits, loop=loop, clock=clock)
        self._health_connections = ConnectionTable(limits, loop=loop, clock=clock)
        probes = Probes(self._obstacles)
        api = ApiSite(
            Pipeline(parts.services),
            probes,
            parts.admission,
            deadline=settings.deadline,
            clock=clock,
            record=self._record,
        )
        probe_site = ProbeSite(probes)
        self._listeners = [
            *(self._listener(sock, api) for sock in listening),
            *(self._health_listener(sock, probe_site) for sock in health),
        ]

    def start(self) -> None:
        """Accept connections."""
        self._connections.sweep()
        self._health_connections.sweep()
        for listener in self._listeners:
            listener.start()

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 (a part of the drain, not of the caller's patience)
        """Accept no more, answer what is in flight, close; what is left after `timeout` seconds is cut off."""
        for listener in self._listeners:
            listener.stop()
        await asyncio.gather(self._connections.drain(timeout), self._health_connections.drain(timeout))

    def report(self) -> Report:
        """The worker's counters and gauges."""
        parts = self._parts
        now = parts.services.clock()
        return Report(
            rows=parts.tally.rows(),
            connections=len(self._connections) + len(self._health_connections),
            in_flight=self._connections.in_flight,
            event_lines_lost=parts.event_log.lost,
            catalog_age=parts.feed.stale_for(),
            hsms=[
                HsmReport(name, current_status(hsm.health(), now).value, asdict(hsm.gauges()), hsm.stopped_keys())
                for name, hsm in parts.hsms.items()
            ],
            encryptions=self._encryptions(),
            credentials_used=dict(parts.credentials_used),
            stranded=any(hsm.is_stranded() for hsm in parts.hsms.values()),
            threads=[ThreadReport(t.name, t.failures, t.trouble() is None) for t in parts.threads],
            messages_lost=messages_lost(),
        )

    def _encryptions(self) -> list[KeyCount]:
        counts = self._parts.budget.counts()
        return [
            KeyCount(keystore.name, key.external_key_id, generation.number, counts[generation.id])
            for keystore in self._parts.feed.snapshot.keystores.values()
            for key in keystore.keys.values()
            for generation in key.generations.values()
            if generation.id in counts
        ]

    def _record(self, event: Event, client: str) -> None:
        self._parts.tally.add(event)
        self._parts.event_log.append(Record(self._parts.services.now().timestamp(), event, client))

    def _obstacles(self) -> list[str]:
        """Why a key operation would not succeed now."""
        services = self._parts.services
        now = services.clock()
        obstacles = ["the proxy is draining"] if self._connections.draining else []
        keystores = services.snapshot().keystores.values()
        if not keystores:
            obstacles.append("the catalog has no key store")
        elif all(keystore.blocked for keystore in keystores):
            obstacles.append("every key store is blocked")
        statuses = {name: current_status(hsm.health(), now) for name, hsm in services.hsms.items()}
        if all(status is HealthStatus.UNAVAILABLE for status in statuses.values()):
            obstacles += [f"the HSM {name} is UNAVAILABLE" for name in statuses]
        obstacles += [trouble for thread in self._parts.threads if (trouble := thread.trouble()) is not None]
        return obstacles

    def _listener(self, listening: socket.socket, site: Site) -> Listener:
        def connect() -> HttpConnection:
            return HttpConnection(site, self._connections, loop=self._loop, clock=self._parts.services.clock)

        return Listener(
            listening,
            connect,
            connections=self._connections,
            max_connections=lambda: self._parts.configuration.server.max_connections,
            tls=self._context,
            rest=REST if self._parts.configuration.server.workers > 1 else 0.0,
            loop=self._loop,
        )

    def _health_listener(self, listening: socket.socket, site: Site) -> Listener:
        def connect() -> HttpConnection:
            return HttpConnection(site, self._health_connections, loop=self._loop, clock=self._parts.services.clock)

        return Listener(
            listening,
            connect,
            connections=self._health_connections,
            max_connections=lambda: _HEALTH_CONNECTIONS,
            tls=lambda: None,
            rest=0.0,
            loop=self._loop,
        )

    def _context(self) -> ssl.SSLContext | None:
        return self._parts.tls
