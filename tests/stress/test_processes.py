"""Workers that are killed, servers that are told to end, catalogs that change."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from tests.stress.conftest import shim_of
from tests.stress.load import callers_of_every_worker
from tests.waiting import PATIENCE

from holdfast.xks.types import Operation

if TYPE_CHECKING:
    from tests.server.client import Caller
    from tests.server.proxy_server import ProxyServer
    from tests.stress.conftest import Serve

pytestmark = pytest.mark.server

INVALID_STATE = "InvalidStateException"


def two_workers(serve: Serve) -> ProxyServer:
    """A server whose workers are both ready."""
    server = serve(workers=2, tls=False)
    server.eventually(lambda: server.metric("holdfast_workers_ready") == 2, within=15, what="two workers")
    return server


def test_new_connections_are_served_all_the_while_a_killed_worker_is_replaced(serve: Serve) -> None:
    server = two_workers(serve)
    before = set(server.worker_pids())
    os.kill(max(before), signal.SIGKILL)
    calls = 0

    def both_again() -> bool:
        nonlocal calls
        calls += 1
        # Every turn a connection of its own: a dead worker's queue would swallow some of them.
        assert server.call(Operation.GET_HEALTH_STATUS).status == 200
        return len(set(server.worker_pids()) - before) == 1 and server.metric("holdfast_workers_ready") == 2

    server.eventually(both_again, within=20, what="a new worker")
    assert calls > 3
    server.round_trip()


def test_a_second_sigterm_ends_a_server_that_drains_a_hung_hsm(serve: Serve) -> None:
    server = serve("plain", tls=False, server={"drain_timeout_s": 60})
    shim_of(server).hang()
    with server.caller() as caller:
        assert caller.encrypt(b"hangs").status == 503
    assert server.process is not None
    server.process.send_signal(signal.SIGTERM)
    server.eventually(lambda: not server.is_ready(), within=5, what="the server drains")
    server.process.send_signal(signal.SIGTERM)
    assert server.wait_end(within=2) == 0


def holdfast(server: ProxyServer, *arguments: str) -> None:
    """The operator's command, in a process of its own."""
    subprocess.run(
        [sys.executable, "-m", "holdfast", *arguments, "--config", str(server.config), "--yes"],
        check=True,
        timeout=PATIENCE,
        capture_output=True,
    )


def test_what_the_command_disables_or_blocks_stops_in_every_worker_within_a_second_until_it_is_taken_back(
    serve: Serve,
) -> None:
    server = two_workers(serve)
    with ExitStack() as stack:
        callers = callers_of_every_worker(server, stack)
        sealed = callers[0].encrypt(b"before")

        def disabled(caller: Caller) -> bool:
            errors = {caller.encrypt(b"").error, caller.decrypt(sealed).error}
            return errors == {INVALID_STATE} and caller.metadata().json["keyStatus"] == "DISABLED"

        def blocked(caller: Caller) -> bool:
            return {caller.encrypt(b"").error, caller.decrypt(sealed).error} == {INVALID_STATE}

        def enabled(caller: Caller) -> bool:
            statuses = {caller.encrypt(b"").status, caller.decrypt(sealed).status}
            return statuses == {200} and caller.metadata().json["keyStatus"] == "ENABLED"

        holdfast(server, "key", "disable", "test", "key-1")
        server.eventually(lambda: all(map(disabled, callers)), within=1, what="disabled everywhere")
        assert callers[0].encrypt(b"", key="key-2").status == 200
        holdfast(server, "key", "enable", "test", "key-1")
        server.eventually(lambda: all(map(enabled, callers)), within=1, what="enabled everywhere")
        holdfast(server, "keystore", "block", "test")
        server.eventually(lambda: all(map(blocked, callers)), within=1, what="blocked everywhere")
        holdfast(server, "keystore", "unblock", "test")
        server.eventually(lambda: all(map(enabled, callers)), within=1, what="served everywhere")
