"""An HTTP/1.1 client that sends exactly the octets it is given and reports what came back, and when."""

import json
import socket
import ssl
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Self

import httptools

from holdfast.reading import MOST_PEM, read_file
from holdfast.trust import client_context

TIMEOUT = 5.0
"""Seconds to wait for an endpoint: far beyond KMS's 0.25, so that a slow one is measured and not guessed."""
_READ_SIZE = 65536


class WireError(Exception):
    """No HTTP response came: the message says what happened instead."""


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response. `seconds` runs from the first octet sent to the last received, `first_byte` to the first."""

    version: str
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    seconds: float
    first_byte: float

    def header(self, name: str) -> str | None:
        """The first value of a header."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    @property
    def json_object(self) -> dict[str, Any] | None:
        """The body, if it is a JSON object."""
        try:
            value = json.JSONDecoder().decode(self.body.decode())
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None

    @property
    def error_name(self) -> str | None:
        """`errorName`, if the body has one."""
        name = (self.json_object or {}).get("errorName")
        return name if isinstance(name, str) else None

    def describe(self) -> str:
        """Status, and the error's name and message if there is one; never more of the body than 80 characters."""
        value = self.json_object
        if value is None:
            return f"{self.status}, not JSON: {_shorten(self.body.decode('latin-1'))!r}"
        if self.error_name is None:
            return f"{self.status} with {', '.join(value) or 'an empty object'}"
        message = value.get("errorMessage")
        return f"{self.status} {self.error_name}" + (f": {_shorten(str(message))!r}" if message else "")


def _shorten(text: str) -> str:
    limit = 80
    return text if len(text) <= limit else text[: limit - 3] + "..."


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds that opening a connection took."""

    tcp: float
    tls: float


class Connection:
    """One TLS connection, kept alive."""

    def __init__(self, tls: ssl.SSLSocket, timings: Timings) -> None:
        self._socket = tls
        self.timings = timings
        self.open = True

    @classmethod
    def connect(cls, address: tuple[str, int], server_name: str, context: ssl.SSLContext) -> Self:
        """Raises WireError for a refused connection, ssl.SSLError for a failed handshake."""
        start = perf_counter()
        try:
            raw = socket.create_connection(address, timeout=TIMEOUT)
        except OSError as error:
            raise WireError(f"no TCP connection to {address[0]} port {address[1]}: {error}") from None
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected = perf_counter()
        try:
            tls = context.wrap_socket(raw, server_hostname=server_name)
        except ssl.SSLError:
            raw.close()
            raise
        except OSError as error:
            raw.close()
            raise WireError(f"the TLS handshake did not end: {error}") from None
        return cls(tls, Timings(connected - start, perf_counter() - connected))

    @property
    def socket(self) -> ssl.SSLSocket:
        """The TLS socket, for what the handshake agreed."""
        return self._socket

    def exchange(self, request: bytes) -> Response:
        """Raises WireError; the connection is closed then."""
        collector = _Collector()
        parser = collector.parser = httptools.HttpResponseParser(collector)
        start = perf_counter()
        first_byte = 0.0
        try:
            self._socket.sendall(request)
            while not collector.complete:
                data = self._socket.recv(_READ_SIZE)
                first_byte = first_byte or perf_counter() - start
                if not data:
                    raise _closed()
                parser.feed_data(data)
        except WireError:
            self.close()
            raise
        except (OSError, httptools.HttpParserError) as error:
            self.close()
            raise WireError(f"no HTTP answer: {str(error) or type(error).__name__}") from None
        if not collector.keep_alive:
            self.close()
        return Response(
            version=parser.get_http_version(),
            status=parser.get_status_code(),
            headers=tuple(collector.headers),
            body=bytes(collector.body),
            seconds=perf_counter() - start,
            first_byte=first_byte,
        )

    def close(self) -> None:
        """Closes at once."""
        self.open = False
        self._socket.close()


def _closed() -> WireError:
    return WireError("the connection was closed without an answer")


@dataclass(slots=True)
class _Collector:
    """The callbacks of httptools."""

    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    complete: bool = False
    keep_alive: bool = False
    parser: httptools.HttpResponseParser | None = None

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.complete = True
        # Only now does the parser know: after the call that fed it, it is ready for the next message.
        self.keep_alive = self.parser is not None and self.parser.should_keep_alive()


def tls_context(ca: str | None, client_certificate: str | None, *, verify: bool) -> ssl.SSLContext:
    """A client's context. `ca` is a PEM file that replaces the system's trust store."""
    context = client_context(ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if client_certificate is not None:
        read_file(client_certificate, most=MOST_PEM)
        context.load_cert_chain(client_certificate)
    if not verify:
        # Checks of their own judge the certificate; the others must be made even if it is bad. No request holds
        # anything secret: SigV4 never sends the key, and the plaintexts are random.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        # A certificate with a weak key must come through, so that CERT-06 can say what is wrong with it.
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context
