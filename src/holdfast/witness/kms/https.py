"""One HTTPS connection to a proxy: HTTP/1.1 by h11 on asyncio, IPv4, with different failures for each stage."""

import asyncio
import socket
import ssl
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Self

import h11
from cryptography import x509

from holdfast.certificate_rules import Weight, common_names, judge
from holdfast.witness.kms.settings import Address

MAX_RESPONSE = 64 * 1024
"""Bytes of a response body. More than any response of the spec needs."""

_READ = 16 * 1024


class Stage(StrEnum):
    """How far a request has come."""

    TCP = "TCP"
    TLS = "TLS"
    HTTP = "HTTP"


class StageFailed(Exception):
    """A stage ended in an error. `broken`: the peer closed the connection; otherwise its answer was wrong."""

    def __init__(self, stage: Stage, cause: Exception, *, broken: bool = True) -> None:
        super().__init__(stage, cause)
        self.stage = stage
        self.broken = broken
        self.detail = f"{stage}: {type(cause).__name__}: {cause}"


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a server's certificate says: its subject's common name and the end of its validity."""

    common_name: str
    not_after: datetime

    @classmethod
    def of(cls, connection: ssl.SSLObject, host: str, now: datetime) -> Self:
        """The certificate of a connection to `host`, whose chain TLS has verified. Raises ValueError.

        KMS demands more than TLS does: `holdfast.certificate_rules` says what.
        """
        own = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")
        # TLS has judged the chain. Here the certificate stands for its own authority.
        for breach in judge([own], host=host, now=now, authorities=[own]):
            if breach.weight is Weight.REFUSED:
                raise ValueError(breach.what)
        return cls(common_names(own)[0], own.not_valid_after_utc)


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """Status, content type (lower case, without parameters) and body."""

    status: int
    content_type: str
    body: bytes


@dataclass(slots=True)
class Progress:
    """Where an attempt stands, for the code that cancels it."""

    stage: Stage = Stage.TCP


class Connection:
    """An open connection; `reusable` until the peer closes it. Its owner must close it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, certificate: Certificate) -> None:
        self.certificate = certificate
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT)
        self.silent = True
        self._ended = False

    @classmethod
    async def open(
        cls, address: Address, host: str, context: ssl.SSLContext, progress: Progress, now: datetime
    ) -> "Connection":
        """A connection whose certificate is that of `host`. Raises StageFailed."""
        progress.stage = Stage.TCP
        try:
            connected = await _connect(address)
        except OSError as error:
            raise StageFailed(Stage.TCP, error) from None
        progress.stage = Stage.TLS
        try:
            reader, writer = await asyncio.open_connection(sock=connected, ssl=context, server_hostname=host)
        except (OSError, EOFError) as error:
            raise StageFailed(Stage.TLS, error) from None
        except BaseException:
            connected.close()
            raise
        try:
            return cls(reader, writer, Certificate.of(writer.get_extra_info("ssl_object"), host, now))
        except ValueError as error:
            writer.transport.abort()
            raise StageFailed(Stage.TLS, error) from None

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent."""
        return self._http.our_state is h11.IDLE and not self._reader.at_eof() and not self._writer.is_closing()

    def close(self) -> None:
        """Closes the connection at once."""
        self._writer.transport.abort()

    async def request(self, path: str, headers: dict[str, str], body: bytes) -> HttpResponse:
        """The response to a POST. Raises StageFailed. `silent` stays true if the peer sent not one byte."""
        self.silent = True
        fields = [*headers.items(), ("Content-Length", str(len(body)))]
        try:
            for event in (
                h11.Request(method="POST", target=path, headers=fields),
                h11.Data(body),
                h11.EndOfMessage(),
            ):
                self._writer.write(self._http.send(event) or b"")
            await self._writer.drain()
            return await self._response()
        except ssl.SSLError as error:
            # In TLS 1.3 a server refuses a client after the client's handshake has ended.
            raise StageFailed(Stage.TLS, error) from None
        except OSError as error:
            raise StageFailed(Stage.HTTP, error) from None
        except h11.RemoteProtocolError as error:
            raise StageFailed(Stage.HTTP, error, broken=self._ended) from None

    async def _response(self) -> HttpResponse:
        head: h11.Response | None = None
        body = bytearray()
        while not isinstance(event := await self._event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > MAX_RESPONSE:
                    raise h11.RemoteProtocolError(f"the response is longer than {MAX_RESPONSE} bytes")
        if head is None:
            raise ConnectionResetError("no response")
        if self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        content_type = dict(head.headers).get(b"content-type", b"").partition(b";")[0].strip().lower()
        return HttpResponse(head.status_code, content_type.decode("latin-1"), bytes(body))

    async def _event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            received = await self._reader.read(_READ)
            self._ended = not received
            self.silent = self.silent and self._ended
            if self.silent:
                raise ConnectionResetError("the peer closed the connection without a response")
            self._http.receive_data(received)
        if event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
            raise ConnectionResetError("the connection ended before the response did")
        return event


async def _connect(address: Address) -> socket.socket:
    loop = asyncio.get_running_loop()
    # KMS speaks IPv4 only.
    found = await loop.getaddrinfo(address.host, address.port, family=socket.AF_INET, type=socket.SOCK_STREAM)
    connecting = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        connecting.setblocking(False)
        connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await loop.sock_connect(connecting, found[0][4])
    except BaseException:
        connecting.close()
        raise
    return connecting
