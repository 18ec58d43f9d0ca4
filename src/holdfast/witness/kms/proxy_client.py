"""A client of XKS proxies: signed, kept alive, hard at 250 ms, one retry after a network timeout."""

import asyncio
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from holdfast.trust import client_context
from holdfast.witness.kms.https import Certificate, Connection, HttpResponse, Progress, Stage, StageFailed
from holdfast.witness.kms.settings import Address
from holdfast.witness.kms_errors import Failure
from holdfast.xks import sigv4
from holdfast.xks.errors import ErrorName, XksError
from holdfast.xks.messages import ErrorResponse
from holdfast.xks.uri import Target, request_path

TIME_LIMIT = 0.25
"""Seconds. Spec, "KMS Considerations" of each operation: TCP and TLS included."""

_MAX_IDLE = 4.0
"""Seconds after which an idle connection is not used again: many servers close it after five."""
_TLS12_CIPHERS = "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES256-GCM-SHA384"
_OK = 200


class ProxyFailure(Exception):
    """A call that gave no usable response. `detail` is for KMS's log: the proxy's own words, or the cause."""

    def __init__(self, reason: ErrorName | Failure, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A proxy: the host name that its certificate must carry, where that name leads, and the credential."""

    host: str
    address: Address
    credential: sigv4.Credential


@dataclass(frozen=True, slots=True)
class Reply:
    """The body of a 200, and the certificate if the connection was new."""

    body: bytes
    certificate: Certificate | None


def tls_context(ca: Path | None) -> ssl.SSLContext:
    """The TLS that KMS speaks: 1.2 or 1.3 with the spec's suites. Raises OSError for an unreadable `ca`."""
    try:
        context = client_context(ca)
    except OSError as error:
        # OpenSSL does not say which file.
        raise OSError(error.errno, f"cannot use the CA file {ca}: {error.strerror}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_TLS12_CIPHERS)
    return context


class ProxyClient:
    """The connections to one proxy."""

    def __init__(self, endpoint: Endpoint, context: ssl.SSLContext, now: Callable[[], datetime]) -> None:
        self._endpoint = endpoint
        self._context = context
        self._now = now
        self._idle: list[tuple[float, Connection]] = []

    def close(self) -> None:
        """Closes every idle connection; one in use is closed by its request's end."""
        while self._idle:
            self._idle.pop()[1].close()

    async def call(self, target: Target, body: bytes) -> Reply:
        """The reply to one request. Raises ProxyFailure, after at most twice 250 ms."""
        try:
            return await self._attempt(target, body, Progress())
        except TimeoutError:
            progress = Progress()
        try:
            return await self._attempt(target, body, progress)
        except TimeoutError:
            reason = Failure.NO_TCP_CONNECTION if progress.stage is Stage.TCP else Failure.SOCKET_TIMEOUT
            detail = f"{progress.stage}: nothing in {TIME_LIMIT * 1000:.0f} ms, twice"
            raise ProxyFailure(reason, detail) from None

    async def _attempt(self, target: Target, body: bytes, progress: Progress) -> Reply:
        try:
            async with asyncio.timeout(TIME_LIMIT):
                response, certificate = await self._exchange(target, body, progress)
        except StageFailed as failure:
            raise ProxyFailure(_reason(failure), failure.detail) from None
        if response.status != _OK:
            raise _refusal(response)
        if response.content_type != "application/json":
            raise ProxyFailure(Failure.MALFORMED_RESPONSE, "the response is not application/json")
        return Reply(response.body, certificate)

    async def _exchange(
        self, target: Target, body: bytes, progress: Progress
    ) -> tuple[HttpResponse, Certificate | None]:
        path = request_path(target)
        headers = sigv4.sign(
            "POST",
            path.encode(),
            host=self._endpoint.host,
            body=body,
            credential=self._endpoint.credential,
            now=self._now(),
        )
        headers["Content-Type"] = "application/json"
        if (kept := self._kept()) is not None:
            progress.stage = Stage.HTTP
            try:
                return await self._send(kept, path, headers, body), None
            except StageFailed:
                # The peer may have closed it while it was idle; then it has not read the request.
                if not kept.silent:
                    raise
        opened = await Connection.open(
            self._endpoint.address, self._endpoint.host, self._context, progress, self._now()
        )
        certificate = opened.certificate
        progress.stage = Stage.HTTP
        return await self._send(opened, path, headers, body), certificate

    async def _send(self, connection: Connection, path: str, headers: dict[str, str], body: bytes) -> HttpResponse:
        try:
            response = await connection.request(path, headers, body)
        except BaseException:
            # Also when the time is up: a later answer on this connection would be taken for that of another request.
            connection.close()
            raise
        if connection.reusable:
            self._idle.append((time.monotonic(), connection))
        else:
            connection.close()
        return response

    def _kept(self) -> Connection | None:
        """The connection that was used last, if it can be used again."""
        while self._idle:
            used_at, connection = self._idle.pop()
            if connection.reusable and time.monotonic() - used_at < _MAX_IDLE:
                return connection
            connection.close()
        return None


def _refusal(response: HttpResponse) -> ProxyFailure:
    """What KMS makes of an error response: `errorName` decides, whatever the status (spec, "Error codes")."""
    try:
        error = ErrorResponse.parse(response.body)
        return ProxyFailure(ErrorName(error.error_name), error.error_message or "")
    except (XksError, ValueError):
        return ProxyFailure(Failure.MALFORMED_RESPONSE, f"HTTP {response.status} without a known errorName")


def _reason(failure: StageFailed) -> Failure:
    match failure.stage:
        case Stage.TCP:
            return Failure.NO_TCP_CONNECTION
        case Stage.TLS:
            return Failure.NO_TLS_CONNECTION
        case Stage.HTTP:
            return Failure.CONNECTION_LOST if failure.broken else Failure.MALFORMED_RESPONSE
