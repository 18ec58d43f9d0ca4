"""What we accept, h11 reads the same: requests with mistakes that another parser might make something else of.

Where h11 refuses what we accept, one of REASONS says why that is no second reading.
"""

from __future__ import annotations

from typing import NamedTuple

import h11
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gateway.memory import read

REASONS = {
    "illegal request line": "llhttp allows several spaces between its parts; method, target and framing are the same",
    "no request line received": "llhttp skips all empty lines before a request; RFC 9112, 2.2, asks for one at least",
}
FOLLOWING = b"GET /following HTTP/1.1\r\nHost: a\r\n\r\n"


class Reading(NamedTuple):
    """One request as a parser has read it."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes


def ours(data: bytes) -> list[Reading | None]:
    """None is a refusal."""
    return [
        None if r.refusal else Reading(r.method.encode(), r.target, _as_h11(r.headers), r.body) for r in read(data)
    ]


def _as_h11(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """With the one value in small letters that h11 writes so."""
    return [(name, value.lower() if name == b"transfer-encoding" else value) for name, value in headers]


def theirs(data: bytes) -> tuple[list[Reading], str]:
    """What h11 reads, and why it reads no more."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    seen: list[Reading] = []
    try:
        while isinstance(event := connection.next_event(), h11.Request):
            body = b""
            while isinstance(part := connection.next_event(), h11.Data):
                body += part.data
            if not isinstance(part, h11.EndOfMessage):
                break
            seen.append(Reading(event.method, event.target, [(bytes(n), bytes(v)) for n, v in event.headers], body))
            connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            connection.send(h11.EndOfMessage())
            connection.start_next_cycle()
    except h11.RemoteProtocolError as error:
        return seen, str(error).partition(":")[0]
    except h11.LocalProtocolError:
        return seen, "it closes"
    return seen, "it waits"


def agree(data: bytes) -> None:
    other, why = theirs(data)
    for number, mine in enumerate(ours(data)):
        if number >= len(other):
            # After a refusal we may go on, with the same framing, where h11 ends the connection.
            assert mine is None or why in REASONS, (why, mine)
            return
        assert mine in (None, other[number])


# ---- requests with mistakes ------------------------------------------------------------------------------

STARTS = [
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n",
    b"GET /x?y HTTP/1.1\r\nHost: a\r\nX-Y:  v \r\nConnection: keep-alive\r\n\r\n",
    b"POST / HTTP/1.0\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nabc",
]
PIECES = [
    *(bytes([octet]) for octet in b'\r\n\t\0\x0b\x7f\x80\xff :,;"#_+-.01Aa'),
    b"\r\n",
    b"\r\n\r\n",
    b"0x",
    b"Host: b\r\n",
]


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """A request of STARTS with up to three octets changed, gone or put in."""
    data = bytearray(draw(st.sampled_from(STARTS)))
    for _ in range(draw(st.integers(0, 3))):
        place, gone = draw(st.integers(0, len(data))), draw(st.integers(0, 2))
        data[place : place + gone] = draw(st.sampled_from([b"", *PIECES]))
    return bytes(data)


NAMES = [
    "Host",
    "Content-Length",
    "Transfer-Encoding",
    "Connection",
    "Expect",
    "Upgrade",
    "X",
    "content_length",
    " X",
]
VALUES = ["a", "", "0", "3", "+3", "3,3", "03", "0x3", "3 3", "chunked", "Chunked", "gzip, chunked", "chunked;q=1"]
VALUES += [
    "identity",
    "close",
    "keep-alive",
    "upgrade",
    "100-continue",
    "\x0b3",
    "\x0bchunked",
    "a\r\n b",
    "99999999999",
]
COLONS, ENDS, BODIES = (
    [": ", ":", " : ", ":\t"],
    ["\r\n", "\r\n", "\r\n", "\n", "\r"],
    ["", "abc", "3\r\nabc\r\n0\r\n\r\n"],
)
HEADERS = st.builds("".join, st.tuples(*(map(st.sampled_from, (NAMES, COLONS, VALUES, ENDS)))))
BUILT = st.builds(
    lambda method, version, headers, body: f"{method} / {version}\r\nHost: a\r\n{''.join(headers)}\r\n{body}".encode(
        "latin-1"
    ),
    st.sampled_from(["POST", "GET", "HEAD"]),
    st.sampled_from(["HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/1.2"]),
    st.lists(HEADERS, max_size=3),
    st.sampled_from(BODIES),
)


@settings(max_examples=3000, deadline=None)
@given(mutations() | BUILT)
def test_what_we_accept_h11_reads_the_same(request: bytes) -> None:
    agree(request + FOLLOWING)


def test_the_starting_points_are_accepted_by_both() -> None:
    """Else the test above would compare refusals."""
    for start in STARTS:
        assert ours(start) == theirs(start)[0] != []
        agree(start + FOLLOWING)
