"""An event log that cannot be written, below a running server."""

from __future__ import annotations

import uuid
from resource import RLIM_INFINITY, RLIMIT_FSIZE, prlimit
from typing import TYPE_CHECKING

import pytest

from holdfast.xks.encoding import decode_json_object
from holdfast.xks.types import Operation

if TYPE_CHECKING:
    from pathlib import Path

    from tests.server.conftest import Serve
    from tests.server.proxy_server import ProxyServer

pytestmark = pytest.mark.server

FILLER = b'{"filler":"' + b"x" * 1000 + b'"}\n'


def nearly_full(server: ProxyServer) -> None:
    """Let the event log grow by 300 bytes more, less than a line of an Encrypt. Other files are smaller."""
    (worker,) = server.worker_pids()
    limit = server.events_file.stat().st_size + 300
    prlimit(worker, RLIMIT_FSIZE, (limit, RLIM_INFINITY))


def roomy(server: ProxyServer) -> None:
    (worker,) = server.worker_pids()
    prlimit(worker, RLIMIT_FSIZE, (RLIM_INFINITY, RLIM_INFINITY))


def start(serve: Serve, *, required: bool) -> ProxyServer:
    server = serve(autostart=False, log={"required": required})
    server.events_file.write_bytes(FILLER * 5000)
    server.start()
    return server


def lines_of(server: ProxyServer, marker: str) -> list[int]:
    """The statuses of the lines of one KMS request. Every line of the file must be whole."""
    data = server.events_file.read_bytes()
    assert data.endswith(b"\n")
    lines = [decode_json_object(line) for line in data.splitlines()[5000:]]
    return [line["status"] for line in lines if line.get("kmsRequestId") == marker]


def test_a_full_disk_costs_no_request_and_no_line_and_is_reported(serve: Serve) -> None:
    server = start(serve, required=False)
    nearly_full(server)
    markers = [str(uuid.uuid4()) for _ in range(20)]
    with server.caller() as caller:
        for marker in markers:
            reply = caller.call(Operation.GET_KEY_METADATA, metadata={"kmsRequestId": marker})
            assert reply.status == 200
    server.eventually(lambda: server.metric("holdfast_event_log_failing") == 1, within=10, what="the metric shows it")
    assert server.is_ready()
    assert "the event log cannot be written: File too large" in server.stderr()
    assert all(lines_of(server, marker) in ([], [200]) for marker in markers)
    roomy(server)
    server.eventually(
        lambda: all(lines_of(server, marker) == [200] for marker in markers), within=10, what="every line is written"
    )
    assert server.metric("holdfast_event_lines_lost_total") == 0


def test_where_a_record_is_required_there_is_no_answer_without_one(serve: Serve) -> None:
    server = start(serve, required=True)
    with server.caller(patient=False) as caller:
        before = str(uuid.uuid4())
        assert caller.call(Operation.GET_KEY_METADATA, metadata={"kmsRequestId": before}).status == 200
        assert lines_of(server, before) == [200], "the line is there when the answer is"
        nearly_full(server)
        markers = [str(uuid.uuid4()) for _ in range(5)]
        for marker in markers:
            reply = caller.call(Operation.GET_KEY_METADATA, metadata={"kmsRequestId": marker})
            assert (reply.status, reply.error) == (503, "DependencyTimeoutException")
            assert lines_of(server, marker) == []
        assert caller.health().status == 200
        with server.caller(health_port=True) as balancer:
            answer = balancer.request("GET", "/ready")
        assert answer.json == {"ready": False, "reasons": ["the event log cannot be written: File too large"]}
        roomy(server)
        server.eventually(server.is_ready, within=10, what="it recovers by itself")
        assert caller.encrypt(b"again").status == 200
        server.eventually(lambda: lines_of(server, markers[0]) == [503], within=10, what="the refusal is on record")


def test_strangers_cannot_fill_the_log(serve: Serve) -> None:
    server = serve()
    with server.caller() as caller:
        for _ in range(400):
            assert caller.request("POST", "/test/kms/xks/v1/health").status == 401
        assert caller.health().status == 200
    server.eventually(lambda: any("leftOut" in line for line in server.events()), within=10, what="a summary")
    refused = [line for line in server.events() if line.get("errorName") == "AuthenticationFailedException"]
    assert len(refused) < 400
    server.eventually(
        lambda: (server.metric("holdfast_event_refusals_left_out_total") or 0) + len(refused) >= 400,
        within=10,
        what="every refusal has a line or is counted",
    )


def test_a_folder_that_is_missing_ends_the_start_and_names_the_key(tmp_path: Path, tokens: Path) -> None:
    from tests.server.proxy_server import NotReady, ProxyServer  # noqa: PLC0415 (of this test alone)

    log = {"events": str(tmp_path / "missing" / "events.jsonl")}
    with pytest.raises(NotReady) as caught, ProxyServer(tmp_path / "server", tokens, log=log):
        pass
    assert "ended with 4" in str(caught.value)
    assert "`events` in [log]" in str(caught.value)
