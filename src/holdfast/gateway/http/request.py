"""A request as the HTTP layer has read it, and what may answer it."""

from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from holdfast.protocols.port import Headers, Refusal, Response


@dataclass(slots=True)
class HttpRequest:
    """One request. `refusal` is set where the framing or a cap already decides; `complete` once it is read whole.

    `authenticated` is set by the handler once the signature is verified.
    """

    arrived: float
    client: str
    method: str = ""
    target: bytes = b""
    headers: Headers = field(default_factory=list)
    body: bytes = b""
    keep_alive: bool = False
    complete: bool = False
    authenticated: bool = False
    refusal: Refusal | None = None


class Handler(Protocol):
    """What answers the requests of a listener."""

    def begin(self, request: HttpRequest) -> Response | Coroutine[Any, Any, Response]:
        """The answer, or where it takes time, what will give it and never raises."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes and seconds. A request must be read whole within `read_timeout` of its first byte."""

    max_headers: int
    max_body: int
    read_timeout: float
    idle_timeout: float
