"""How messages reach a receiver. Each transport belongs to one thread and may block it: nobody else waits for it."""

import errno
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from select import POLLIN, poll
from typing import Protocol

from holdfast.config.outlets import Format, Outlet
from holdfast.gateway.outlets import cef, ocsf, plain
from holdfast.gateway.outlets.message import Message, Render
from holdfast.gateway.outlets.rfc5424 import local, octet_counted, syslog
from holdfast.trust import client_context

TIMEOUT = 10.0
"""Seconds for a connection, and for one batch to be taken."""
_FORMATS: dict[Format, Render] = {Format.JSON: plain.render, Format.CEF: cef.render, Format.OCSF: ocsf.render}
_UNHEARD = 65_536
_VERDICT = 1.0
"""Seconds in which a receiver that refuses our certificate says so."""


class Refused(Exception):
    """The receiver will not take these messages, now or later; the message says why."""


class Transport(Protocol):
    """Raises OSError (ssl.SSLError is one) for what may pass, and Refused for what does not."""

    def open(self) -> None:
        """Connect, where there is a connection."""

    def check(self) -> None:
        """Raises OSError where the receiver has closed the connection."""

    def send(self, messages: Sequence[Message], *, first: int) -> int:
        """Hand over messages, of which the first has the number `first`; how many it took, at least one."""

    def close(self) -> None:
        """Disconnect. Raises nothing."""


def transport_of(settings: Outlet) -> Transport:
    """What `to` in [outlet.NAME] asks for."""
    render = _FORMATS[settings.format]
    match settings.to.scheme:
        case "tls" | "tcp":
            return SyslogStream(settings, render)
        case "udp" | "unix":
            return SyslogDatagrams(settings, render)
        case _:
            return Otlp(settings, render)


class SyslogStream:
    """RFC 5425 over TLS, RFC 6587 with octet counting over TCP.

    Neither has acknowledgements: a message counts as sent once the kernel has it. What was on the way when a
    connection broke can be lost without anybody seeing it but the receiver, by the gap in `sequenceId`.
    """

    def __init__(self, settings: Outlet, render: Render) -> None:
        self._settings = settings
        self._render = render
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """The files are read anew, so that a renewed certificate needs no reload."""
        settings = self._settings
        to = settings.to
        plain_socket = socket.create_connection((to.host, to.port), TIMEOUT)
        try:
            plain_socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if to.uses_tls:
                self._socket = _tls(settings).wrap_socket(plain_socket, server_hostname=to.host)
                self._hear_verdict(self._socket)
            else:
                self._socket = plain_socket
        except BaseException:
            plain_socket.close()
            raise

    def _hear_verdict(self, connection: socket.socket) -> None:
        """In TLS 1.3 a receiver looks at our certificate after our side of the handshake is done, and then says so.

        A session ticket comes at once from one that accepts it; some send none. Raises OSError.
        """
        readable = poll()
        readable.register(connection, POLLIN)
        readable.poll(_VERDICT * 1000)
        self.check()

    def check(self) -> None:
        """A receiver says nothing: what can be read is its end, or is thrown away."""
        connection = self._connection()
        connection.setblocking(False)
        try:
            if connection.recv(_UNHEARD) == b"":
                raise ConnectionResetError(errno.ECONNRESET, "the receiver has closed the connection")
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        finally:
            connection.settimeout(TIMEOUT)

    def send(self, messages: Sequence[Message], *, first: int) -> int:
        """All of them, or none that a receiver takes for whole."""
        self.check()
        frames = (
            octet_counted(_syslog(message, self._render, first + index)) for index, message in enumerate(messages)
        )
        self._connection().sendall(b"".join(frames))
        return len(messages)

    def close(self) -> None:
        """Without waiting for the receiver."""
        connection, self._socket = self._socket, None
        if connection is not None:
            with suppress(OSError):
                connection.close()

    def _connection(self) -> socket.socket:
        if self._socket is None:
            raise ConnectionResetError(errno.ENOTCONN, "not connected")
        return self._socket


class SyslogDatagrams:
    """RFC 5426 over UDP, or the socket of the host's own syslog."""

    def __init__(self, settings: Outlet, render: Render) -> None:
        self._settings = settings
        self._render = render
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Nothing is sent yet."""
        to = self._settings.to
        if to.scheme == "unix":
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            address: object = to.path
        else:
            family, kind, protocol, _, address = socket.getaddrinfo(to.host, to.port, type=socket.SOCK_DGRAM)[0]
            self._socket = socket.socket(family, kind, protocol)
        self._socket.settimeout(TIMEOUT)
        self._socket.connect(address)  # type: ignore[arg-type]  # either kind of address

    def check(self) -> None:
        """A datagram socket is never closed by the other side."""

    def send(self, messages: Sequence[Message], *, first: int) -> int:
        """One datagram each, until one is not taken."""
        if self._socket is None:
            raise ConnectionResetError(errno.ENOTCONN, "not open")
        for index, message in enumerate(messages):
            if self._settings.to.scheme == "unix":
                datagram = local(message, message.fitting(self._render), process=os.getpid())
            else:
                datagram = _syslog(message, self._render, first + index)
            try:
                self._socket.send(datagram)
            except OSError as error:
                if index:
                    return index
                if error.errno == errno.EMSGSIZE:
                    raise Refused(f"a datagram of {len(datagram)} bytes is too long for this network") from None
                raise
        return len(messages)

    def close(self) -> None:
        """At once."""
        opened, self._socket = self._socket, None
        if opened is not None:
            opened.close()


class Otlp:
    """OTLP over HTTP with protobuf, by OpenTelemetry's own exporter: it retries for TIMEOUT seconds by itself.

    Its processors are not used: they lose records without counting them.
    """

    def __init__(self, settings: Outlet, render: Render) -> None:
        self._settings = settings
        self._render = render
        self._export: Callable[[Sequence[Message], int], int] | None = None
        self._shutdown: Callable[[], None] = lambda: None

    def open(self) -> None:
        """Load the exporter; it connects when it sends."""
        from holdfast.gateway.outlets.otlp import Exporter  # noqa: PLC0415 (an optional dependency)

        exporter = Exporter(self._settings, self._render, timeout=TIMEOUT)
        self._export, self._shutdown = exporter.export, exporter.shutdown

    def check(self) -> None:
        """Connections are the exporter's matter."""

    def send(self, messages: Sequence[Message], *, first: int) -> int:
        """All of them in one request."""
        if self._export is None:
            raise ConnectionResetError(errno.ENOTCONN, "not open")
        return self._export(messages, first)

    def close(self) -> None:
        """Forget its connections."""
        if self._export is not None:
            self._export = None
            self._shutdown()


def _syslog(message: Message, render: Render, sequence: int) -> bytes:
    text = message.fitting(render)
    return syslog(message, text, host=_HOST, process=os.getpid(), sequence=sequence)


def _host() -> str:
    """RFC 5424, section 6.2.4: printable ASCII, at most 255."""
    name = "".join(each for each in socket.gethostname() if "!" <= each <= "~")
    return name[:255] or "-"


_HOST = _host()


def _tls(settings: Outlet) -> ssl.SSLContext:
    """Raises OSError, also for a file that holds nothing fit."""
    context = client_context(settings.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.certificate is not None and settings.private_key is not None:
        context.load_cert_chain(settings.certificate, settings.private_key)
    return context
