"""The event loop's side of a worker: listeners, connections, readiness, draining."""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from holdfast.gateway.http.connections import ConnectionTable, Place
from holdfast.gateway.http.listener import Listener
from holdfast.gateway.http.protocol import HttpConnection
from holdfast.gateway.http.request import Handler, Limits
from holdfast.gateway.observe.event_log import Record
from holdfast.gateway.observe.messages import HsmReport, KeyCount, Report, ThreadReport
from holdfast.gateway.observe.notify import messages_lost
from holdfast.gateway.worker import descriptors
from holdfast.gateway.worker.handlers import ApiHandler, ProbeHandler, Probes
from holdfast.protocols.xks.event import Event
from holdfast.protocols.xks.get_health_status import current_status
from holdfast.protocols.xks.pipeline import Pipeline
from holdfast.xks.types import HealthStatus

if TYPE_CHECKING:
    from holdfast.gateway.worker.parts import Parts

_PART_PER_SOURCE = 4
"""One address may take a quarter of the places with connections that have not signed a request: a load balancer that
all of KMS's connections come through needs that many only in the moment in which they are opened."""
FEW_KEYS = 200
MANY_KEYS_EVERY = 10.0
"""Seconds between two reports of the counts of more keys than that: of 10,000 they take the supervisor 0.1 s."""
_SHORTEST_WAIT = 0.02
"""Seconds for an event to be written, however late the request is."""


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
        limits = Limits(
            settings.max_header_bytes, settings.max_body_bytes, settings.read_timeout_s, settings.idle_timeout_s
        )
        clock = parts.services.clock
        shares = descriptors.share_out(parts.configuration, descriptors.limit())
        self._connections = ConnectionTable(
            limits,
            places=shares.connections,
            per_source=settings.max_unauthenticated_per_source or _part(shares.connections),
            loop=loop,
            clock=clock,
        )
        self._health_connections = ConnectionTable(
            limits, places=shares.health, per_source=_part(shares.health), loop=loop, clock=clock
        )
        self._counts: Counter[tuple[str, str]] = Counter()
        self._key_counts = KeyCounts(parts.budget.counts, parts.feed.owner, clock=clock)
        api = ApiHandler(
            Pipeline(parts.services),
            Probes(self._obstacles, explain=False),
            parts.admission,
            record=self._record,
            recorded=self._recorded if parts.configuration.needs_records else None,
        )
        probe_handler = ProbeHandler(Probes(self._obstacles, explain=True))
        self._listeners = [
            *(self._listener(sock, api, self._connections) for sock in listening),
            *(self._listener(sock, probe_handler, self._health_connections) for sock in health),
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
            authenticated=self._connections.authenticated,
            handshakes=self._connections.handshakes,
            places=self._connections.places,
            in_flight=self._connections.in_flight,
            counts=self._all_counts(),
            event_lines_lost=parts.event_log.lost,
            refusals_left_out=parts.event_log.left_out,
            locally_stopped=parts.local_stop.words() is not None,
            outlet_lines_lost=parts.event_log.outlet_lines_lost,
            event_log_fails=parts.event_log.trouble() is not None,
            audit_spool_fails=parts.event_log.audit_trouble() is not None,
            catalog_age=parts.feed.stale_for(),
            hsms=[
                HsmReport(
                    name,
                    current_status(hsm.health(), now).value,
                    asdict(hsm.gauges()),
                    stopped=hsm.stopped_keys(),
                    recorded=parts.key_records.recorded.get(name, {}),
                    untrusted=hsm.untrusted_keys(),
                    alarms=hsm.alarms(),
                )
                for name, hsm in parts.hsms.items()
            ],
            encryptions=self._key_counts.fresh(),
            credentials_used=dict(parts.credentials_used),
            stranded=any(hsm.is_stranded() for hsm in parts.hsms.values()),
            threads=[
                ThreadReport(t.name, t.failures, t.trouble() is None) for t in (*parts.threads, parts.usage.thread)
            ],
            messages_lost=messages_lost(),
            usage_lost=parts.usage.lost,
            catalog=None if parts.gauges is None else parts.gauges.latest,
            credentials_unreadable={
                keystore.name: keystore.unreadable for keystore in parts.feed.snapshot.keystores.values()
            },
        )

    def _record(self, event: Event, client: str) -> None:
        ended = self._parts.services.now().timestamp()
        self._count(event, ended)
        self._parts.event_log.append(Record(ended, event, client))

    async def _recorded(self, event: Event, client: str) -> bool:
        parts = self._parts
        record = Record(parts.services.now().timestamp(), event, client)
        left = parts.configuration.server.deadline_ms / 1000 - event.total
        if not await parts.event_log.recorded(record, within=max(_SHORTEST_WAIT, left)):
            return False
        self._count(event, record.ended)
        return True

    def _count(self, event: Event, ended: float) -> None:
        self._parts.tally.add(event)
        self._parts.usage.add(event, ended)

    def _obstacles(self) -> list[str]:
        """Why a key operation would not succeed now."""
        services = self._parts.services
        now = services.clock()
        obstacles = ["the proxy is draining"] if self._connections.draining else []
        moment = services.now()
        keystores = [keystore.at(moment) for keystore in services.snapshot().keystores.values()]
        if not keystores:
            obstacles.append("the catalog has no key store")
        elif all(keystore.blocked for keystore in keystores):
            obstacles.append("every key store is blocked")
            obstacles += [words for words in (self._parts.local_stop.words(),) if words is not None]
        obstacles += [
            f"no credential of the key store {keystore.name} can be read here"
            for keystore in keystores
            if keystore.unreadable and not keystore.credentials and not keystore.blocked
        ]
        statuses = {name: current_status(hsm.health(), now) for name, hsm in services.hsms.items()}
        if all(status is HealthStatus.UNAVAILABLE for status in statuses.values()):
            obstacles += [f"the HSM {name} is UNAVAILABLE" for name in statuses]
        unwritable = self._parts.event_log.obstacle()
        if unwritable is not None:
            obstacles.append(unwritable)
        obstacles += [trouble for thread in self._parts.threads if (trouble := thread.trouble()) is not None]
        return obstacles

    def _all_counts(self) -> dict[tuple[str, str], int]:
        ended = self._connections.ended + self._health_connections.ended
        return {**self._counts, **{("connections_ended", what): count for what, count in ended.items()}}

    def _listener(self, listening: socket.socket, handler: Handler, connections: ConnectionTable) -> Listener:
        def connect(place: Place) -> HttpConnection:
            return HttpConnection(handler, connections, place, loop=self._loop, clock=self._parts.services.clock)

        server = self._parts.configuration.server
        main = connections is self._connections
        return Listener(
            listening,
            connect,
            connections=connections,
            tls=lambda: self._parts.tls if main else self._parts.health_tls,
            workers=server.workers if main else 1,
            networks=server.allow_networks if main else (),
            counts=self._counts,
            loop=self._loop,
        )


def _part(places: int) -> int:
    return max(1, places // _PART_PER_SOURCE)


class KeyCounts:
    """The encryptions of the keys that were used here, for the reports: a catalog may hold 100,000 others."""

    def __init__(
        self,
        counts: Callable[[], Mapping[int, int]],
        owner: Callable[[int], tuple[str, str, int] | None],
        *,
        clock: Callable[[], float],
    ) -> None:
        self._counts = counts
        self._owner = owner
        self._clock = clock
        self._made_at = float("-inf")

    def fresh(self) -> list[KeyCount] | None:
        """None: those of the report before will do."""
        counts, now = self._counts(), self._clock()
        if len(counts) > FEW_KEYS and now - self._made_at < MANY_KEYS_EVERY:
            return None
        self._made_at = now
        owned = [(self._owner(row), count) for row, count in counts.items()]
        return [KeyCount(*owner, count) for owner, count in owned if owner is not None]
