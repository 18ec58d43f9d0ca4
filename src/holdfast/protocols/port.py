"""What HTTP and a protocol say to each other.

Neither knows the other's words: HTTP refuses by `Refusal`, and the protocol says what that is on its wire.
"""

from enum import Enum, auto
from typing import NamedTuple

Headers = list[tuple[bytes, bytes]]

JSON: Headers = [(b"content-type", b"application/json")]


class Response(NamedTuple):
    """Status, headers (lower-case names, without content-length) and body."""

    status: int
    headers: Headers
    body: bytes


class Reason(Enum):
    """Why a request is refused before the protocol has seen it."""

    MALFORMED = auto()
    """Not HTTP/1.1 as it is accepted here, headers that are too long, or not whole in time."""
    BODY_TOO_LARGE = auto()
    UNKNOWN_METHOD = auto()
    OVERLOADED = auto()


class Refusal(NamedTuple):
    """A reason, and the sentence for the client."""

    reason: Reason
    sentence: str
