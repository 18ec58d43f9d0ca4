"""Clients that are slow, half gone, hostile or very many: bounded memory, and nobody else notices."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from contextlib import ExitStack
from pathlib import Path
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from typing import TYPE_CHECKING

import pytest
from tests.gateway.wire import Client
from tests.server.client import trusting
from tests.server.proxy_server import ProxyServer
from tests.stress.conftest import encrypts, shim_of
from tests.stress.flood import encrypt_request, raw_request
from tests.waiting import PATIENCE

from holdfast.xks.types import Operation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stress.conftest import Serve

pytestmark = pytest.mark.server

IDLE = 10_000
BYTES_PER_IDLE_CONNECTION = 16 * 1024
READ_TIMEOUT = 1
SMUGGLED = b"POST /test/kms/xks/v1/smuggled HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
SMUGGLING = {
    "both length headers": (b"Content-Length: 4\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
    "two lengths": (b"Content-Length: 0\r\nContent-Length: 70", b""),
    "obsolete folding": (b"Content-Length: 0\r\nX: y\r\n Content-Length: 70", b""),
    "a bare LF": (b"X: y\nContent-Length: 70\r\nContent-Length: 0", b""),
    "a space before the colon": (b"Content-Length : 70", b""),
    "a coding that is not quite chunked": (b"Transfer-Encoding: \x0bchunked\r\nContent-Length: 0", b""),
}


def connect(server: ProxyServer) -> Client:
    """A client over plain HTTP."""
    return Client(socket.create_connection(("127.0.0.1", server.port), PATIENCE))


@pytest.fixture(scope="module")
def https(tmp_path_factory: pytest.TempPathFactory, tokens: Path) -> Iterator[ProxyServer]:
    """A server that speaks TLS and does not wait long."""
    with ProxyServer(
        tmp_path_factory.mktemp("https") / "server", tokens, server={"read_timeout_s": READ_TIMEOUT}
    ) as server:
        yield server


def connect_tls(server: ProxyServer) -> Client:
    """A client over TLS."""
    raw = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
    return Client(trusting(server.authority.certificate).wrap_socket(raw, server_hostname="localhost"))


@pytest.mark.parametrize(("headers", "body"), SMUGGLING.values(), ids=SMUGGLING)
def test_a_smuggled_request_is_never_answered_and_the_connection_ends(
    nshield: ProxyServer, headers: bytes, body: bytes
) -> None:
    client = connect(nshield)
    try:
        client.send(b"POST /test/kms/xks/v1/health HTTP/1.1\r\nHost: a\r\n" + headers + b"\r\n\r\n" + body + SMUGGLED)
        assert client.answer().error == (400, "ValidationException")
        assert client.closed()
    finally:
        client.close()
    assert encrypts(nshield)


def test_pipelined_requests_are_answered_in_their_order_however_long_each_takes(nshield: ProxyServer) -> None:
    shim_of(nshield).delay(50, ["C_Encrypt"])
    with nshield.caller() as caller:
        encrypt = encrypt_request(caller)
        metadata = raw_request(caller, Operation.GET_KEY_METADATA)
        health = raw_request(caller, Operation.GET_HEALTH_STATUS)
    client = connect(nshield)
    try:
        client.send(encrypt + health + metadata + encrypt + health)
        bodies = [client.answer().body for _ in range(5)]
    finally:
        client.close()
    expected = [b"ciphertext", b"ekmFleetDetails", b"keySpec", b"ciphertext", b"ekmFleetDetails"]
    assert [word in body for word, body in zip(expected, bodies, strict=True)] == [True] * 5


def test_one_who_sends_byte_by_byte_is_refused_in_time_while_others_are_served(https: ProxyServer) -> None:
    with https.caller() as caller:
        request = raw_request(caller, Operation.GET_HEALTH_STATUS)
        head, body = request.split(b"\r\n\r\n")
        slow = [(connect_tls(https), head), (connect_tls(https), head + b"\r\n\r\n" + body)]
        slow[1][0].send(slow[1][1][: len(head) + 5])
        answers: list[int] = []
        trickling = [
            threading.Thread(target=lambda c=client, r=rest: answers.append(trickle(c, r)))
            for client, rest in ((slow[0][0], head), (slow[1][0], body))
        ]
        for thread in trickling:
            thread.start()
        served = 0
        while any(thread.is_alive() for thread in trickling):
            assert caller.health().status == 200
            served += 1
        for thread in trickling:
            thread.join()
    for client, _ in slow:
        client.close()
    assert answers == [400, 400]
    assert served > 10


def trickle(client: Client, data: bytes) -> int:
    """Send a byte whenever 20 ms have brought no answer; the status that came in the end."""
    client.sock.settimeout(0.02)
    for position in range(min(len(data), 50 * 10)):
        client.send(data[position : position + 1])
        try:
            head = client.sock.recv(1000)
        except (TimeoutError, ssl.SSLWantReadError):
            continue
        return int(head.split(b" ")[1])
    raise AssertionError("never refused")


def test_a_client_that_leaves_in_the_middle_costs_nobody_anything(nshield: ProxyServer) -> None:
    with nshield.caller() as caller:
        request = encrypt_request(caller)
    before = nshield.metric("holdfast_connections")
    assert before is not None
    for end in (1, 40, len(request) // 2, len(request) - 1, len(request)):
        client = connect(nshield).send(request[:end])
        # A reset, as of a machine that went away, and not a polite end.
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
    assert encrypts(nshield)
    nshield.eventually(
        lambda: (nshield.metric("holdfast_connections") or 0) <= before, within=5, what="their places are free"
    )
    nshield.eventually(lambda: nshield.metric("holdfast_requests_in_flight") == 0, within=5, what="none in flight")


def test_a_half_closed_connection_gets_its_answer_and_ends(nshield: ProxyServer) -> None:
    with nshield.caller() as caller:
        client = connect(nshield).send(encrypt_request(caller))
    client.sock.shutdown(socket.SHUT_WR)
    assert client.answer().status == 200
    assert client.closed()
    client.close()


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many open files as the test and, by inheritance, the server need."""
    soft, hard = getrlimit(RLIMIT_NOFILE)
    needed = IDLE + 1000
    if hard < needed:
        pytest.skip(f"this machine lets a process open {hard} files, and {needed} are needed")
    setrlimit(RLIMIT_NOFILE, (max(soft, needed), hard))
    yield
    setrlimit(RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_ten_thousand_idle_connections_take_little_memory_and_harm_nobody(serve: Serve) -> None:
    server = serve(tls=False, server={"max_unauthenticated_per_source": 2 * IDLE})
    server.round_trip()
    (worker,) = server.worker_pids()
    before = resident(worker)
    with ExitStack() as stack, server.caller() as caller:
        caller.health()
        for _ in range(IDLE):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), PATIENCE))
        server.eventually(
            lambda: (server.metric("holdfast_connections") or 0) >= IDLE, within=20, what="all are accepted"
        )
        assert resident(worker) - before < IDLE * BYTES_PER_IDLE_CONNECTION
        assert {caller.encrypt(b"unharmed").status for _ in range(20)} == {200}
        server.round_trip()
    server.eventually(lambda: (server.metric("holdfast_connections") or 0) < 10, within=20, what="all have ended")


def test_idle_tls_connections_take_little_memory(https: ProxyServer) -> None:
    server = https
    server.round_trip()
    (worker,) = server.worker_pids()
    before = resident(worker)
    count = 300
    with ExitStack() as stack:
        for _ in range(count):
            stack.callback(connect_tls(server).close)
        # Session tickets, buffers and OpenSSL's state: some 60 KB at the time of writing.
        assert resident(worker) - before < count * 128 * 1024
        server.round_trip()


def test_beyond_max_connections_the_longest_idle_makes_room(serve: Serve) -> None:
    server = serve(tls=False, server={"max_connections": 20})
    with ExitStack() as stack:
        idle = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), PATIENCE)) for _ in range(60)
        ]
        with server.caller() as caller:
            assert caller.health().status == 200
        assert idle[0].recv(1) == b""
        server.eventually(
            lambda: 0 < (server.metric("holdfast_connections") or 0) <= 20, within=5, what="a bounded number"
        )
        server.round_trip()


def resident(pid: int) -> int:
    """VmRSS in bytes."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return 1024 * int(found[1])
