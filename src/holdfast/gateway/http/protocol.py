"""HTTP/1.1 on one connection: strict framing, caps, timeouts, and answers in the order of the requests.

llhttp (httptools) refuses what requests are smuggled with: both length headers, two Content-Lengths, folded
lines, bare CR or LF, NUL, a space before the colon, chunk sizes that are not hexadecimal. What it lets pass
and this proxy does not need is refused here: other transfer codings, trailers, upgrades, other versions.
"""

import asyncio
import math
import re
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

import httptools

from holdfast.gateway.http.head import read_head
from holdfast.gateway.http.request import Handler, HttpRequest, Limits
from holdfast.gateway.http.responses import CONTINUE, to_bytes
from holdfast.protocols.port import Reason, Refusal, Response

if TYPE_CHECKING:
    from holdfast.gateway.http.connections import Place

MAX_PIPELINED = 16
"""Requests of one connection that wait for the answer to an earlier one."""
MAX_CHUNKS = 256
"""Chunks of one body: KMS sends none, and a body in chunks of one byte takes the event loop's time."""
MAX_DRAINED = 1 << 20
"""Bytes of a refused body that are read and dropped to keep the connection."""
LINGER = 1.0
"""Seconds in which a refused sender may still send: closing at once would reset the answer away (RFC 9112, 9.6)."""


class _Refused(Exception):
    """Ends the parser."""


class Connections(Protocol):
    """What the connections of a worker share (`holdfast.gateway.http.connections`)."""

    limits: Limits
    draining: bool
    in_flight: int

    def opened(self, connection: "HttpConnection") -> None:
        """Watch its timeouts."""

    def authenticate(self, connection: "HttpConnection") -> None:
        """It has signed a request."""

    def closed(self, connection: "HttpConnection") -> None:
        """Forget it; its place is free."""


class HttpConnection(asyncio.Protocol):
    """A connection of one client."""

    __slots__ = (
        "_answering",
        "_body",
        "_body_size",
        "_chunks",
        "_client",
        "_clock",
        "_connections",
        "_discarding",
        "_dropped",
        "_eof",
        "_expects_continue",
        "_handler",
        "_header_bytes",
        "_loop",
        "_now",
        "_of_this_read",
        "_parser",
        "_pending",
        "_refusal",
        "_request",
        "_task",
        "_tls",
        "_transport",
        "_wire_bytes",
        "expires",
        "place",
    )
    _transport: asyncio.Transport

    def __init__(
        self,
        handler: Handler,
        connections: Connections,
        place: "Place",
        *,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
    ) -> None:
        # State of the connection.
        self.place = place
        self._handler = handler
        self._connections = connections
        self._loop = loop
        self._clock = clock
        self._client = place.source
        self._tls = False
        self._eof = False
        self._discarding = False
        self._dropped = 0
        self._pending: deque[HttpRequest] = deque()
        self._answering: HttpRequest | None = None
        self._task: asyncio.Task[None] | None = None
        self._parser: httptools.HttpRequestParser | None = None
        self.expires = math.inf
        # State of the request that is being read.
        self._now = 0.0
        self._of_this_read = 0
        self._request: HttpRequest | None = None
        self._body: list[bytes] = []
        self._body_size = 0
        self._header_bytes = 0
        self._chunks = 0
        self._wire_bytes = 0
        self._expects_continue = False
        self._refusal: Refusal | None = None

    # ---- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the wait for a first request."""
        self._transport = transport  # type: ignore[assignment]  # a stream's transport is an asyncio.Transport
        self._tls = transport.get_extra_info("ssl_object") is not None
        self.expires = self._clock() + self._connections.limits.idle_timeout
        self._connections.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's signature)
        """An answer that is still being made is recorded, and not sent."""
        self._discarding = True
        self._pending.clear()
        # The parser points back here; without this each connection would wait for the cycle collector.
        self._parser = None
        self._connections.closed(self)

    def data_received(self, data: bytes) -> None:
        """Parse, and begin to answer what is complete."""
        if self._discarding:
            self._dropped += len(data)
            if self._dropped > MAX_DRAINED:
                self._transport.abort()
            return
        self._now = self._clock()
        self._of_this_read = 0
        if self._parser is None:
            self._parser = httptools.HttpRequestParser(self)
        partial = self._request
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if isinstance(error, httptools.HttpParserInvalidMethodError) and not self._of_this_read:
                self._note_unknown_method(data)
            self._malformed(error)
            return
        if partial is not None and partial is self._request and partial.method:
            # Chunk extensions are in no part that the parser hands over.
            self._wire_bytes += len(data)
            if self._wire_bytes > 2 * self._connections.limits.max_body:
                self._refused("the chunks of the request's body are mostly not body")
                self._malformed(None)
        elif partial is not None and partial is self._request:
            # llhttp hands over a header only when it is whole: an endless one must be counted here.
            self._header_bytes += len(data)
            if self._header_bytes > self._connections.limits.max_headers:
                self._refused("the request's headers are longer than this proxy accepts")
                self._malformed(None)

    def eof_received(self) -> bool:
        """A client that has sent its last request still gets the answer, where TLS does not forbid it."""
        self._eof = True
        return self._answering is not None and not self._tls

    def pause_writing(self) -> None:
        """A client that does not read its answers sends no more requests, and is cut off after a while."""
        self._transport.pause_reading()
        self.expires = self._clock() + self._connections.limits.read_timeout

    def resume_writing(self) -> None:
        """Go on."""
        self.expires = math.inf if self._answering else self._clock() + self._connections.limits.idle_timeout
        if len(self._pending) < MAX_PIPELINED:
            self._transport.resume_reading()

    # ---- the parser's side

    def on_message_begin(self) -> None:
        """A request's first byte. After the last request the rest is not even parsed."""
        if self._discarding:
            raise self._refused("the connection is about to close")
        self._request = HttpRequest(self._now, self._client)
        self._body = []
        self._body_size = self._header_bytes = self._chunks = self._wire_bytes = 0
        self._expects_continue = False
        if self._answering is None:
            self.expires = self._now + self._connections.limits.read_timeout

    def on_url(self, url: bytes) -> None:
        """A part of the request target."""
        if self._request is not None:
            self._request.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, whole. After the header section it is a trailer."""
        request = self._request
        if request is None or request.method:
            raise self._refused("trailers are not accepted")
        name = name.lower()
        # llhttp strips the optional white space before the value only (RFC 9110, 5.5).
        value = value.rstrip(b" \t")
        request.headers.append((name, value))
        if name in _SPECIAL:
            if name == b"expect":
                self._expects_continue = value.lower() == b"100-continue"
            elif value.lower() != b"chunked":
                raise self._refused("the only transfer coding is chunked")

    def on_headers_complete(self) -> None:
        """Decide on what the headers say alone."""
        request, parser, limits = self._request, self._parser, self._connections.limits
        if request is None or parser is None:
            return
        request.method = parser.get_method().decode("ascii")
        version = parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise self._refused("the HTTP version is neither 1.0 nor 1.1")
        if parser.should_upgrade():
            raise self._refused("the connection cannot be upgraded to another protocol")
        head = read_head(request, version, max_size=limits.max_headers)
        if head.chunked and version == "1.0":
            raise self._refused("HTTP/1.0 has no transfer codings")
        # Keep-alive in HTTP/1.0 is an extension, which proxies in between are known to break.
        request.keep_alive = parser.should_keep_alive() and version == "1.1"
        refusal = head.refusal or (_too_long_body(limits) if head.length > limits.max_body else None)
        if refusal is not None:
            readable = not head.chunked and not self._expects_continue and head.length <= MAX_DRAINED
            self._refuse_body(refusal, keep_alive=request.keep_alive and readable)
        elif self._expects_continue and version == "1.1" and self._answering is None:
            self._transport.write(CONTINUE)

    def on_chunk_header(self) -> None:
        """A chunk begins."""
        self._chunks += 1
        if self._chunks > MAX_CHUNKS:
            raise self._refused(f"the body has more than {MAX_CHUNKS} chunks")

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        if self._request is None:
            return
        self._body_size += len(body)
        if self._body_size > self._connections.limits.max_body:
            self._refuse_body(_too_long_body(self._connections.limits), keep_alive=False)
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """The request is read whole."""
        request = self._request
        if request is None:
            return
        request.body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        request.complete = True
        self._request = None
        self._enqueue(request)

    # ---- refusing

    def _refused(self, sentence: str) -> _Refused:
        """What a callback raises, so that the parser ends; the answer is `_malformed`'s."""
        self._refusal = Refusal(Reason.MALFORMED, sentence)
        return _Refused(sentence)

    def _refuse_body(self, refusal: Refusal, *, keep_alive: bool) -> None:
        """Answer before the body is read; what comes of it is dropped."""
        request = self._request
        if request is None:
            return
        self._request = None
        self._body = []
        request.keep_alive = keep_alive
        request.complete = keep_alive
        request.refusal = refusal
        self._enqueue(request)

    def _note_unknown_method(self, data: bytes) -> None:
        """The parser ends at a method that it does not know; the path may still say that it is the wrong one."""
        line = _REQUEST_LINE.match(data)
        if line is not None and self._request is not None:
            self._request.method, self._request.target = line[1].decode("ascii"), line[2]
            self._refusal = Refusal(Reason.UNKNOWN_METHOD, "the method is not known")

    def _malformed(self, error: Exception | None) -> None:
        """The framing can no longer be trusted: answer what came before, say why, close."""
        if self._discarding:
            return
        last = self._pending[-1] if self._pending else self._answering
        if last is not None and not last.keep_alive:
            # Data after a request that was to be the last: no client expects an answer to it.
            self._discarding = True
            return
        request = self._request or HttpRequest(self._now, self._client)
        self._request = None
        request.keep_alive = request.complete = False
        request.refusal = self._refusal or Refusal(Reason.MALFORMED, f"the request is not HTTP/1.1: {error}")
        self._enqueue(request)
        self._discarding = True

    # ---- answering, one after the other

    def _enqueue(self, request: HttpRequest) -> None:
        if self._discarding:
            return
        self._of_this_read += 1
        # Immediate answers leave nothing pending: a read of 256 KB of /ready would hold up the loop for a second.
        too_many = len(self._pending) >= MAX_PIPELINED or self._of_this_read > MAX_PIPELINED + 1
        if too_many:
            request.refusal = Refusal(Reason.OVERLOADED, f"more than {MAX_PIPELINED} requests are pipelined")
            request.keep_alive = request.complete = False
        if self._answering is None:
            self._begin(request)
            return
        self._pending.append(request)
        if len(self._pending) >= MAX_PIPELINED:
            self._transport.pause_reading()
        self._discarding = too_many

    def _begin(self, request: HttpRequest) -> None:
        if self._transport.is_closing():
            return
        self._answering = request
        self.expires = math.inf
        answer = self._handler.begin(request)
        if isinstance(answer, Response):
            self._respond(request, answer)
            return
        self._connections.in_flight += 1
        self._task = self._loop.create_task(self._answer(request, answer))

    async def _answer(self, request: HttpRequest, answer: Coroutine[Any, Any, Response]) -> None:
        try:
            response = await answer
        finally:
            self._connections.in_flight -= 1
        if request.authenticated:
            self._connections.authenticate(self)
        self._respond(request, response)

    def _respond(self, request: HttpRequest, response: Response) -> None:
        self._answering = None
        if self._transport.is_closing():
            return
        keep_alive = request.keep_alive and not self._connections.draining and not self._eof
        self._transport.write(to_bytes(response, head=request.method == "HEAD", keep_alive=keep_alive))
        if not keep_alive:
            self._pending.clear()
            self._end(read_whole=request.complete)
        elif self._pending:
            following = self._pending.popleft()
            if len(self._pending) < MAX_PIPELINED and not self._discarding:
                self._transport.resume_reading()
            # Not called from here: 16 immediate answers would nest.
            self._answering = following
            self._loop.call_soon(self._begin, following)
        else:
            limits = self._connections.limits
            partial = self._request
            now = self._clock()
            self.expires = now + limits.idle_timeout if partial is None else partial.arrived + limits.read_timeout

    # ---- ending

    def _end(self, *, read_whole: bool) -> None:
        self._discarding = True
        if read_whole or self._eof:
            self._transport.close()
            return
        self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self.expires = self._clock() + LINGER

    @property
    def idle(self) -> bool:
        """Whether nothing is being read or answered."""
        return self._answering is None and self._request is None

    @property
    def answering(self) -> bool:
        """Whether an answer is being made."""
        return self._answering is not None

    def drain(self) -> None:
        """Close now if nothing is being read or answered; otherwise after the answer.

        A client that has only just connected is given a moment for its first request.
        """
        if not self.idle or self._discarding:
            return
        if self._parser is None:
            self.expires = min(self.expires, self._clock() + LINGER)
        else:
            self._transport.close()

    def abort(self) -> None:
        """Close without another byte."""
        self._transport.abort()

    def expire(self) -> None:
        """A timeout has passed: a sender that is too slow gets a refusal that says so."""
        self.expires = math.inf
        if self._discarding or self._transport.get_write_buffer_size():
            self._transport.abort()
            return
        if self._request is None:
            self._transport.close()
            return
        self._refusal = Refusal(Reason.MALFORMED, "the request did not arrive whole in time")
        self._malformed(None)


_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/1\.[01]\r\n")
_SPECIAL = frozenset((b"expect", b"transfer-encoding"))


def _too_long_body(limits: Limits) -> Refusal:
    return Refusal(Reason.BODY_TOO_LARGE, f"the request body is larger than this proxy's {limits.max_body} bytes")
