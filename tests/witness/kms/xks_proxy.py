"""A small honest XKS proxy: real AES-GCM, real SigV4, HTTPS on loopback; and switches to make it fail.

It is built on `holdfast.xks` alone, so that the local KMS is tested without Holdfast's own proxy.
"""

import asyncio
import os
import ssl
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http import HTTPStatus

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from tests.waiting import PATIENCE

from holdfast.xks import sigv4
from holdfast.xks.aad import AadFraming, ciphertext_data_integrity_value, hsm_aad
from holdfast.xks.errors import ErrorName, XksError
from holdfast.xks.messages import (
    DecryptRequest,
    DecryptResponse,
    EkmFleetDetail,
    EncryptRequest,
    EncryptResponse,
    ErrorResponse,
    GetHealthStatusRequest,
    GetHealthStatusResponse,
    GetKeyMetadataRequest,
    GetKeyMetadataResponse,
    RequestMetadata,
)
from holdfast.xks.types import HealthStatus, KeyStatus, Operation, SecretAccessKey
from holdfast.xks.uri import parse_path

HOST = "xks.example.com"
METADATA = b"g1"
ACCESS_KEY_ID = "XKSTESTACCESSKEYID234567"
SECRET_ACCESS_KEY = "c2VjcmV0IG9mIHRoZSB0ZXN0IHByb3h5IG9mIGhvbGRmYXN0MTIz"
PREFIXES = ("", "/one", "/two")


@dataclass
class ExternalKey:
    """A key of the proxy; usage and status are what it reports and holds to."""

    material: bytes = field(default_factory=lambda: AESGCM.generate_key(256))
    spec: str = "AES_256"
    usage: list[str] = field(default_factory=lambda: ["ENCRYPT", "DECRYPT"])
    status: KeyStatus = KeyStatus.ENABLED


@dataclass(frozen=True)
class Reply:
    """What the proxy is about to send. `raw` replaces the whole HTTP response; empty, it just hangs up."""

    status: int
    body: bytes
    content_type: str = "application/json"
    delay: float = 0.0
    raw: bytes | None = None


Alter = Callable[[Operation, Reply], Reply]


class XksProxy:
    """The proxy, on a thread of its own; without a TLS context it answers 400 in clear.

    `alter` may change each reply; `requests` has what came in.
    """

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        self.reset()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(PATIENCE)
        self.port: int = self._server.sockets[0].getsockname()[1]

    def reset(self) -> None:
        """Honest again, with fresh keys."""
        self.keys = {f"key-{i}": ExternalKey() for i in range(4)}
        self.secret = SECRET_ACCESS_KEY
        self.health = [HealthStatus.ACTIVE]
        self.alter: Alter = lambda _operation, reply: reply
        self.requests: list[tuple[Operation, RequestMetadata]] = []
        self.plaintexts: list[bytes] = []
        self.aads: list[bytes] = []
        self.connections = 0

    def fail(self, name: ErrorName, *operations: Operation) -> None:
        """From now on these operations (all, if none is named) answer with this error."""
        body = ErrorResponse(name.value, "as the test wants it").to_json()

        def alter(operation: Operation, reply: Reply) -> Reply:
            refused = not operations or operation in operations
            return Reply(name.status, body) if refused else reply

        self.alter = alter

    def close(self) -> None:
        """Ends the thread."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)

    async def _stop(self) -> None:
        self._server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError, ssl.SSLError):
            while await self._exchange(reader, writer):
                pass
        writer.close()
        with suppress(ConnectionError, asyncio.CancelledError, ssl.SSLError):
            await writer.wait_closed()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if self._context is None:
            await reader.read(1)
            writer.write(b"HTTP/1.1 400 This is not TLS\r\n\r\n")
            return False
        head = await reader.readuntil(b"\r\n\r\n")
        request_line, *lines = head[:-4].split(b"\r\n")
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
        body = await reader.readexactly(int(dict(headers)[b"content-length"]))
        path = request_line.split(b" ")[1]
        operation, reply = self._answer(path, headers, body)
        if reply.delay:
            await asyncio.sleep(reply.delay)
        if reply.raw is not None:
            writer.write(reply.raw)
            return False
        writer.write(
            f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}\r\ncontent-type: {reply.content_type}\r\n"
            f"content-length: {len(reply.body)}\r\n\r\n".encode()
            + reply.body
        )
        await writer.drain()
        return operation is not None

    def _answer(
        self, path: bytes, headers: Iterable[tuple[bytes, bytes]], body: bytes
    ) -> tuple[Operation | None, Reply]:
        try:
            target = parse_path(path)
        except XksError as error:
            return None, _refusal(error)
        if target.prefix not in PREFIXES:
            return None, _refusal(XksError(ErrorName.INVALID_URI_PATH, "no such prefix"))
        try:
            credentials = {ACCESS_KEY_ID: SecretAccessKey.parse(self.secret)}
            sigv4.verify(
                "POST", path, headers=headers, body=body, credentials=credentials, region=None, now=datetime.now(UTC)
            )
            reply = Reply(200, self._operate(target.operation, str(target.external_key_id), body))
        except XksError as error:
            reply = _refusal(error)
        return target.operation, self.alter(target.operation, reply)

    def _operate(self, operation: Operation, key_id: str, body: bytes) -> bytes:
        if operation is Operation.GET_HEALTH_STATUS:
            self.requests.append((operation, GetHealthStatusRequest.parse(body).request_metadata))
            fleet = [EkmFleetDetail(f"hsm-{i}", "Test 1", status) for i, status in enumerate(self.health)]
            return GetHealthStatusResponse(1, "Test", "Test 1.0", "Test", fleet).to_json()
        key = self.keys.get(key_id)
        if key is None:
            raise XksError(ErrorName.KEY_NOT_FOUND, key_id)
        if operation is Operation.GET_KEY_METADATA:
            self.requests.append((operation, GetKeyMetadataRequest.parse(body).request_metadata))
            return GetKeyMetadataResponse(key.spec, key.usage, key.status).to_json()
        if key.status is KeyStatus.DISABLED:
            raise XksError(ErrorName.INVALID_STATE, "the key is disabled")
        return self._encrypt(key, body) if operation is Operation.ENCRYPT else self._decrypt(key, body)

    def _encrypt(self, key: ExternalKey, body: bytes) -> bytes:
        request = EncryptRequest.parse(body)
        self.requests.append((Operation.ENCRYPT, request.request_metadata))
        self.plaintexts.append(request.plaintext)
        self.aads.append(request.aad or b"")
        iv, aad = os.urandom(12), hsm_aad(request.aad, METADATA, AadFraming.SPEC)
        sealed = AESGCM(key.material).encrypt(iv, request.plaintext, aad)
        ciphertext, tag = sealed[:-16], sealed[-16:]
        cdiv = ciphertext_data_integrity_value(
            request.aad, METADATA, initialization_vector=iv, ciphertext=ciphertext, tag=tag
        )
        if AESGCM(key.material).decrypt(iv, ciphertext + tag, aad) != request.plaintext:
            raise XksError(ErrorName.INTERNAL, "the trial decrypt failed")
        return EncryptResponse(ciphertext, iv, tag, METADATA, cdiv if request.wants_cdiv else None).to_json()

    def _decrypt(self, key: ExternalKey, body: bytes) -> bytes:
        request = DecryptRequest.parse(body)
        self.requests.append((Operation.DECRYPT, request.request_metadata))
        aad = hsm_aad(request.aad, request.ciphertext_metadata or b"", AadFraming.SPEC)
        try:
            plaintext = AESGCM(key.material).decrypt(
                request.initialization_vector, request.ciphertext + request.authentication_tag, aad
            )
        except InvalidTag:
            raise XksError(ErrorName.INVALID_CIPHERTEXT, "bad tag") from None
        return DecryptResponse(plaintext).to_json()


def delayed(seconds: float, times: int | None = None) -> Alter:
    """Replies come late: all of them, or only so many."""
    left = [times]

    def alter(_operation: Operation, reply: Reply) -> Reply:
        if left[0] == 0:
            return reply
        if left[0] is not None:
            left[0] -= 1
        return replace(reply, delay=seconds)

    return alter


def _refusal(error: XksError) -> Reply:
    return Reply(error.name.status, ErrorResponse(error.name.value, error.message).to_json())
