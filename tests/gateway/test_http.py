"""One connection: framing, caps, timeouts, order."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.gateway.wire import LIMITS, Client, Wire
from tests.waiting import PATIENCE

from holdfast.gateway.http import listener
from holdfast.gateway.http.connections import network_of
from holdfast.gateway.http.listener import Listener
from holdfast.gateway.http.protocol import MAX_PIPELINED
from holdfast.gateway.http.request import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

SMUGGLING = {
    "both length headers": b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both length headers, the other way": b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "two equal Content-Lengths": b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
    "two Content-Lengths": b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a list of lengths": b"Content-Length: 1, 1\r\n\r\na",
    "a signed length": b"Content-Length: +1\r\n\r\na",
    "a hexadecimal length": b"Content-Length: 0x1\r\n\r\na",
    "an empty length": b"Content-Length: \r\n\r\na",
    "an endless length": b"Content-Length: 99999999999999999999999\r\n\r\na",
    "obsolete folding": b"A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    "folding with a tab": b"A: b\r\n\tc\r\nContent-Length: 0\r\n\r\n",
    "folding of the first line": b" A: b\r\nContent-Length: 0\r\n\r\n",
    "a bare LF": b"A: b\nContent-Length: 0\r\n\r\n",
    "a bare LF at the end": b"A: b\r\nContent-Length: 0\r\n\n",
    "a bare CR": b"A: b\rc\r\nContent-Length: 0\r\n\r\n",
    "NUL": b"A: b\0c\r\nContent-Length: 0\r\n\r\n",
    "a control character": b"A: b\x01c\r\nContent-Length: 0\r\n\r\n",
    "a space before the colon": b"Content-Length : 0\r\n\r\n",
    "no colon": b"Content-Length 0\r\n\r\n",
    "an empty name": b": 0\r\nContent-Length: 0\r\n\r\n",
    "a chunk size that is no number": b"Transfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n0\r\n\r\n",
    "a negative chunk size": b"Transfer-Encoding: chunked\r\n\r\n-1\r\nab\r\n0\r\n\r\n",
    "a chunk size with 0x": b"Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
    "an endless chunk size": b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\na\r\n0\r\n\r\n",
    "a chunk size with a bare LF": b"Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n",
    "a chunk that ends with a bare LF": b"Transfer-Encoding: chunked\r\n\r\n1\r\na\n0\r\n\r\n",
    "a chunk longer than its size": b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
    "an LF in a chunk extension": b"Transfer-Encoding: chunked\r\n\r\n1;a\nb\r\na\r\n0\r\n\r\n",
    "a trailer": b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: y\r\n\r\n",
    "two codings": b"Transfer-Encoding: gzip, chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    "chunked not last": b"Transfer-Encoding: chunked, gzip\r\n\r\n1\r\na\r\n0\r\n\r\n",
    "an unknown coding": b"Transfer-Encoding: xchunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    "no coding": b"Transfer-Encoding: identity\r\nContent-Length: 0\r\n\r\n",
    "chunked with a vertical tab": b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an upgrade": b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n",
}
BAD_LINES = {
    "chunked in HTTP/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/2.0": b"POST / HTTP/2.0\r\n\r\n",
    "HTTP/1.2": b"POST / HTTP/1.2\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "the HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a bare LF": b"POST / HTTP/1.1\nContent-Length: 0\r\n\r\n",
    "a method that is no token": b"ST(AL / HTTP/1.1\r\n\r\n",
    "an unknown method of another protocol": b"STEAL / HTTP/2.0\r\n\r\n",
    "a space in the path": b"POST /a b HTTP/1.1\r\n\r\n",
    "a control character in the path": b"POST /a\x01b HTTP/1.1\r\n\r\n",
    "CONNECT": b"CONNECT a:1 HTTP/1.1\r\n\r\n",
    "TLS": bytes.fromhex("16030100050100000100"),
}
REQUEST = b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
def wire() -> Iterator[Wire]:
    with Wire() as wire:
        yield wire


@pytest.mark.parametrize("headers", SMUGGLING.values(), ids=SMUGGLING)
def test_framing_that_two_parsers_may_read_differently_is_refused_and_ends_the_connection(
    wire: Wire, headers: bytes
) -> None:
    client = wire.connect().send(b"POST / HTTP/1.1\r\nHost: a\r\n" + headers + b"GET /smuggled HTTP/1.1\r\n\r\n")
    answer = client.answer()
    assert answer.error == (400, "ValidationException")
    assert answer.headers["connection"] == "close"
    assert client.closed()
    assert b"/smuggled" not in [request.target for request in wire.desk.seen]


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES)
def test_a_request_line_that_is_not_http_1_is_refused_and_ends_the_connection(wire: Wire, line: bytes) -> None:
    client = wire.connect().send(line)
    answer = client.answer()
    assert answer.error == (400, "ValidationException")
    assert client.closed()


@pytest.mark.parametrize("method", [b"STEAL", b"post", b"x"])
def test_a_method_that_nobody_knows_is_told_apart_and_ends_the_connection(wire: Wire, method: bytes) -> None:
    """Its framing is not known: RFC 9110, 9.1, has 501 for it, and the API 405 at its own paths."""
    client = wire.connect().send(method + b" /a HTTP/1.1\r\nHost: a\r\n\r\n" + REQUEST % b"/next")
    assert client.answer().error == (501, "UnsupportedOperationException")
    assert client.closed()
    assert [(request.method, request.target) for request in wire.desk.seen] == [(method.decode(), b"/a")]


def test_a_chunked_body_is_put_together(wire: Wire) -> None:
    client = wire.connect()
    client.send(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3;x=y\r\ncde\r\n0\r\n\r\n"
    )
    assert client.answer().status == 200
    assert wire.desk.seen[0].body == b"abcde"


def test_every_split_of_a_request_reads_the_same(wire: Wire) -> None:
    request = b"POST /p?q HTTP/1.1\r\nHost: a\r\nX-Y:  v \r\nContent-Length: 3\r\n\r\nabc"
    client = wire.connect()
    for position in range(1, len(request)):
        client.send(request[:position])
        time.sleep(0.0002)  # lets the two parts travel alone; the claim holds either way
        client.send(request[position:])
        assert client.answer().status == 200
    expected = [(b"host", b"a"), (b"x-y", b"v"), (b"content-length", b"3")]
    assert all((r.target, r.headers, r.body) == (b"/p?q", expected, b"abc") for r in wire.desk.seen)


def test_a_body_at_the_cap_is_accepted(wire: Wire) -> None:
    body = b"x" * LIMITS.max_body
    client = wire.connect().send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    assert client.answer().status == 200


def test_a_body_over_the_cap_is_answered_before_it_is_sent_and_the_connection_goes_on(wire: Wire) -> None:
    size = LIMITS.max_body + 1
    client = wire.connect().send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
    answer = client.answer()
    assert answer.error == (501, "UnsupportedOperationException")
    client.send(b"x" * size + REQUEST % b"/next")
    assert client.answer().body == b"/next"


def test_a_body_far_over_the_cap_ends_the_connection_after_the_answer(wire: Wire) -> None:
    client = wire.connect().send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 100_000)
    answer = client.answer()
    assert (answer.status, answer.headers["connection"]) == (501, "close")
    assert client.closed()


def test_a_body_in_countless_chunks_is_refused(wire: Wire) -> None:
    client = wire.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 257)
    assert client.answer().error == (400, "ValidationException")
    assert client.closed()


def test_a_body_of_chunk_extensions_is_refused(wire: Wire) -> None:
    client = wire.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(20):
        client.send(b"1;" + b"x" * 1000 + b"\r\na\r\n")
    assert client.answer().error == (400, "ValidationException")


def test_a_chunked_body_over_the_cap_is_refused(wire: Wire) -> None:
    chunk = b"%x\r\n%s\r\n" % (1000, b"x" * 1000)
    client = wire.connect().send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 10)
    answer = client.answer()
    assert (answer.status, answer.headers["connection"]) == (501, "close")


@pytest.mark.parametrize("count", [1, 100])
def test_headers_over_the_cap_are_refused_and_the_connection_goes_on(wire: Wire, count: int) -> None:
    header = b"X: " + b"y" * (LIMITS.max_headers // count) + b"\r\n"
    body = b"Content-Length: 3\r\n\r\nabc"
    client = wire.connect().send(b"POST / HTTP/1.1\r\nHost: a\r\n" + header * count + body + REQUEST % b"/next")
    assert client.answer().error == (400, "ValidationException")
    assert client.answer().body == b"/next"


def test_headers_over_the_cap_before_a_body_of_unknown_length_end_the_connection(wire: Wire) -> None:
    header = b"X: " + b"y" * LIMITS.max_headers + b"\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    client = wire.connect().send(b"POST / HTTP/1.1\r\nHost: a\r\n" + header + REQUEST % b"/next")
    assert client.answer().error == (400, "ValidationException")
    assert client.closed()


HOSTS = ["a", "A-b_c.example:8443", "[::1]:443", "127.0.0.1", "", ":1"]


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_is_a_name_or_address_with_or_without_a_port(wire: Wire, host: str) -> None:
    assert wire.connect().send(b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % host.encode()).answer().status == 200


NOT_ONE_HOST = {
    "none": b"",
    "two": b"Host: a\r\nHost: b\r\n",
    "the same twice": b"Host: a\r\nhost: a\r\n",
    "a list": b"Host: a b\r\n",
    "user information": b"Host: x@a\r\n",
    "a path": b"Host: a/b\r\n",
    "a port that is no number": b"Host: a:b\r\n",
    "an octet beyond ASCII": b"Host: \xe4\r\n",
    "an open bracket": b"Host: [::1\r\n",
}


@pytest.mark.parametrize("headers", NOT_ONE_HOST.values(), ids=NOT_ONE_HOST)
def test_a_request_without_exactly_one_host_is_refused_and_the_connection_goes_on(wire: Wire, headers: bytes) -> None:
    """RFC 9112, 3.2, MUST."""
    client = wire.connect().send(b"GET /ping HTTP/1.1\r\n" + headers + b"\r\n" + REQUEST % b"/next")
    assert client.answer().error == (400, "ValidationException")
    assert client.answer().body == b"/next"


def test_a_header_without_end_is_refused_before_it_ends(wire: Wire) -> None:
    client = wire.connect().send(b"POST / HTTP/1.1\r\nX: ")
    wire_limit = LIMITS.max_headers
    for _ in range(4):
        time.sleep(0.01)  # each part must be a read of its own
        client.send(b"y" * wire_limit)
    assert client.answer().status == 400


def test_continue_is_sent_when_the_body_is_wanted(wire: Wire) -> None:
    client = wire.connect().send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert client.interim().status == 100
    assert client.send(b"ab").answer().status == 200


def test_continue_is_not_sent_for_a_body_over_the_cap(wire: Wire) -> None:
    client = wire.connect().send(
        b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9000\r\n\r\n"
    )
    answer = client.interim()
    assert (answer.status, answer.headers["connection"]) == (501, "close")


@pytest.mark.parametrize("more", [b"", b"Connection: keep-alive\r\n"], ids=["plain", "keep-alive"])
def test_http_1_0_needs_no_host_and_is_answered_and_closed(wire: Wire, more: bytes) -> None:
    request = b"POST / HTTP/1.0\r\n" + more + b"Content-Length: 2\r\n\r\nab"
    client = wire.connect().send(request + REQUEST % b"/next")
    answer = client.answer()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert client.closed()


def test_head_has_the_length_and_not_the_body(wire: Wire) -> None:
    client = wire.connect().send(b"HEAD /path HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert client.answer(head=True).headers["content-length"] == "5"
    assert client.closed()


def test_pipelined_requests_are_answered_in_order(wire: Wire) -> None:
    targets = [b"/wait", b"/immediate", b"/task", b"/immediate2"]
    client = wire.connect().send(b"".join(REQUEST % target for target in targets))
    wire.wait_for_requests(1)
    wire.open_gate()
    assert [client.answer().body for _ in targets] == targets


def test_one_request_of_a_connection_is_answered_at_a_time(wire: Wire) -> None:
    client = wire.connect().send(REQUEST % b"/wait" + REQUEST % b"/next")
    wire.wait_for_requests(1)
    other = wire.connect().send(REQUEST % b"/other")
    assert other.answer().body == b"/other"
    assert [request.target for request in wire.desk.seen] == [b"/wait", b"/other"]
    wire.open_gate()
    client.answer()


def test_too_many_pipelined_requests_are_throttled_and_the_rest_is_dropped(wire: Wire) -> None:
    client = wire.connect().send((REQUEST % b"/wait") * 200)
    wire.wait_for_requests(1)
    wire.open_gate()
    statuses = [client.answer().status for _ in range(MAX_PIPELINED + 2)]
    assert statuses == [200] * (MAX_PIPELINED + 1) + [429]
    assert client.closed()


def test_immediate_answers_are_no_way_around_that(wire: Wire) -> None:
    """A read holds thousands of them: answering all would hold up everybody else's requests."""
    client = wire.connect().send((REQUEST % b"/immediate") * 200)
    statuses = [client.answer().status for _ in range(MAX_PIPELINED + 2)]
    assert statuses == [200] * (MAX_PIPELINED + 1) + [429]
    assert client.closed()


def test_what_follows_the_last_request_is_ignored(wire: Wire) -> None:
    client = wire.connect().send(b"POST /wait HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + REQUEST % b"/more")
    wire.wait_for_requests(1)
    wire.open_gate()
    assert client.answer().body == b"/wait"
    assert client.closed()
    assert len(wire.desk.seen) == 1


def test_a_malformed_request_is_refused_after_the_answers_to_those_before(wire: Wire) -> None:
    client = wire.connect().send(REQUEST % b"/wait" + b"nonsense\r\n\r\n")
    wire.wait_for_requests(1)
    wire.open_gate()
    assert [client.answer().status, client.answer().status] == [200, 400]
    assert client.closed()


def test_a_client_that_has_finished_sending_gets_its_answer(wire: Wire) -> None:
    client = wire.connect().send(REQUEST % b"/wait")
    client.sock.shutdown(1)
    wire.wait_for_requests(1)
    wire.open_gate()
    assert client.answer().body == b"/wait"
    assert client.closed()


def test_no_header_tells_the_software(wire: Wire) -> None:
    answer = wire.connect().send(REQUEST % b"/").answer()
    assert set(answer.headers) == {"date", "content-type", "content-length"}


PATIENT = replace(LIMITS, read_timeout=60.0, idle_timeout=60.0)
SHORT = Limits(max_headers=4096, max_body=8192, read_timeout=0.3, idle_timeout=0.3)


@pytest.mark.parametrize("start", [b"", REQUEST % b"/"], ids=["new", "used"])
def test_an_idle_connection_is_closed(start: bytes) -> None:
    with Wire(SHORT) as wire:
        client = wire.connect().send(start)
        if start:
            client.answer()
        assert client.closed()


@pytest.mark.parametrize(
    "start", [b"P", b"POST / HTTP/1.1\r\nX: y", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab"]
)
def test_a_slow_sender_is_refused_however_steadily_it_sends(start: bytes) -> None:
    with Wire(SHORT) as wire:
        client = wire.connect().send(start)
        client.sock.settimeout(0.05)
        began = time.monotonic()
        answer = b""
        while time.monotonic() < began + 5 and not answer:
            try:
                answer = client.sock.recv(1000)
            except TimeoutError:
                client.send(b"x")
        assert answer.startswith(b"HTTP/1.1 400 ")


def test_a_client_that_reads_nothing_is_cut_off() -> None:
    with Wire(SHORT) as wire:
        client = wire.connect()
        client.sock.settimeout(0.5)
        with pytest.raises(OSError, match=r"reset|pipe"):
            _send_for_ever(client, (REQUEST % (b"/" + b"x" * 3000)) * MAX_PIPELINED)


def _send_for_ever(client: Client, data: bytes) -> None:
    deadline = time.monotonic() + 8
    while time.monotonic() < deadline:
        with suppress(TimeoutError):
            client.send(data)


def test_when_every_place_is_taken_the_longest_idle_makes_room() -> None:
    with Wire(PATIENT, max_connections=3) as wire:
        clients = [wire.connect().send(REQUEST % b"/") for _ in range(3)]
        for client in clients:
            client.answer()
        newcomer = wire.connect().send(REQUEST % b"/new")
        assert newcomer.answer().body == b"/new"
        assert clients[0].closed()
        assert clients[2].send(REQUEST % b"/still").answer().body == b"/still"


def test_those_who_signed_a_request_are_the_last_to_make_room() -> None:
    with Wire(PATIENT, max_connections=3) as wire:
        signed = wire.connect().send(REQUEST % b"/task")
        signed.answer()
        strangers = [wire.connect().send(REQUEST % b"/") for _ in range(2)]
        for stranger in strangers:
            stranger.answer()
        for _ in range(6):
            newcomer = wire.connect().send(REQUEST % b"/new")
            assert newcomer.answer().body == b"/new"
        assert all(stranger.closed() for stranger in strangers)
        assert signed.send(REQUEST % b"/task").answer().body == b"/task"
        assert wire.table.ended == {"unauthenticated": 6}


def test_half_a_request_keeps_no_place_from_others() -> None:
    with Wire(PATIENT, max_connections=2) as wire:
        halves = [wire.connect().send(b"G") for _ in range(2)]
        wire.wait_for_connections(2)
        assert wire.connect().send(REQUEST % b"/new").answer().body == b"/new"
        assert halves[0].closed()


def test_too_many_connections_of_one_address_end_its_own_oldest_one() -> None:
    with Wire(PATIENT, per_source=2) as wire:
        signed = wire.connect().send(REQUEST % b"/task")
        signed.answer()
        first, second, third = (wire.connect() for _ in range(3))
        assert first.closed()
        for other in (second, third):
            assert other.send(REQUEST % b"/").answer().body == b"/"
        assert signed.send(REQUEST % b"/task").answer().body == b"/task"
        assert wire.table.ended == {"source": 1}


def test_the_addresses_of_one_ipv6_network_count_as_one() -> None:
    assert network_of("2001:db8:1:2::1") == network_of("2001:db8:1:2:ffff::9") == "2001:db8:1:2::"
    assert network_of("2001:db8:1:3::1") != network_of("2001:db8:1:2::1")
    assert network_of("fe80::1%eth0") == "fe80::"
    assert network_of("192.0.2.1") != network_of("192.0.2.2")


def test_one_address_whose_requests_are_all_being_answered_gets_no_further_connection() -> None:
    with Wire(PATIENT, per_source=1) as wire:
        busy = wire.connect().send(REQUEST % b"/wait")
        wire.wait_for_requests(1)
        assert wire.refuses()
        wire.open_gate()
        assert busy.answer().body == b"/wait"
        assert wire.counts == {("connections_refused", "source"): 1}


def test_a_burst_is_accepted_in_a_few_turns_and_shared_with_the_other_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns: list[float] = []
    monkeypatch.setattr(Listener, "_pause", lambda _listener, seconds: turns.append(seconds))
    with Wire(PATIENT, workers=2) as wire:
        with wire.stalled():
            burst = [wire.connect() for _ in range(200)]
        for client in burst:
            client.send(REQUEST % b"/")
        assert {client.answer().body for client in burst} == {b"/"}
        assert 200 / 32 <= len(turns) < 40


def test_a_connection_that_loses_its_place_while_it_opens_is_not_counted() -> None:
    with Wire(PATIENT, max_connections=3) as wire:
        with wire.stalled():
            # More than one turn accepts: the second turn ends what the first has begun.
            clients = [wire.connect() for _ in range(100)]
        assert sum(client.closed() for client in clients[:-3]) == 97
        for client in clients:
            client.close()
        wire.wait_for_no_connections()


def test_a_connection_that_fails_while_it_opens_keeps_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a mistake of ours")

    with Wire(PATIENT, max_connections=3) as wire:
        with monkeypatch.context() as broken:
            broken.setattr("tests.gateway.wire.HttpConnection", fail)
            assert all(wire.connect().closed() for _ in range(10))
        wire.wait_for_no_connections()
        assert wire.counts["handshakes_failed", "RuntimeError"] == 10


def test_a_newcomer_waits_while_every_place_is_busy() -> None:
    with Wire(PATIENT, max_connections=1) as wire:
        busy = wire.connect().send(REQUEST % b"/wait")
        wire.wait_for_requests(1)
        newcomer = wire.connect().send(REQUEST % b"/new")
        wire.open_gate()
        assert busy.answer().body == b"/wait"
        assert newcomer.answer().body == b"/new"


def test_after_a_connection_the_next_one_is_left_to_the_other_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "REST", 60.0)
    with Wire(PATIENT, workers=2) as wire:
        assert wire.connect().send(REQUEST % b"/mine").answer().body == b"/mine"
        theirs = wire.connect().send(REQUEST % b"/theirs")
        wire.other_worker.settimeout(PATIENCE)
        accepted, peer = wire.other_worker.accept()
        accepted.close()
        assert peer == theirs.sock.getsockname()


def test_draining_closes_the_idle_and_answers_the_rest() -> None:
    with Wire() as wire:
        idle = wire.connect().send(REQUEST % b"/")
        idle.answer()
        busy = wire.connect().send(REQUEST % b"/wait")
        wire.wait_for_requests(2)
        wire.start_drain(5)
        assert idle.closed()
        wire.open_gate()
        answer = busy.answer()
        assert (answer.body, answer.headers["connection"]) == (b"/wait", "close")
        assert busy.closed()


def test_draining_is_bounded() -> None:
    with Wire() as wire:
        stuck = wire.connect().send(REQUEST % b"/wait")
        wire.wait_for_requests(1)
        wire.drain(0.1)
        assert stuck.closed()


def test_draining_gives_a_client_that_has_just_connected_a_moment() -> None:
    with Wire() as wire:
        client = wire.connect()
        used = wire.connect().send(REQUEST % b"/")
        used.answer()
        wire.start_drain(5)
        assert used.closed()
        answer = client.send(REQUEST % b"/first").answer()
        assert (answer.body, answer.headers["connection"]) == (b"/first", "close")
