"""The HTTP server: Starlette on uvicorn, one process, one event loop."""

import asyncio
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from holdfast.witness.kms.api import MAX_BODY, Api, KmsEvent
from holdfast.witness.kms.api import Response as KmsResponse
from holdfast.witness.kms.call import Service
from holdfast.witness.kms.callers import Caller
from holdfast.witness.kms.connections import Connections
from holdfast.witness.kms.gateway import Gateway
from holdfast.witness.kms.metrics import CloudWatch
from holdfast.witness.kms.settings import Address, Settings
from holdfast.witness.kms.state import State

_AWS_JSON = "application/x-amz-json-1.1"


def application(
    settings: Settings, state: State, callers: Mapping[str, Caller], emit: Callable[[str], None]
) -> Starlette:
    """The ASGI application; its end closes `state`. `emit` takes one JSON line per request."""
    metrics = CloudWatch()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_exception_handler(report_unless_closed)
        gateway = Gateway(settings, metrics, now=_now, clock=time.monotonic)
        connections = Connections(settings, state, gateway)
        app.state.api = Api(
            Service(settings, state, gateway, connections, _now, os.urandom, started=_now().timestamp()), callers
        )
        connections.start()
        try:
            yield
        finally:
            await connections.close()
            gateway.close()
            state.close()

    async def kms(request: Request) -> Response:
        response = await request.app.state.api.handle(request.url.path, _lower_case(request), await _body(request))
        now = _now()
        emit(event_line(response.event, now))
        return _aws_response(response, now)

    async def scrape(_request: Request) -> Response:
        return Response(metrics.exposition(), media_type="text/plain; version=0.0.4")

    routes = [Route("/metrics", scrape, methods=["GET"]), Route("/{path:path}", kms, methods=["POST"])]
    return Starlette(routes=routes, lifespan=lifespan)


def listening_socket(address: Address) -> socket.socket:
    """A socket that listens on an address; port 0 takes a free one. Raises OSError."""
    return socket.create_server((address.host, address.port))


def server(app: Starlette, settings: Settings) -> uvicorn.Server:
    """A uvicorn server of `app`: `run(sockets=[...])` serves until SIGTERM or Ctrl-C."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            # uvicorn's other HTTP parser loses the body of a request with `Upgrade: h2c` (Kludex/uvicorn#2722) and
            # sends every header name in lower case.
            http="h11",
            ws="none",
            ssl_certfile=settings.tls_certificate,
            ssl_keyfile=settings.tls_key,
            log_level="warning",
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=5,
        )
    )


def report_unless_closed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """The event loop's exception handler. TLS data for a connection that was given up is not worth a traceback."""
    transport = context.get("transport")
    if context.get("message") == "Fatal error on SSL protocol" and transport is not None and transport.is_closing():
        return
    loop.default_exception_handler(context)


def event_line(event: KmsEvent, now: datetime) -> str:
    """The event as one line of JSON, without what is empty."""
    members = asdict(event)
    members["xks"] = [_without_empty(note) for note in members["xks"] or ()]
    return json.dumps({"time": now.isoformat(timespec="milliseconds"), **_without_empty(members)})


def _aws_response(answer: KmsResponse, now: datetime) -> Response:
    response = Response(answer.body, answer.status)
    # Starlette writes names in lower case, which some clients do not find (libmongocrypt compares Content-Length).
    response.raw_headers = [
        (b"x-amzn-RequestId", answer.event.request_id.encode()),
        (b"Content-Type", _AWS_JSON.encode()),
        (b"Content-Length", str(len(answer.body)).encode()),
        (b"Date", format_datetime(now, usegmt=True).encode()),
    ]
    return response


def _without_empty(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}


def _now() -> datetime:
    return datetime.now(UTC)


def _lower_case(request: Request) -> dict[str, str]:
    # A header that came twice is joined, as a canonical request wants it.
    joined: dict[str, str] = {}
    for name, value in request.headers.items():
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined


async def _body(request: Request) -> bytes:
    """The body, or a little more than MAX_BODY of it, which is then refused."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            break
    return bytes(body)
