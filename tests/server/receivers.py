"""What receives in the tests of the outlets: syslog as RFC 5424 has it, read strictly, over every transport."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

_PRINTABLE = r"[!-~]"
# RFC 5424, section 6: the ABNF of HEADER and STRUCTURED-DATA, name by name.
_SYSLOG = re.compile(
    rf"<(?P<pri>0|[1-9][0-9]{{0,2}})>(?P<version>[1-9][0-9]{{0,2}})"
    r" (?P<timestamp>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}"
    r"(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:[0-9]{2}))"
    rf" (?P<host>-|{_PRINTABLE}{{1,255}}) (?P<app>-|{_PRINTABLE}{{1,48}}) (?P<process>-|{_PRINTABLE}{{1,128}})"
    rf" (?P<id>-|{_PRINTABLE}{{1,32}})"
    r" (?P<data>-|(?:\[[!#-<>-\\^-~]{1,32}(?: [!#-<>-\\^-~]{1,32}=\"(?:[^\"\\\]]|\\[\"\\\]])*\")*\])+)"
    r"(?: (?P<text>.*))?",
    re.DOTALL,
)
_SEQUENCE = re.compile(r'\[meta sequenceId="([1-9][0-9]*)"\]')


@dataclass(frozen=True)
class Syslog:
    """A message of RFC 5424."""

    facility: int
    severity: int
    time: datetime
    host: str
    app: str
    process: str
    id: str
    sequence: int
    text: str

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Raises AssertionError for what is not of the grammar."""
        match = _SYSLOG.fullmatch(raw.decode("ascii"))
        assert match is not None, raw
        assert match["version"] == "1"
        priority = int(match["pri"])
        assert priority <= 191, raw
        sequence = _SEQUENCE.fullmatch(match["data"])
        assert sequence is not None, raw
        text = match["text"] or ""
        assert text.isprintable(), text
        return cls(
            priority // 8,
            priority % 8,
            datetime.fromisoformat(match["timestamp"]),
            match["host"],
            match["app"],
            match["process"],
            match["id"],
            int(sequence[1]),
            text,
        )

    @property
    def fields(self) -> dict[str, Any]:
        """Of a text in JSON."""
        found: dict[str, Any] = msgspec.json.decode(self.text)
        return found


def unframed(stream: bytes) -> tuple[list[bytes], bytes]:
    """The messages of a stream with octet counting (RFC 5425, section 4.3), and what is not whole yet."""
    messages: list[bytes] = []
    while True:
        length, space, rest = stream.partition(b" ")
        if not space:
            assert re.fullmatch(rb"(?:[1-9][0-9]{0,5})?", length), stream[:40]
            return messages, stream
        assert re.fullmatch(rb"[1-9][0-9]*", length), stream[:40]
        if len(rest) < int(length):
            return messages, stream
        messages.append(rest[: int(length)])
        stream = rest[int(length) :]


class StreamReceiver:
    """Syslog over TCP, or with `context` over TLS, on a loopback port. Connections are taken one after the other.

    `mute`: it takes connections and reads nothing.
    """

    def __init__(self, *, port: int = 0, context: ssl.SSLContext | None = None, mute: bool = False) -> None:
        self._context = context
        self._mute = mute
        self._server = socket.create_server(("127.0.0.1", port))
        self.port: int = self._server.getsockname()[1]
        self._raw: list[bytes] = []
        self.peers: list[Any] = []
        """The client's certificate of each connection."""
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        self.drop()
        self._thread.join(10)

    def drop(self) -> None:
        """End the connections that are open."""
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def messages(self) -> list[Syslog]:
        """Every whole message so far."""
        return [Syslog.parse(raw) for stream in list(self._raw) for raw in unframed(stream)[0]]

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                plain, _ = self._server.accept()
                with suppress(OSError), plain:
                    self._serve(plain)

    def _serve(self, plain: socket.socket) -> None:
        plain.settimeout(30)
        connection = plain if self._context is None else self._context.wrap_socket(plain, server_side=True)
        self._open.append(connection)
        self.peers.append(connection.getpeercert() if isinstance(connection, ssl.SSLSocket) else None)
        if self._mute:
            threading.Event().wait(60)
        self._raw.append(b"")
        with connection:
            while received := connection.recv(65_536):
                self._raw[-1] += received


class DatagramReceiver:
    """Syslog over UDP, or on a socket at `path`."""

    def __init__(self, path: Path | None = None) -> None:
        if path is None:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.bind(("127.0.0.1", 0))
            self.port: int = self._socket.getsockname()[1]
        else:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.bind(str(path))
        self._socket.setblocking(False)
        self._raw: list[bytes] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    @property
    def raw(self) -> list[bytes]:
        """Every datagram so far."""
        with suppress(OSError):  # there is no more, or it is closed
            while True:
                self._raw.append(self._socket.recv(65_536))
        return self._raw

    @property
    def messages(self) -> list[Syslog]:
        """Every datagram so far, as RFC 5424."""
        return [Syslog.parse(raw) for raw in self.raw]
