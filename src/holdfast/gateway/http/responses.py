"""Responses as bytes."""

import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from holdfast.protocols.port import Response

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def to_bytes(response: Response, *, head: bool, keep_alive: bool) -> bytes:
    """The response on the wire, with Content-Length and Date. `head`: without the body."""
    parts = [_STATUS_LINES[response.status], _date(int(time.monotonic()))]
    for name, value in response.headers:
        parts += (name, b": ", value, b"\r\n")
    if not keep_alive:
        parts.append(b"connection: close\r\n")
    parts.append(b"content-length: %d\r\n\r\n" % len(response.body))
    if not head:
        parts.append(response.body)
    return b"".join(parts)


_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


@lru_cache(maxsize=1)
def _date(_second: int) -> bytes:
    # Changes once a second; formatting it for each answer would cost as much as the rest of the header.
    return f"date: {formatdate(usegmt=True)}\r\n".encode()
