"""Request handlers: the XKS Proxy API, and /ping and /ready for load balancers."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from http import HTTPStatus
from typing import Any

import msgspec

from holdfast.gateway.http.request import HttpRequest
from holdfast.gateway.worker.admission import Admission
from holdfast.protocols.port import JSON, Reason, Refusal, Response
from holdfast.protocols.xks.event import Event
from holdfast.protocols.xks.pipeline import Pipeline, error_response, to_wire, withhold
from holdfast.xks.errors import ErrorName, XksError

HOLD = 0.025
"""Longest delay in seconds before a ThrottlingException is sent, so that clients that retry in a tight loop cannot
take the time that admitted requests need. The caller still gets its answer well within 50 ms."""
_OVERLOADED = Refusal(Reason.OVERLOADED, "the proxy cannot serve this request in time; send fewer requests")


class Probes:
    """GET and HEAD of /ping, which answers while the worker lives, and of /ready.

    With `explain` /ready says why not: not on the port that everybody reaches, as it names HSMs and blocks.
    """

    def __init__(self, obstacles: Callable[[], list[str]], *, explain: bool) -> None:
        self._obstacles = obstacles
        self._explain = explain

    def answer(self, request: HttpRequest) -> Response | None:
        """None if the path is neither."""
        path = request.target.partition(b"?")[0]
        if path not in (b"/ping", b"/ready"):
            return None
        if request.method not in ("GET", "HEAD"):
            return Response(405, [(b"allow", b"GET, HEAD")], b"")
        if path == b"/ping":
            return Response(200, JSON, b'{"ping":"pong"}')
        obstacles = self._obstacles()
        reasons = {"reasons": obstacles} if self._explain else {}
        body = msgspec.json.encode({"ready": not obstacles, **reasons})
        return Response(503 if obstacles else 200, JSON, body)


class ProbeHandler:
    """The port for load balancers: the probes and nothing else."""

    def __init__(self, probes: Probes) -> None:
        self._probes = probes

    def begin(self, request: HttpRequest) -> Response:
        """The probe's answer, or an error like the API's."""
        if request.refusal is not None:
            return error_response(to_wire(request.refusal))
        elsewhere = XksError(ErrorName.INVALID_URI_PATH, "only /ping and /ready are served here")
        return self._probes.answer(request) or error_response(elsewhere)


class ApiHandler:
    """The main port. With `recorded` an operation on a key is answered once its event is written, or refused."""

    def __init__(
        self,
        pipeline: Pipeline,
        probes: Probes,
        admission: Admission,
        *,
        record: Callable[[Event, str], None],
        recorded: Callable[[Event, str], Awaitable[bool]] | None,
    ) -> None:
        self._pipeline = pipeline
        self._probes = probes
        self._admission = admission
        self._record = record
        self._recorded = recorded
        self._working = 0
        self._gate: asyncio.Future[None] | None = None

    def begin(self, request: HttpRequest) -> Response | Coroutine[Any, Any, Response]:
        """Refusals and probes cost nothing; a throttled request waits a moment for its refusal."""
        if request.refusal is not None:
            return self._refuse(request, request.refusal)
        if request.target.startswith((b"/ping", b"/ready")):
            probe = self._probes.answer(request)
            if probe is not None:
                return probe
        return self._throttle(request) if self._admission.refuses(self._working) else self._work(request)

    async def _throttle(self, request: HttpRequest) -> Response:
        await self._hold()
        return self._refuse(request, _OVERLOADED)

    async def _work(self, request: HttpRequest) -> Response:
        self._working += 1
        try:
            return await self._answer(request)
        finally:
            self._working -= 1
            self._admission.answered(self._working)

    async def _hold(self) -> None:
        gate = self._gate
        if gate is None:
            loop = asyncio.get_running_loop()
            gate = self._gate = loop.create_future()
            loop.call_later(HOLD, self._open_gate)
        await gate

    def _open_gate(self) -> None:
        if self._gate is not None:
            self._gate.set_result(None)
            self._gate = None

    async def _answer(self, request: HttpRequest) -> Response:
        event = Event()
        response = await self._pipeline.handle(
            request.method,
            request.target,
            headers=request.headers,
            body=request.body,
            arrived=request.arrived,
            event=event,
        )
        request.authenticated = event.access_key_id is not None
        if self._recorded is not None and event.status == HTTPStatus.OK and event.external_key_id is not None:
            if await self._recorded(event, request.client):
                return response
            event, response = withhold(event)
        self._record(event, request.client)
        return response

    def _refuse(self, request: HttpRequest, refusal: Refusal) -> Response:
        event = Event(bytes_in=len(request.body))
        response = self._pipeline.refuse(
            refusal, request.method, request.target, arrived=request.arrived, event=event
        )
        self._record(event, request.client)
        return response
