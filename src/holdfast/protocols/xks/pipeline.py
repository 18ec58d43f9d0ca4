"""One request from raw bytes to response: path, method, key store, SigV4, then the operation.

Conformance runs against `Pipeline.handle` without sockets.
"""

import traceback
from dataclasses import replace

from holdfast.hsm.faults import HsmFault
from holdfast.protocols.port import JSON, Headers, Reason, Refusal, Response
from holdfast.protocols.xks import decrypt, encrypt, get_health_status, get_key_metadata
from holdfast.protocols.xks.event import Event
from holdfast.protocols.xks.faults import WIRE, to_xks_error
from holdfast.protocols.xks.request import Request
from holdfast.protocols.xks.services import Services
from holdfast.xks import sigv4
from holdfast.xks.errors import ErrorName, XksError
from holdfast.xks.messages import ErrorResponse
from holdfast.xks.types import Operation
from holdfast.xks.uri import parse_path

_OPERATIONS = {
    Operation.ENCRYPT: encrypt.answer,
    Operation.DECRYPT: decrypt.answer,
    Operation.GET_KEY_METADATA: get_key_metadata.answer,
    Operation.GET_HEALTH_STATUS: get_health_status.answer,
}


class Pipeline:
    """The XKS Proxy API over one set of services."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def handle(  # noqa: PLR0913 (a request has these parts; grouping them would copy each one)
        self, method: str, target: bytes, *, headers: Headers, body: bytes, arrived: float, event: Event
    ) -> Response:
        """The response to one request; never raises. `target` is the raw request target with its query.

        `arrived` is when the request's first byte was read, on the services' clock: the deadline counts from
        there. `event` is filled in for the log.
        """
        event.bytes_in = len(body)
        try:
            answer = await self._answer(method, target, headers=headers, body=body, arrived=arrived, event=event)
            response = Response(200, JSON, answer)
        except _WrongMethod:
            response = _method_refusal(event)
        except XksError as error:
            response = _refusal(error, event)
        except tuple(WIRE) as fault:
            response = _fault_refusal(fault, event)
        except Exception as error:  # noqa: BLE001 (the last line of defence: a bug must answer InternalException)
            frame = traceback.extract_tb(error.__traceback__)[-1]
            # The exception's own words may hold input.
            event.detail = f"{type(error).__name__} at {frame.filename}:{frame.lineno}"
            response = _refusal(XksError(ErrorName.INTERNAL, "unexpected failure in the proxy"), event)
        event.total = self._services.clock() - arrived
        if event.error is None and event.total > self._services.deadline:
            # Never a late 200: KMS has given up, or is about to, and asks again.
            event.detail = "the answer was ready after the deadline"
            response = _refusal(XksError(ErrorName.DEPENDENCY_TIMEOUT, "the proxy was too slow"), event)
        return _finish(event, response)

    def refuse(self, refusal: Refusal, method: str, target: bytes, *, arrived: float, event: Event) -> Response:
        """The response to a request that HTTP refuses. `target` may be cut short or malformed."""
        error = to_wire(refusal)
        try:
            named = parse_path(target.partition(b"?")[0])
            event.operation = named.operation
            event.external_key_id = None if named.external_key_id is None else named.external_key_id.value
        except XksError as wrong_path:
            # The more useful reason, unless the path cannot be trusted, or there are too many.
            if error.name is ErrorName.UNSUPPORTED_OPERATION:
                error = wrong_path
        if method != "POST" and error.name is ErrorName.UNSUPPORTED_OPERATION:
            response = _method_refusal(event)
        else:
            response = _refusal(error, event)
        event.total = self._services.clock() - arrived
        return _finish(event, response)

    async def _answer(  # noqa: PLR0913 (as handle)
        self, method: str, target: bytes, *, headers: Headers, body: bytes, arrived: float, event: Event
    ) -> bytes:
        path, question_mark, _ = target.partition(b"?")
        named = parse_path(path)
        event.operation = named.operation
        event.external_key_id = None if named.external_key_id is None else named.external_key_id.value
        keystore = self._services.snapshot().keystores.get(named.prefix)
        if keystore is None:
            raise XksError(ErrorName.INVALID_URI_PATH, "no key store has this path prefix")
        event.keystore = keystore.name
        if method != "POST":
            raise _WrongMethod
        if question_mark:
            raise XksError(ErrorName.AUTHENTICATION_FAILED, "a signed request has no query string")
        now = self._services.now()
        started = self._services.clock()
        try:
            access_key_id = sigv4.verify(
                method,
                path,
                headers=headers,
                body=body,
                credentials=keystore.credentials,
                region=keystore.region,
                now=now,
            )
        finally:
            event.authentication = self._services.clock() - started
        event.access_key_id = access_key_id.value
        self._services.credential_used(access_key_id.value, now)
        if named.external_key_id is not None:
            self._services.require_record()
        request = Request(
            keystore.at(now),
            named.external_key_id,
            body,
            deadline=arrived + self._services.deadline,
            event=event,
            now=now,
        )
        return await _OPERATIONS[named.operation](request, self._services)


def to_wire(refusal: Refusal) -> XksError:
    """The error of the XKS Proxy API for what HTTP refuses."""
    return XksError(_NAMES[refusal.reason], refusal.sentence)


def error_response(error: XksError) -> Response:
    """The error on the wire (spec, "Errors")."""
    return Response(error.name.status, JSON, ErrorResponse(error.name, error.message).to_json())


def withhold(event: Event) -> tuple[Event, Response]:
    """The event and response in place of an answer whose record could not be kept."""
    event = replace(event, detail="the answer is withheld: the event log could not be written")
    error = XksError(ErrorName.DEPENDENCY_TIMEOUT, "the proxy cannot keep its records")
    return event, _finish(event, _refusal(error, event))


class _WrongMethod(Exception):
    """The method is not POST."""


_NAMES = {
    Reason.MALFORMED: ErrorName.VALIDATION,
    Reason.BODY_TOO_LARGE: ErrorName.UNSUPPORTED_OPERATION,
    Reason.UNKNOWN_METHOD: ErrorName.UNSUPPORTED_OPERATION,
    Reason.OVERLOADED: ErrorName.THROTTLING,
}


def _finish(event: Event, response: Response) -> Response:
    event.status = response.status
    event.bytes_out = len(response.body)
    return response


def _refusal(error: XksError, event: Event) -> Response:
    event.error = error.name
    if event.detail is None:
        event.detail = error.message
    return error_response(error)


def _method_refusal(event: Event) -> Response:
    """405 with Allow, for any method but POST."""
    event.detail = "the API's operations are called with POST only"
    return Response(405, [(b"allow", b"POST")], b"")


def _fault_refusal(fault: Exception, event: Event) -> Response:
    event.detail = str(fault)
    if isinstance(fault, HsmFault) and fault.cause is not None:
        event.function, event.ckr = fault.cause.function, fault.cause.ckr
    return _refusal(to_xks_error(fault), event)
