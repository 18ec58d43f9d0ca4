"""Request handlers: the XKS Proxy API, and /ping and /ready for load balancers."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from http import HTTPStatus

import msgspec

from holdfast.gateway.http.request import HttpRequest
from holdfast.gateway.worker.admission import Admission
from holdfast.protocols.xks.event import Event
from holdfast.protocols.xks.pipeline import Headers, Pipeline, Response, method_refusal, refusal
from holdfast.xks.errors import ErrorName, XksError
from holdfast.xks.uri import parse_path

HOLD = 0.025
"""Longest delay in seconds before a ThrottlingException is sent, so that clients that retry in a tight loop cannot
take the time that admitted requests need. The caller still gets its answer well within 50 ms."""
_JSON: Headers = [(b"content-type", b"application/json")]


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
            return Response(200, _JSON, b'{"ping":"pong"}')
        obstacles = self._obstacles()
        reasons = {"reasons": obstacles} if self._explain else {}
        body = msgspec.json.encode({"ready": not obstacles, **reasons})
        return Response(503 if obstacles else 200, _JSON, body)


class ProbeHandler:
    """The port for load balancers: the probes and nothing else."""

    def __init__(self, probes: Probes) -> None:
        self._probes = probes

    def immediate(self, request: HttpRequest) -> Response | None:
        """Always an answer."""
        error = request.refusal or XksError(ErrorName.INVALID_URI_PATH, "only /ping and /ready are served here")
        return (None if request.refusal else self._probes.answer(request)) or refusal(error, Event())

    async def answer(self, request: HttpRequest) -> Response:
        """Never called: `immediate` has answered."""
        raise NotImplementedError(request.method)


class ApiHandler:
    """The main port. With `recorded` an operation on a key is answered once its event is written, or refused."""

    def __init__(  # noqa: PLR0913 (independent parts)
        self,
        pipeline: Pipeline,
        probes: Probes,
        admission: Admission,
        *,
        deadline: float,
        clock: Callable[[], float],
        record: Callable[[Event, str], None],
        recorded: Callable[[Event, str], Awaitable[bool]] | None,
    ) -> None:
        self._pipeline = pipeline
        self._probes = probes
        self._admission = admission
        self._deadline = deadline
        self._clock = clock
        self._record = record
        self._recorded = recorded
        self._working = 0
        self._gate: asyncio.Future[None] | None = None

    def immediate(self, request: HttpRequest) -> Response | None:
        """Refusals and probes: what costs nothing."""
        if request.refusal is not None:
            return self._refuse(request, request.refusal)
        if request.target.startswith((b"/ping", b"/ready")):
            probe = self._probes.answer(request)
            if probe is not None:
                return probe
        if self._admission.refuses(self._working):
            request.refusal = XksError(
                ErrorName.THROTTLING, "the proxy cannot serve this request in time; send fewer requests"
            )
        return None

    async def answer(self, request: HttpRequest) -> Response:
        """The pipeline's answer; a throttled request waits a moment for its refusal."""
        if request.refusal is not None:
            await self._hold()
            return self._refuse(request, request.refusal)
        self._working += 1
        try:
            return await self._work(request)
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

    async def _work(self, request: HttpRequest) -> Response:
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
        if event.error is None and event.total > self._deadline:
            # Never a late 200: KMS has given up, or is about to, and asks again.
            event.detail = "the answer was ready after the deadline"
            response = refusal(XksError(ErrorName.DEPENDENCY_TIMEOUT, "the proxy was too slow"), event)
            event.status, event.bytes_out = response.status, len(response.body)
        if self._recorded is not None and event.status == HTTPStatus.OK and event.external_key_id is not None:
            if await self._recorded(event, request.client):
                return response
            event = replace(event, detail="the answer is withheld: its record could not be written")
            response = refusal(XksError(ErrorName.DEPENDENCY_TIMEOUT, "the proxy cannot keep its records"), event)
            event.status, event.bytes_out = response.status, len(response.body)
        self._record(event, request.client)
        return response

    def _refuse(self, request: HttpRequest, error: XksError) -> Response:
        event = Event(bytes_in=len(request.body))
        try:
            target = parse_path(request.target.partition(b"?")[0])
            event.operation = target.operation
            event.external_key_id = None if target.external_key_id is None else target.external_key_id.value
        except XksError as wrong_path:
            # A wrong path is the more useful reason, unless the path cannot be trusted, or there are too many.
            if error.name not in (ErrorName.VALIDATION, ErrorName.THROTTLING):
                error = wrong_path
        if request.method != "POST" and error.name is ErrorName.UNSUPPORTED_OPERATION:
            response = method_refusal(event)
        else:
            response = refusal(error, event)
        event.status, event.bytes_out = response.status, len(response.body)
        event.total = self._clock() - request.arrived
        self._record(event, request.client)
        return response
