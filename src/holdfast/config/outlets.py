"""`[outlet.NAME]`: where events and changes are sent, and how."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from annotated_types import Interval

from holdfast.config.kinds import Kind, Refused, parse_text

_SYSLOG = ("tls", "tcp", "udp")
_OTLP = ("otlp+http", "otlp+https")
_FORMS = "tls://, tcp:// or udp://HOST:PORT, unix:///PATH, or otlp+http:// or otlp+https://HOST:PORT/PATH"


@dataclass(frozen=True, slots=True)
class Destination:
    """`scheme` says how it is spoken to; `path` is that of a socket, or of a URL."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, value: Any, folder: Path) -> Self:
        """From one of the forms in `_FORMS`; nothing is looked up. Raises Refused."""
        text = parse_text(value, folder)
        try:
            url = urlsplit(text)
            host, port = url.hostname, url.port
        except ValueError:
            raise Refused(f"is not a URL: write {_FORMS}") from None
        if not text.isascii() or not text.isprintable() or url.username is not None or url.query or url.fragment:
            raise Refused(f"must be {_FORMS}, and no more")
        if url.scheme == "unix":
            if host or not url.path.strip("/"):
                raise Refused("must name a socket by its whole path, as in unix:///dev/log")
            return cls("unix", "", 0, url.path)
        if url.scheme not in _SYSLOG + _OTLP or not host or not port:
            raise Refused(f"must be {_FORMS}")
        if url.scheme in _SYSLOG and url.path.strip("/"):
            raise Refused(f"must have no path after the port: {url.scheme}://{url.netloc}")
        return cls(url.scheme, host, port, url.path or "/v1/logs")

    @property
    def is_otlp(self) -> bool:
        """OpenTelemetry's protocol, and not syslog."""
        return self.scheme in _OTLP

    @property
    def uses_tls(self) -> bool:
        """Whether a certificate is looked at."""
        return self.scheme in {"tls", "otlp+https"}

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path if self.is_otlp else ''}"


class Format(StrEnum):
    """How the text of a message is written."""

    JSON = "json"
    CEF = "cef"
    OCSF = "ocsf"


class Events(StrEnum):
    """Which events of requests are sent."""

    ALL = "all"
    REFUSED = "refused"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlet:
    """`[outlet.NAME]`."""

    to: Annotated[Destination, Kind(_FORMS, Destination.parse)]
    """Syslog over TLS, TCP or UDP, the host's own syslog such as unix:///dev/log, or OTLP over HTTP."""
    format: Format = Format.JSON
    """JSON as in the event log, CEF, or OCSF 1.5.0."""
    events: Events = Events.ALL
    """Events of requests: all, those that were not answered with a success, or none."""
    changes: bool = True
    """Whether every change is sent. Each node that has this on sends each change, with its id."""
    buffer: Annotated[int, Interval(ge=100, le=1_000_000)] = 20_000
    """Messages that wait while the receiver is away, about 1 KB each. Further events are lost, and counted."""
    ca: Path | None = None
    """PEM: the authorities that the receiver's certificate may come from. Left out: those of the system."""
    certificate: Path | None = None
    """PEM: a client certificate for the receiver. Needs private_key."""
    private_key: Path | None = None
    """PEM: its private key, not encrypted. Needs certificate."""

    @property
    def files(self) -> dict[str, Path]:
        """Those of TLS that are named, by key."""
        named = {"ca": self.ca, "certificate": self.certificate, "private_key": self.private_key}
        return {name: file for name, file in named.items() if file is not None}
