"""What the head of a request may say: its size, its one Host, the length of the body that follows."""

import re
from dataclasses import dataclass

from holdfast.gateway.http.request import HttpRequest
from holdfast.protocols.port import Reason, Refusal

_HOST = re.compile(rb"(?:[A-Za-z0-9._~%!$&'()*+,;=-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
"""RFC 9110, 7.2: a host and a port, each of which may be missing."""


@dataclass(slots=True)
class Head:
    """`length` is Content-Length's, or 0. `refusal`: why the request is refused, though its end can be found."""

    length: int
    chunked: bool
    refusal: Refusal | None


def read_head(request: HttpRequest, version: str, *, max_size: int) -> Head:
    """What the headers of `request` say together. llhttp has seen to it that there is one length, of digits."""
    length, size, chunked, hosts = 0, len(request.target), False, []
    for name, value in request.headers:
        size += len(name) + len(value) + 4
        if name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            chunked = True
        elif name == b"host":
            hosts.append(value)
    refusal = None
    if size > max_size:
        refusal = Refusal(Reason.MALFORMED, "the request's headers are longer than this proxy accepts")
    elif len(hosts) > 1 or (not hosts and version == "1.1"):
        # RFC 9112, 3.2: otherwise one program could route by one of them, and another verify the other.
        refusal = Refusal(Reason.MALFORMED, f"the request has {len(hosts)} Host headers where it needs exactly one")
    elif hosts and not _HOST.fullmatch(hosts[0]):
        refusal = Refusal(Reason.MALFORMED, "the Host header is not a host and a port")
    return Head(length, chunked, refusal)
