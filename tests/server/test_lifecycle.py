"""Start, drain, killed workers, new configurations."""

from __future__ import annotations

import os
import signal
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from tests.ports import free_ports
from tests.server.proxy_server import HSM, NotReady, ProxyServer
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.server.conftest import Serve

pytestmark = pytest.mark.server


def test_sigterm_answers_what_is_in_flight_and_ends_with_zero(serve: Serve) -> None:
    server = serve("plain")
    assert server.shim is not None
    shim = server.shim
    shim.delay(120, ["C_Encrypt"])
    with server.caller() as caller:
        replies: list[int] = []
        thread = threading.Thread(target=lambda: replies.append(caller.encrypt(b"in flight").status))
        thread.start()
        server.eventually(lambda: shim.inside > 0, within=5, what="a call in the HSM")
        code = server.stop()
        thread.join()
    assert (replies, code) == ([200], 0)


def test_sigterm_ends_idle_connections_at_once_and_sessions_properly(serve: Serve) -> None:
    server = serve("plain")
    assert server.shim is not None
    with server.caller() as caller:
        caller.encrypt(b"then idle")
        server.stop()
    assert server.shim.calls()["C_Finalize"] == 1
    assert server.shim.finalized_while_inside == 0


def test_a_request_that_never_ends_does_not_keep_the_server(serve: Serve) -> None:
    server = serve(tls=False, server={"drain_timeout_s": 0.5})
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as half:
        half.sendall(b"POST /test/kms/xks/v1/health HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")
        assert server.stop() == 0


def test_a_killed_worker_is_replaced_while_the_other_serves(serve: Serve) -> None:
    server = serve(workers=2)
    server.eventually(lambda: server.metric("holdfast_workers_ready") == 2, within=10, what="two workers")
    before = set(server.worker_pids())
    os.kill(min(before), signal.SIGKILL)
    server.round_trip()
    server.eventually(
        lambda: len(set(server.worker_pids()) - before) == 1 and server.metric("holdfast_workers_ready") == 2,
        within=10,
        what="a new worker",
    )
    server.eventually(
        lambda: (server.metric("holdfast_workers_replaced_total") or 0) >= 1, within=5, what="it is counted"
    )
    assert "was killed by SIGKILL; it is replaced" in server.stderr()
    server.round_trip()


def test_a_worker_whose_event_loop_hangs_is_replaced(serve: Serve) -> None:
    server = serve()
    (before,) = server.worker_pids()
    os.kill(before, signal.SIGSTOP)
    server.eventually(lambda: server.worker_pids() not in ([], [before]), within=20, what="a new worker")
    server.wait_ready()
    server.round_trip()


def test_workers_end_when_their_supervisor_is_killed(serve: Serve) -> None:
    server = serve(workers=2)
    pids = server.worker_pids()
    assert server.process is not None
    server.process.kill()
    server.process.wait()
    server.process = None
    server.eventually(lambda: not any(_alive(pid) for pid in pids), within=5, what="the workers end")


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 (procfs)
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_an_hsm_that_is_unfit_ends_the_start_with_its_reason(tmp_path: Path, tokens: Path) -> None:
    with (
        pytest.raises(NotReady, match=r"(?s)ended with 7.*holdfast: error:") as caught,
        ProxyServer(tmp_path / "server", tokens, workers=2, hsm={"health_key": "not-there"}),
    ):
        pass
    assert "not-there" in str(caught.value)


def test_a_port_in_use_ends_the_start_with_the_remedy(tmp_path: Path, tokens: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = {"listen": f"127.0.0.1:{taken.getsockname()[1]}"}
        with (
            pytest.raises(NotReady, match=r"(?s)ended with 4.*the address is in use"),
            ProxyServer(tmp_path / "server", tokens, server=listen),
        ):
            pass


def test_a_bad_configuration_changes_nothing_and_says_where_it_is_wrong(serve: Serve) -> None:
    server = serve()
    pids = server.worker_pids()
    text = server.config.read_text()
    server.write_config(text.replace("workers = 1", "wrokers = 1"))
    line = text[: text.index("workers = 1")].count("\n") + 1
    server.hangup()
    server.eventually(lambda: "not applied" in server.stderr(), within=5, what="a refusal")
    assert f"holdfast.toml:{line}: unknown key `wrokers`" in server.stderr()
    assert server.worker_pids() == pids
    # The line is written before the count.
    server.eventually(
        lambda: server.metric("holdfast_configuration_reloads_total", result="refused") == 1,
        within=5,
        what="the refusal is counted",
    )
    server.round_trip()


def test_a_configuration_that_no_worker_can_serve_changes_nothing(serve: Serve) -> None:
    server = serve(workers=2)
    server.eventually(lambda: server.metric("holdfast_workers_ready") == 2, within=10, what="two workers")
    pids = server.worker_pids()
    server.settings["hsm"]["main"]["health_key"] = "not-there"
    server.write_config()
    server.hangup()
    server.eventually(lambda: "not applied" in server.stderr(), within=10, what="a refusal")
    assert server.worker_pids() == pids
    server.round_trip()


def test_metrics_stay_where_they_are_when_a_configuration_is_refused(serve: Serve) -> None:
    """For a port that is taken, and for a configuration that no worker can serve."""
    server = serve()
    (elsewhere,) = free_ports(1)

    def is_scraped() -> bool:
        try:
            return server.metric("holdfast_workers_wanted") == 1
        except OSError:
            return False

    with socket.create_server(("127.0.0.1", 0)) as taken:
        for port, hsm in ((taken.getsockname()[1], {}), (elsewhere, {"health_key": "missing"})):
            settings = dict(server.settings["hsm"][HSM])
            server.settings["hsm"][HSM] |= hsm
            server.settings["server"]["metrics_listen"] = f"127.0.0.1:{port}"
            server.write_config()
            refused = server.stderr().count("not applied") + 1
            server.hangup()
            server.eventually(
                lambda: server.stderr().count("not applied") == refused,  # noqa: B023 (called at once)
                within=15,
                what="a refusal",
            )
            server.settings["hsm"][HSM] = settings
            server.eventually(is_scraped, within=5, what="/metrics on the old port")
    server.round_trip()


def test_a_changed_file_is_applied_without_a_signal_and_the_port_never_closes(serve: Serve) -> None:
    server = serve(workers=2)
    server.eventually(lambda: server.metric("holdfast_workers_ready") == 2, within=10, what="two workers")
    before = set(server.worker_pids())
    server.settings["server"]["max_body_bytes"] = 40_000
    server.write_config()
    calls = 0
    while "is applied" not in server.stderr():
        server.round_trip()
        calls += 1
    assert calls > 2
    server.eventually(lambda: not before & set(server.worker_pids()), within=10, what="only new workers")
    with server.caller() as caller:
        assert caller.request("POST", "/test/kms/xks/v1/health", body=b"x" * 40_001).status == 501
        assert caller.request("POST", "/test/kms/xks/v1/health", body=b"x" * 40_000).status == 401


def test_listening_moves_to_another_port(serve: Serve) -> None:
    server = serve()
    old = server.port
    (server.port,) = free_ports(1)
    server.settings["server"]["listen"] = f"127.0.0.1:{server.port}"
    server.write_config()
    server.hangup()
    server.eventually(lambda: "is applied" in server.stderr(), within=10, what="the new configuration")
    server.url = f"https://localhost:{server.port}"
    server.round_trip()
    server.eventually(lambda: not _listens(old), within=5, what="the old port is closed")


def test_a_certificate_that_vanishes_while_a_configuration_is_applied_stops_nothing(serve: Serve) -> None:
    """Between the check of the new configuration and its last worker's start, somebody replaces the file."""
    server = serve("plain")
    assert server.shim is not None
    shim = server.shim
    shim.delay(50, ("C_OpenSession",))
    server.settings["server"]["max_body_bytes"] = 40_000
    server.write_config()
    server.hangup()
    server.eventually(lambda: shim.calls()["C_Initialize"] == 2, within=10, what="a worker past its TLS files")
    server.certificate.certificate.unlink()
    server.eventually(lambda: "is applied" in server.stderr(), within=10, what="the new configuration")
    server.round_trip()
    assert server.stop() == 0


def test_a_worker_killed_by_a_signal_without_a_name_is_replaced(serve: Serve) -> None:
    server = serve()
    # /ready is the worker's own word; the supervisor may not have heard it yet, and ends if its first worker dies.
    server.eventually(lambda: server.metric("holdfast_workers_ready") == 1, within=10, what="a worker")
    (pid,) = server.worker_pids()
    os.kill(pid, signal.SIGRTMIN + 1)
    server.eventually(lambda: server.worker_pids() not in ([], [pid]), within=10, what="another worker")
    assert f"was killed by signal {signal.SIGRTMIN + 1}" in server.stderr()


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def test_more_and_fewer_workers(serve: Serve) -> None:
    server = serve()
    for count in (2, 1):
        server.settings["server"]["workers"] = count
        server.write_config()
        server.hangup()
        server.eventually(lambda: len(server.worker_pids()) == count, within=15, what=f"{count} workers")  # noqa: B023
    server.round_trip()


def test_sighup_lets_the_hsm_show_new_keys(serve: Serve) -> None:
    server = serve("plain")
    assert server.shim is not None
    shim = server.shim
    server.hangup()
    server.eventually(lambda: shim.calls()["C_Initialize"] == 2, within=5, what="C_Initialize")
    server.round_trip()
