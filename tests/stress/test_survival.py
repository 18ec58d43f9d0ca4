"""The supervisor goes on whatever becomes of standard error, of its descriptors and of its workers."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from resource import RLIMIT_NOFILE, prlimit
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.server.conftest import Serve
    from tests.server.proxy_server import ProxyServer

pytestmark = pytest.mark.server


def replaces_a_killed_worker(server: ProxyServer) -> None:
    """Kill a worker, which the supervisor has to report, and wait for the next one."""
    (before,) = server.worker_pids()
    os.kill(before, signal.SIGKILL)
    server.eventually(lambda: server.worker_pids() not in ([], [before]), within=20, what="a new worker")
    server.wait_ready()
    server.round_trip()


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "<&- 2>&-"])
def test_a_standard_error_that_takes_nothing_harms_nobody(serve: Serve, redirection: str) -> None:
    server = serve(autostart=False)
    server.start(before=f"exec {redirection}")
    replaces_a_killed_worker(server)
    server.hangup()
    server.round_trip()
    assert server.stop() == 0


def test_a_standard_error_that_nobody_reads_any_more_harms_nobody_and_is_counted(serve: Serve) -> None:
    server = serve(autostart=False)
    reading, writing = os.pipe()
    os.close(reading)
    server.start(stderr=writing)
    os.close(writing)
    replaces_a_killed_worker(server)
    assert (server.metric("holdfast_messages_lost_total") or 0) >= 2
    assert server.stop() == 0


def test_without_descriptors_for_a_new_worker_the_supervisor_waits_until_there_are_some(serve: Serve) -> None:
    server = serve(workers=2)
    assert server.process is not None
    supervisor = server.process.pid
    before = server.worker_pids()
    used = len(list(Path(f"/proc/{supervisor}/fd").iterdir()))
    soft, hard = prlimit(supervisor, RLIMIT_NOFILE)
    prlimit(supervisor, RLIMIT_NOFILE, (used - 4, hard))
    os.kill(before[0], signal.SIGKILL)
    server.eventually(lambda: "cannot be started" in server.stderr(), within=20, what="the spawn fails")
    server.round_trip()
    prlimit(supervisor, RLIMIT_NOFILE, (soft, hard))
    server.eventually(lambda: len(server.worker_pids()) == 2, within=20, what="a new worker")
    server.wait_ready()
    assert server.stderr().count("cannot be started") <= 5


def test_a_worker_that_hangs_is_announced_once(serve: Serve) -> None:
    server = serve()
    (before,) = server.worker_pids()
    os.kill(before, signal.SIGSTOP)
    server.eventually(lambda: server.worker_pids() not in ([], [before]), within=25, what="a new worker")
    server.wait_ready()
    assert server.stderr().count("is killed: its event loop hangs") == 1


def test_reload_and_stop_say_a_line_each(serve: Serve) -> None:
    server = serve()
    server.hangup()
    server.eventually(lambda: "SIGHUP: the configuration is unchanged" in server.stderr(), within=10, what="a line")
    assert server.stop() == 0
    assert "holdfast: notice: stopping: running requests have 10 s to end" in server.stderr()
    assert server.stderr().endswith("holdfast: notice: stopped\n")
