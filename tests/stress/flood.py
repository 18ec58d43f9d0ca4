"""Requests at a fixed rate, whatever the server makes of them; signed once, so that the client is cheap."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from tests.server.client import METADATA
from tests.waiting import PATIENCE

from holdfast.xks.encoding import encode_base64
from holdfast.xks.types import Operation

if TYPE_CHECKING:
    from tests.server.client import Caller

_PLAINTEXT = {"plaintext": encode_base64(bytes(32)), "encryptionAlgorithm": "AES_GCM"}


def raw_request(caller: Caller, operation: Operation, fields: dict[str, Any] | None = None) -> bytes:
    """A signed request as it goes over the wire; it may be sent again and again for five minutes."""
    body = msgspec.json.encode({"requestMetadata": METADATA, **(fields or {})})
    path = caller.path(operation)
    headers = {"Host": caller.host, **caller.signed(path, body), "Content-Length": str(len(body))}
    lines = [
        f"POST {path} HTTP/1.1",
        *(f"{n}: {v}" for n, v in headers.items() if n.lower() != "host" or n == "Host"),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def encrypt_request(caller: Caller) -> bytes:
    """A signed Encrypt."""
    return raw_request(caller, Operation.ENCRYPT, _PLAINTEXT)


@dataclass
class Flood:
    """`requests` in turn, `count` of them, one every `interval` seconds, over `connections` connections."""

    port: int
    requests: list[bytes]
    count: int
    interval: float
    connections: int

    def run(self) -> list[int]:
        """The status of each answer, in order of arrival. Blocks."""
        return asyncio.run(asyncio.wait_for(self._run(), PATIENCE))

    async def _run(self) -> list[int]:
        statuses: list[int] = []
        due: asyncio.Queue[bytes | None] = asyncio.Queue()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self.connections):
                tasks.create_task(self._connection(due, statuses))
            loop = asyncio.get_running_loop()
            began = loop.time()
            for number in range(self.count):
                await asyncio.sleep(max(0.0, began + number * self.interval - loop.time()))
                due.put_nowait(self.requests[number % len(self.requests)])
            for _ in range(self.connections):
                due.put_nowait(None)
        return statuses

    async def _connection(self, due: asyncio.Queue[bytes | None], statuses: list[int]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            while (request := await due.get()) is not None:
                writer.write(request)
                statuses.append(await _status(reader))
        finally:
            writer.close()
            await writer.wait_closed()


async def _status(reader: asyncio.StreamReader) -> int:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
    return int(head.split(b" ", 2)[1])
