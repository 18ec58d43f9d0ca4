"""What strangers can take, in number, is not what the service lives on.

Outcomes are counted, not timed: on established connections no request may fail while strangers do what they can.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.server.proxy_server import NotReady, ProxyServer
from tests.stress.test_connections import many_files
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from tests.server.client import Caller, Reply
    from tests.server.conftest import Serve

__all__ = ["many_files"]

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("many_files")]

STRANGERS = 2_300
STORM = 10_000
STORM_OPEN = 1_500
ESTABLISHED = 8


def limited(serve: Serve, descriptors: int, **options: Any) -> ProxyServer:
    """A server with two workers that may open so many files."""
    server = serve(autostart=False, workers=2, **options)
    server.start(before=f"ulimit -n {descriptors}")
    return server


SLOW = {(503, "DependencyTimeoutException"), (429, "ThrottlingException")}
"""What a machine that is busy with other things may make of a request; KMS tries these again."""


def judge(replies: list[Reply]) -> None:
    """Every request was answered, none with a name that blames the data, the key or the caller."""
    answers = Counter((reply.status, reply.error) for reply in replies)
    assert set(answers) <= {(200, ""), *SLOW}, answers
    assert answers[200, ""] > len(replies) / 2, answers


def storm(port: int, count: int, addresses: int = 1) -> None:
    """So many connects as fast as they go, each left open for a moment and then dropped."""
    kept: deque[socket.socket] = deque()
    for number in range(count):
        sock = socket.socket()
        sock.setblocking(False)
        if addresses > 1:
            sock.bind((f"127.1.{number % addresses // 250}.{number % 250 + 1}", 0))
        sock.connect_ex(("127.0.0.1", port))
        kept.append(sock)
        if len(kept) > STORM_OPEN:
            kept.popleft().close()
    for sock in kept:
        sock.close()


def silent(port: int, count: int, stack: ExitStack) -> None:
    """So many connections that say nothing."""
    for _ in range(count):
        sock = stack.enter_context(socket.socket())
        sock.settimeout(PATIENCE)
        sock.connect(("127.0.0.1", port))


def established(server: ProxyServer, stack: ExitStack) -> list[Caller]:
    """Connections that have signed a request."""
    callers = [stack.enter_context(server.caller()) for _ in range(ESTABLISHED)]
    assert {caller.encrypt(b"first").status for caller in callers} == {200}
    return callers


def ended(server: ProxyServer, state: str) -> float:
    return server.metric("holdfast_connections_ended_total", state=state) or 0


@pytest.mark.parametrize("descriptors", [1024, 300])
@pytest.mark.parametrize("tls", [True, False], ids=["https", "http"])
def test_silent_connections_cost_the_established_ones_no_request(serve: Serve, descriptors: int, tls: bool) -> None:  # noqa: FBT001
    server = limited(serve, descriptors, tls=tls)
    with ExitStack() as stack:
        callers = established(server, stack)
        ports = [caller.local_port for caller in callers]
        with ThreadPoolExecutor(1) as attacker:
            attack = attacker.submit(silent, server.port, STRANGERS, stack)
            replies: list[Reply] = []
            while not attack.done():
                replies += [caller.encrypt(b"under attack") for caller in callers]
            attack.result()
        judge(replies + [caller.encrypt(b"afterwards") for caller in callers])
        assert [caller.local_port for caller in callers] == ports, "no connection was made again"
        server.round_trip()
        assert ended(server, "authenticated") == 0
    assert "max_connections is lowered from 12000" in server.stderr()


@pytest.mark.parametrize("descriptors", [1024, 300])
def test_a_storm_of_connects_costs_the_established_ones_no_request(serve: Serve, descriptors: int) -> None:
    server = limited(serve, descriptors)
    with ExitStack() as stack:
        callers = established(server, stack)
        ports = [caller.local_port for caller in callers]
        sealed = callers[0].encrypt(b"sealed before")
        with ThreadPoolExecutor(1) as attacker:
            attack = attacker.submit(storm, server.port, STORM)
            replies: list[Reply] = []
            while not attack.done():
                replies += [caller.decrypt(sealed) for caller in callers]
            attack.result()
        judge(replies + [caller.decrypt(sealed) for caller in callers])
        assert [caller.local_port for caller in callers] == ports, "no connection was made again"
    server.round_trip()
    assert ended(server, "authenticated") == 0


@pytest.mark.parametrize("descriptors", [1024, 300])
def test_new_connections_get_through_a_storm_from_many_addresses(serve: Serve, descriptors: int) -> None:
    server = limited(serve, descriptors)
    answers: Counter[str] = Counter()
    over = threading.Event()

    def attack() -> None:
        while not over.is_set():
            storm(server.port, STORM // 5, addresses=STORM)

    with ThreadPoolExecutor(1) as attacker:
        attacking = attacker.submit(attack)
        for _ in range(10):
            try:
                with server.caller() as caller:
                    answers[caller.encrypt(b"new").error] += 1
            except OSError:
                answers["no connection"] += 1
        over.set()
        attacking.result()
    assert set(answers) <= {"", "no connection", *(name for _, name in SLOW)}, answers
    assert answers[""] > answers.total() / 2, answers


def test_a_limit_that_leaves_no_room_ends_the_start_with_what_is_needed(tmp_path: Path, tokens: Path) -> None:
    with ProxyServer(tmp_path / "server", tokens, autostart=False) as server, pytest.raises(NotReady) as caught:
        server.start(before="ulimit -n 100")
    assert "ended with 4" in str(caught.value)
    assert "a process may open 100 files here (RLIMIT_NOFILE), too few to serve" in str(caught.value)


def test_the_soft_limit_is_raised_to_what_the_configuration_needs(serve: Serve) -> None:
    server = serve(autostart=False, server={"max_connections": 2000})
    server.start(before="ulimit -Sn 512")
    server.eventually(lambda: server.metric("holdfast_connection_places") == 2000, within=10, what="2,000 places")
    assert "lowered" not in server.stderr()


def test_handshakes_that_are_not_finished_end_and_are_counted(serve: Serve) -> None:
    server = serve()
    with ExitStack() as stack:
        silent(server.port, 5, stack)
        server.eventually(
            lambda: server.metric("holdfast_handshakes_failed_total", reason="expired") == 5,
            within=10,
            what="they expire",
        )
        assert server.metric("holdfast_handshakes_pending") == 0


def test_a_handshake_that_fails_is_counted_by_its_reason_and_writes_no_line(serve: Serve) -> None:
    server = serve()
    before = server.stderr()
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as sock:
        sock.sendall(b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n")
        server.eventually(
            lambda: server.metric("holdfast_handshakes_failed_total", reason="http_request") == 1,
            within=10,
            what="the failure is counted",
        )
    assert re.findall(r"(?i).*(?:handshake|tls|ssl).*", server.stderr().removeprefix(before)) == []


def test_other_networks_are_refused_before_tls(serve: Serve) -> None:
    server = serve(server={"allow_networks": ["10.0.0.0/8", "2001:db8::/32"]})
    # The reset may come before `connect` returns.
    with pytest.raises(ConnectionResetError), socket.create_connection(("127.0.0.1", server.port), PATIENCE) as sock:
        sock.recv(1)
    server.eventually(
        lambda: server.metric("holdfast_connections_refused_total", reason="network") == 1,
        within=10,
        what="the refusal is counted",
    )


def test_silent_metrics_connections_cost_nobody_anything(serve: Serve) -> None:
    server = limited(serve, 300)
    assert server.process is not None
    supervisor = Path(f"/proc/{server.process.pid}")
    with ExitStack() as stack:
        callers = established(server, stack)
        silent(server.metrics_port, 1_500, stack)
        judge([caller.encrypt(b"under attack") for caller in callers])
        assert server.metric("holdfast_build_info") == 1
        assert len(list((supervisor / "task").iterdir())) < 20
        assert len(list((supervisor / "fd").iterdir())) < 100
        os.kill(server.worker_pids()[0], signal.SIGKILL)
        server.eventually(
            lambda: server.metric("holdfast_workers_replaced_total") == 1 and len(server.worker_pids()) == 2,
            within=20,
            what="a new worker",
        )
        server.wait_ready()
        server.round_trip()


def test_half_requests_do_not_keep_the_load_balancer_from_the_health_port(serve: Serve) -> None:
    server = serve()
    with ExitStack() as stack:
        for number in range(300):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.health_port), PATIENCE))
            sock.sendall(b"G")
            if number % 20 == 0:
                assert server.is_ready()
        assert server.is_ready()
