"""What each node says of itself: the catalog version that all its workers serve, its HSMs, its lease.

A node serves what it last read for the length of its lease, `stale_limit_s`, counted from the start of its last look
at the catalog. So once a change is committed, each node either sees it at its next look, or sees nothing, and blocks
everything by itself at most one lease after the commit. That holds whatever the network does.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from holdfast._version import __version__
from holdfast.store import rows, schema
from holdfast.store.database import Database
from holdfast.store.rows import raw
from holdfast.store.use import LIVE, lives
from holdfast.store.writing import Writing

_TAKEN_OVER = timedelta(seconds=30)
"""After so long without a word the report of a worker may be replaced by another process in its place."""
_WORST_FIRST = ("UNAVAILABLE", "DEGRADED", "ACTIVE")
_MAX_WORDS = 512


@dataclass(frozen=True, slots=True)
class Node:
    """What is the same for all workers of a node. `lease`: seconds that it serves without hearing of the catalog."""

    name: str
    site: str | None
    workers: int
    lease: float


@dataclass(frozen=True, slots=True)
class WorkerState:
    """What a worker serves: `version` of the catalog, the states of its HSMs by name.

    `holds_back` says what stands still here beyond what the catalog says; None: nothing.
    """

    version: int
    hsms: Mapping[str, str]
    holds_back: str | None


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node as the catalog knows it. `version` is the lowest of its workers; None: not all of them have reported."""

    name: str
    site: str | None
    holdfast: str
    workers: int
    version: int | None
    seen: datetime
    lease: float
    hsms: Mapping[str, str]
    holds_back: str | None

    def lives(self, now: datetime) -> bool:
        """Whether it may still serve."""
        return lives(self.seen, self.lease, now)

    def serves(self, version: int) -> bool:
        """Whether all its workers serve this version or a later one."""
        return self.version is not None and self.version >= version


class Nodes(Database):
    """Reports of nodes. They make no new version. Raises CatalogError."""

    def report_worker(self, node: Node, place: int, state: WorkerState, *, run: str, first: bool) -> None:
        """What the worker in this place of the node serves now.

        `run` is the process's own id. The first report of a process takes the place over; a process whose place
        another one has taken over drains, and says no more.
        """
        table, now = schema.worker_reports, self._now()
        key = {"proxy_id": node.name, "worker": place}
        values = {
            "run": run,
            "reported_at": now,
            "catalog_version": state.version,
            "hsms": msgspec.json.encode(state.hsms).decode(),
            "holds_back": None if state.holds_back is None else state.holds_back[:_MAX_WORDS],
        }
        mine = [table.c[name] == value for name, value in key.items()]
        if not first:
            mine.append(or_(table.c.run == run, table.c.reported_at < now - _TAKEN_OVER))
        with self._writing() as connection:
            if not connection.execute(update(table).where(*mine).values(values)).rowcount:
                try:
                    with connection.begin_nested():
                        connection.execute(insert(table).values(**key, **values))
                except IntegrityError:
                    return
            proxies = schema.proxies
            connection.execute(
                update(proxies)
                .where(proxies.c.id == node.name)
                .values(last_seen=now, site=node.site, holdfast=__version__, lease_s=node.lease)
            )
            old = delete(table).where(table.c.proxy_id == node.name, table.c.worker >= node.workers)
            connection.execute(old)

    def forget_worker(self, node: Node, *, run: str) -> None:
        """The process has ended in order: nothing more is served by it, and with the last one no lease runs on."""
        table, proxies = schema.worker_reports, schema.proxies
        with self._writing() as connection:
            connection.execute(delete(table).where(table.c.proxy_id == node.name, table.c.run == run))
            others = select(table.c.worker).where(table.c.proxy_id == node.name)
            ended = update(proxies).where(proxies.c.id == node.name, ~others.exists())
            connection.execute(ended.values(lease_s=None))

    def nodes(self) -> list[NodeRow]:
        """The nodes that run, or ended without a word less than a day ago, by name."""
        with self._reading() as connection:
            return nodes_of(connection)


def nodes_of(connection: Connection) -> list[NodeRow]:
    """As `Nodes.nodes`."""
    proxies, reports = schema.proxies, schema.worker_reports
    own: dict[Any, list[Row[Any]]] = {}
    names = ("proxy_id", "worker", "catalog_version", "reported_at", "hsms", "holds_back")
    for report in connection.execute(select(*raw(reports, *names))):
        own.setdefault(report.proxy_id, []).append(report)
    columns = raw(proxies, "id", "site", "holdfast", "workers", "lease_s")
    found = connection.execute(select(*columns, proxies.c.last_seen).order_by(proxies.c.id)).all()
    return [_node(row, own[row.id]) for row in found if row.id in own]


class NodeChanges(Writing):
    """Changes to nodes, by persons. They raise CatalogError."""

    def forget_node(self, name: str) -> None:
        """Wait for this node no more: whoever says so knows that it does not serve."""
        for table in (schema.generation_reports, schema.worker_reports):
            self.connection.execute(delete(table).where(table.c.proxy_id == name))
        self.connection.execute(delete(schema.proxies).where(schema.proxies.c.id == name))


def _node(row: Any, reports: list[Row[Any]]) -> NodeRow:
    workers = row.workers if type(row.workers) is int else len(reports)
    versions = [report.catalog_version for report in reports if type(report.catalog_version) is int]
    hsms: dict[str, str] = {}
    for report in reports:
        for name, status in _hsms(report.hsms).items():
            hsms[name] = min(status, hsms.get(name, status), key=_badness)
    said = [report.holds_back for report in reports if isinstance(report.holds_back, str)]
    return NodeRow(
        name=rows.said(row.id) or "?",
        site=row.site if isinstance(row.site, str) else None,
        holdfast=row.holdfast if isinstance(row.holdfast, str) else "unknown",
        workers=workers,
        version=min(versions) if len(versions) >= workers else None,
        seen=row.last_seen,
        lease=float(row.lease_s) if isinstance(row.lease_s, int | float) else LIVE.total_seconds(),
        hsms=hsms,
        holds_back=min(said, default=None),
    )


def _badness(status: str) -> int:
    return _WORST_FIRST.index(status) if status in _WORST_FIRST else -1


def _hsms(text: object) -> dict[str, str]:
    try:
        return msgspec.json.decode(text if isinstance(text, str) else "{}", type=dict[str, str])
    except msgspec.DecodeError:
        return {}


class NodeReporter:
    """One worker's reports: whenever it serves another version or holds back something else, and as a heartbeat."""

    def __init__(  # noqa: PLR0913 (what one worker gives it)
        self,
        catalog: Nodes,
        node: Node,
        *,
        place: int,
        run: str,
        hsms: Callable[[], Mapping[str, str]],
        holds_back: Callable[[], str | None],
    ) -> None:
        self.node = node
        self._catalog = catalog
        self._place = place
        self._run = run
        self._hsms = hsms
        self._holds_back = holds_back
        self._tried: tuple[int, str | None] | None = None
        self._reported = False

    def news(self, version: int, doubt: str | None) -> bool:
        """Whether there was no attempt yet to report this."""
        return self._tried != (version, self._held(doubt))

    def report(self, version: int, doubt: str | None) -> None:
        """Raises CatalogError."""
        held = self._held(doubt)
        self._tried = (version, held)
        state = WorkerState(version, self._hsms(), held)
        self._catalog.report_worker(self.node, self._place, state, run=self._run, first=not self._reported)
        self._reported = True

    def forget(self) -> None:
        """The worker ends in order. Raises CatalogError."""
        if self._reported:
            self._catalog.forget_worker(self.node, run=self._run)

    def _held(self, doubt: str | None) -> str | None:
        said = [self._holds_back(), None if doubt is None else f"it does not believe the catalog: {doubt}"]
        return "; ".join(one for one in said if one is not None) or None
