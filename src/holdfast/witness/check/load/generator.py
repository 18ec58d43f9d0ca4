"""One process of the load: an asyncio open-loop generator over keep-alive connections.

Latency is measured from the time at which a request was meant to leave, so a stalled endpoint is charged for the
requests that had to wait behind the stall (coordinated omission).
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import perf_counter
from typing import TYPE_CHECKING, cast

import httptools
import msgspec
import uvloop

from holdfast.witness.check.endpoint import Endpoint, ProxyConfiguration
from holdfast.witness.check.finding import printable
from holdfast.witness.check.session import Sealed, Trust, decrypt_body, encrypt_body
from holdfast.witness.check.signing import Signing, signed_request
from holdfast.witness.check.wire import tls_context
from holdfast.xks.secret import Secret

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

_GIVE_UP = 2.0  # seconds after which an unanswered request counts as timed out
_EXPIRE_EVERY = 0.1
_TICK = 0.001
_OK = 200


@dataclass(frozen=True, slots=True)
class Job:
    """What one process has to do. Plain values: it crosses a pipe to a spawned process, never argv."""

    host: str
    port: int
    address: str
    uri_path: str
    access_key_id: str
    secret: bytes = field(repr=False)
    trust: Trust
    region: str
    key: str
    sample: Sealed = field(repr=False)
    rate: float
    seconds: float
    connections: int
    warm: int
    start_at: float
    offset: float

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint again."""
        return Endpoint(
            self.host, self.port, ProxyConfiguration(self.uri_path, self.access_key_id, Secret(self.secret))
        )


@dataclass(slots=True)
class Tally:
    """What one process saw; seconds, counted from the intended sending time."""

    sent: int = 0
    latencies: list[float] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    bytes_out: int = 0
    bytes_in: int = 0


class _Client(asyncio.Protocol):
    """A keep-alive connection with at most one request under way."""

    def __init__(self, finished: Callable[[_Client, float, str | None, int], None]) -> None:
        self._finished = finished
        self._transport: asyncio.Transport | None = None
        self._intended: float | None = None
        self._received = 0
        self._new_parser()

    def _new_parser(self) -> None:
        self._body = bytearray()
        self._parser = httptools.HttpResponseParser(self)

    @property
    def alive(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def send(self, octets: bytes, intended: float) -> None:
        assert self._transport is not None  # noqa: S101 (sent only on connections that were made)
        self._intended, self._received = intended, 0
        self._transport.write(octets)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.abort("malformed response")

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        error = None if status == _OK else _error_name(status, bytes(self._body))
        if not self._parser.should_keep_alive() and self._transport is not None:
            self._transport.close()
        self._new_parser()
        self._finish(error)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._transport = None
        self._finish("connection lost")

    def expire(self, now: float) -> None:
        """Gives up on a request that has waited too long; its connection is of no use any more."""
        if self._intended is not None and now - self._intended > _GIVE_UP:
            self.abort("timeout")

    def abort(self, error: str) -> None:
        self._finish(error)
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def _finish(self, error: str | None) -> None:
        intended, self._intended = self._intended, None
        if intended is not None:
            self._finished(self, intended, error, self._received)


def _error_name(status: int, body: bytes) -> str:
    marker = b'"errorName":"'
    compact = body.replace(b'": "', b'":"')
    at = compact.find(marker)
    if at < 0:
        return f"HTTP {status}"
    return printable(compact[at + len(marker) :].split(b'"', 1)[0][:64].decode("ascii", "replace"))


class _Generator:
    """The schedule, the connections and the tally of one process."""

    def __init__(self, job: Job, context: ssl.SSLContext) -> None:
        self._job = job
        self._context = context
        self._endpoint = job.endpoint
        self._idle: deque[_Client] = deque()
        self._busy: set[_Client] = set()
        self._opening = 0
        self._due: deque[float] = deque()
        self._count = 0
        self.tally = Tally()

    async def run(self) -> Tally:
        job = self._job
        await asyncio.gather(*(self._open() for _ in range(min(job.warm, job.connections))))
        total = max(1, round(job.rate * job.seconds))
        # Wall-clock start shared by all processes, then this process's monotonic clock.
        start = perf_counter() + max(0.0, job.start_at - datetime.now(UTC).timestamp()) + job.offset
        scheduled, expired = 0, start
        while scheduled < total:
            now = perf_counter()
            while scheduled < total and start + scheduled / job.rate <= now:
                due = start + scheduled / job.rate
                self.tally.lags.append(now - due)
                self._due.append(due)
                scheduled += 1
            self._dispatch(now)
            if now - expired > _EXPIRE_EVERY:
                self._expire(now)
                expired = now
            await asyncio.sleep(min(_TICK, max(0.0, start + scheduled / job.rate - perf_counter())))
        await self._drain()
        return self.tally

    async def _drain(self) -> None:
        give_up = perf_counter() + _GIVE_UP + 1.0
        while (self._due or self._busy) and perf_counter() < give_up:
            self._dispatch(perf_counter())
            await asyncio.sleep(_TICK)
        for client in (*self._busy, *self._idle):
            client.abort("timeout")

    def _dispatch(self, now: float) -> None:
        while self._due:
            if now - self._due[0] > _GIVE_UP:
                self._due.popleft()
                self.tally.sent += 1
                self.tally.errors["timeout"] += 1
                continue
            while self._idle and not self._idle[-1].alive:
                self._idle.pop()
            if not self._idle:
                self._grow()
                return
            # The last one used is used next: connections that were needed once cost nothing later.
            client = self._idle.pop()
            octets = self._octets()
            self.tally.sent += 1
            self.tally.bytes_out += len(octets)
            self._busy.add(client)
            client.send(octets, self._due.popleft())

    def _expire(self, now: float) -> None:
        for client in tuple(self._busy):
            client.expire(now)

    def _grow(self) -> None:
        room = self._job.connections - len(self._busy) - len(self._idle) - self._opening
        for _ in range(min(room, len(self._due) - self._opening, 4)):
            self._opening += 1
            task = asyncio.ensure_future(self._open_one_more())
            task.add_done_callback(lambda done: done.exception())

    async def _open_one_more(self) -> None:
        try:
            await self._open()
        finally:
            self._opening -= 1

    async def _open(self) -> None:
        try:
            async with asyncio.timeout(_GIVE_UP):
                _, client = await asyncio.get_running_loop().create_connection(
                    lambda: _Client(self._finished),
                    self._job.address,
                    self._job.port,
                    ssl=self._context,
                    server_hostname=self._job.host,
                )
        except (OSError, TimeoutError) as error:
            self.tally.errors[f"connect: {type(error).__name__}"] += 1
            return
        self._idle.append(client)

    def _finished(self, client: _Client, intended: float, error: str | None, received: int) -> None:
        self._busy.discard(client)
        self.tally.bytes_in += received
        if error is None:
            self.tally.latencies.append(perf_counter() - intended)
        else:
            self.tally.errors[error] += 1
        if client.alive:
            self._idle.append(client)

    def _octets(self) -> bytes:
        # Encrypt with a CDIV and Decrypt in turn: what KMS sends for GenerateDataKey and Decrypt.
        job, self._count = self._job, self._count + 1
        if self._count % 2:
            indicator, body = "encrypt", encrypt_body(job.sample.plaintext, job.sample.aad, cdiv=True)
        else:
            indicator, body = "decrypt", decrypt_body(job.sample)
        return signed_request(
            self._endpoint,
            "POST",
            self._endpoint.path("keys", job.key, indicator),
            body=msgspec.json.encode(body),
            signing=Signing(job.region),
            now=datetime.now(UTC),
        ).to_bytes()


def generate(job: Job) -> Tally:
    """Runs one process's share of the load to its end: `seconds` and at most 3 more."""
    context = tls_context(job.trust.ca, job.trust.client_certificate, verify=False)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_Generator(job, context).run())
