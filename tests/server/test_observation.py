"""What the operator sees of the running server: events, metrics, /ping, /ready."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from tests.gateway.wire import Client
from tests.server.client import METADATA, trusting
from tests.server.proxy_server import ACCESS_KEY_ID, SECRET_ACCESS_KEY, ProxyServer
from tests.server.token import KEYS, PIN
from tests.waiting import PATIENCE

from holdfast.xks.types import Operation

if TYPE_CHECKING:
    from pathlib import Path

    from tests.server.certificates import Pair
    from tests.server.conftest import Serve

pytestmark = pytest.mark.server

MARKER = b"this plaintext must never be logged"


def test_one_event_per_request_with_what_the_request_was(serve: Serve) -> None:
    server = serve()
    with server.caller() as caller:
        sealed = caller.encrypt(MARKER, MARKER)
        caller.decrypt(sealed, MARKER)
        caller.decrypt(sealed, b"another AAD")
    encrypt, decrypt, failed = server.wait_for_events(3)
    assert encrypt["operation"] == "Encrypt"
    assert (encrypt["decision"], encrypt["status"], encrypt["generation"]) == ("allow", 200, 1)
    assert encrypt["kmsRequestId"] == METADATA["kmsRequestId"]
    assert encrypt["accessKeyId"] == ACCESS_KEY_ID.value
    assert encrypt["client"] == "127.0.0.1"
    assert 0 < encrypt["milliseconds"]["hsm"] < encrypt["milliseconds"]["total"] < 1000
    assert decrypt["operation"] == "Decrypt"
    assert (failed["errorName"], failed["function"]) == ("InvalidCiphertextException", "C_Decrypt")


def test_no_secret_is_ever_logged(serve: Serve) -> None:
    server = serve()
    with server.caller() as caller:
        caller.decrypt(caller.encrypt(MARKER), None)
        signed = caller.signed(caller.path(Operation.ENCRYPT), MARKER)
        caller.request("POST", caller.path(Operation.ENCRYPT), body=MARKER, headers=signed)
        caller.request("POST", caller.path(Operation.ENCRYPT), body=MARKER + b"!", headers=signed)
    server.wait_for_events(4)
    server.stop()
    told = server.events_file.read_bytes() + server.stderr().encode() + (server.directory / "stdout").read_bytes()
    signature = signed["Authorization"].rpartition("=")[2].encode()
    for secret in (MARKER, SECRET_ACCESS_KEY.reveal(), signature, f'"{PIN}"'.encode()):
        assert secret not in told


def test_refusals_before_the_pipeline_are_events_too(serve: Serve) -> None:
    server = serve()
    with server.caller() as caller:
        caller.request("POST", caller.path(Operation.ENCRYPT), body=b"x" * 100_000)
    (event,) = server.wait_for_events(1)
    assert (event["operation"], event["errorName"]) == ("Encrypt", "UnsupportedOperationException")


def test_sighup_reopens_the_event_log(serve: Serve) -> None:
    server = serve()
    server.call(Operation.GET_HEALTH_STATUS)
    server.wait_for_events(1)
    rotated = server.events_file.rename(server.directory / "rotated")
    server.hangup()
    server.eventually(server.events_file.exists, within=5, what="a new log file")
    server.call(Operation.GET_HEALTH_STATUS)
    server.wait_for_events(1)
    assert len(rotated.read_bytes().splitlines()) == 1


def test_events_go_to_standard_output_by_default(serve: Serve) -> None:
    server = serve(events=False)
    server.call(Operation.GET_HEALTH_STATUS)
    server.stop()
    assert b'"operation":"GetHealthStatus"' in (server.directory / "stdout").read_bytes()


def test_a_reader_of_standard_output_that_goes_away_stops_nothing_and_the_loss_is_counted(serve: Serve) -> None:
    server = serve(events=False)
    server.stop()
    reader = subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.PIPE)
    assert reader.stdin is not None
    server.start(stdout=reader.stdin)
    reader.wait(PATIENCE)
    reader.stdin.close()
    server.round_trip()
    server.eventually(
        lambda: server.metric("holdfast_event_lines_lost_total") == 2, within=5, what="two lines are counted as lost"
    )


def test_a_reader_of_standard_output_that_does_not_read_delays_nobody(serve: Serve) -> None:
    server = serve(events=False)
    server.stop()
    reader = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert reader.stdin is not None
    try:
        server.start(stdout=reader.stdin)
        with server.caller() as caller:
            # About 1 KB a line: a pipe holds 64 KB.
            assert all(caller.health().status == 200 for _ in range(200))
    finally:
        reader.kill()
        reader.wait()
        reader.stdin.close()


def test_metrics_tell_requests_times_and_the_hsm(serve: Serve) -> None:
    server = serve(workers=2)
    with server.caller() as caller:
        sealed = caller.encrypt(b"counted")
        caller.decrypt(sealed, b"wrong")
    where = {"keystore": "test", "operation": "Decrypt"}
    server.eventually(
        lambda: server.metric("holdfast_requests_total", error_name="InvalidCiphertextException", **where) == 1,
        within=5,
        what="a failed Decrypt",
    )
    assert server.metric("holdfast_request_seconds_bucket", le="0.25", stage="hsm", **where) == 1
    server.eventually(lambda: server.metric("holdfast_workers_ready") == 2, within=10, what="two workers")
    assert server.metric("holdfast_key_encryptions", external_key_id="key-1", generation="1")
    assert server.metric("holdfast_hsm_workers", hsm="main", status="ACTIVE")
    assert server.metric("holdfast_credential_last_use_timestamp_seconds", access_key_id=ACCESS_KEY_ID.value)
    assert 29 < (server.metric("holdfast_certificate_days_left") or 0) < 30


def test_metrics_tell_what_the_catalog_has_and_which_nodes_there_are(serve: Serve) -> None:
    server = serve(workers=2)
    server.eventually(
        lambda: server.metric("holdfast_keys", keystore="test", status="ENABLED") == len(KEYS),
        within=60,
        what="a look at the catalog",
    )
    assert server.metric("holdfast_keystore_blocked", keystore="test") == 0
    assert server.metric("holdfast_key_generations", keystore="test", state="active") == len(KEYS)
    assert server.metric("holdfast_approvals_open") == 0
    server.eventually(
        lambda: (server.metric("holdfast_node_lease_end_timestamp_seconds") or 0) > time.time(),  # noqa: TID251 (Unix time)
        within=60,
        what="this node's lease",
    )


@pytest.mark.parametrize("health_port", [False, True])
def test_ping_and_ready_are_answered_on_both_ports(shared: ProxyServer, health_port: bool) -> None:  # noqa: FBT001
    with shared.caller(health_port=health_port) as caller:
        assert caller.request("GET", "/ping").json == {"ping": "pong"}
        reasons: dict[str, object] = {"reasons": []} if health_port else {}
        assert caller.request("GET", "/ready").json == {"ready": True, **reasons}
        assert caller.request("HEAD", "/ready").status == 200
        refused = caller.request("POST", "/ping")
        assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")


def test_ready_on_the_public_port_says_nothing_but_no(serve: Serve) -> None:
    server = serve("plain", hsm={"probe_interval_s": 1})
    assert server.shim is not None
    server.shim.device_lost()
    server.eventually(lambda: not server.is_ready(), within=5, what="/ready says 503")
    with server.caller() as caller:
        answer = caller.request("GET", "/ready")
    assert (answer.status, answer.json) == (503, {"ready": False})


def test_the_metrics_port_serves_metrics_and_nothing_else(shared: ProxyServer) -> None:
    with socket.create_connection(("127.0.0.1", shared.metrics_port), PATIENCE) as sock:
        client = Client(sock)
        for method, target, status in (
            (b"GET", b"/metrics", 200),
            (b"GET", b"/metrics?name=x", 200),
            (b"GET", b"/", 404),
            (b"GET", b"/metricsx", 404),
            (b"POST", b"/metrics", 405),
        ):
            client.send(method + b" " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
            answer = client.answer()
            assert (answer.status, b"holdfast_" in answer.body) == (status, status == 200)


def test_metrics_and_health_can_demand_a_client_certificate(tmp_path: Path, tokens: Path) -> None:
    with ProxyServer(tmp_path / "server", tokens, wait=False, autostart=False) as server:
        pair = {
            "certificate": str(server.certificate.certificate),
            "private_key": str(server.certificate.private_key),
            "client_ca": str(server.client_authority.certificate),
            "client_subject": "prometheus",
        }
        server.settings["metrics_tls"] = pair
        server.settings["health_tls"] = pair
        server.write_config()
        server.start()
        server.eventually(lambda: "serving" in server.stderr(), within=20, what="it serves")
        known = server.client_certificate("prometheus", file="prometheus")
        other = server.client_certificate("somebody", file="somebody")
        for port, target in ((server.metrics_port, b"/metrics"), (server.health_port, b"/ready")):
            assert ask(server, port, target, known).startswith(b"HTTP/1.1 200 ")
            assert ask(server, port, target, other) == b""
            assert ask(server, port, target, None) == b""


def ask(server: ProxyServer, port: int, target: bytes, client: Pair | None) -> bytes:
    """The start of the answer; nothing where the handshake or the connection ends."""
    context = trusting(
        server.authority.certificate, client=None if client is None else (client.certificate, client.private_key)
    )
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as raw:
        try:
            with context.wrap_socket(raw, server_hostname="localhost") as tls:
                tls.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                return tls.recv(100)
        except OSError:
            return b""


def test_the_health_port_serves_nothing_else(shared: ProxyServer) -> None:
    with shared.caller(health_port=True) as caller:
        assert caller.request("POST", "/test/kms/xks/v1/health").error == "InvalidUriPathException"


def test_ready_says_what_is_in_the_way(serve: Serve) -> None:
    server = serve("plain", hsm={"probe_interval_s": 1})
    assert server.shim is not None
    server.shim.device_lost()
    server.eventually(lambda: not server.is_ready(), within=5, what="/ready says 503")
    with server.caller(health_port=True) as caller:
        answer = caller.request("GET", "/ready")
    assert (answer.status, answer.json["reasons"]) == (503, ["the HSM main is UNAVAILABLE"])


def test_a_proxy_whose_every_key_store_is_blocked_is_not_ready(serve: Serve) -> None:
    server = serve()
    with closing(server.catalog()) as catalog, server.caller(health_port=True) as caller:
        catalog.set_blocked("test", blocked=True)
        server.eventually(lambda: not server.is_ready(), within=1, what="/ready says 503")
        assert caller.request("GET", "/ready").json == {"ready": False, "reasons": ["every key store is blocked"]}
        catalog.set_blocked("test", blocked=False)
        server.eventually(server.is_ready, within=1, what="/ready says 200")


def test_a_proxy_that_can_read_no_credential_of_a_key_store_is_not_ready(serve: Serve) -> None:
    """As where a secret file was not copied to every host: each request would be refused with 401."""
    server = serve(autostart=False)
    (secret,) = (server.directory / "secrets").iterdir()
    secret.rename(server.directory / "elsewhere")
    server.start(wait=False)
    reasons = ["no credential of the key store test can be read here"]
    server.eventually(lambda: _reasons(server) == reasons, within=20, what="/ready says why not")
    server.eventually(
        lambda: server.metric("holdfast_credentials_unreadable", keystore="test") == 1, within=5, what="the metric"
    )
    (server.directory / "elsewhere").rename(secret)
    server.eventually(server.is_ready, within=15, what="/ready says 200 once it can be read")
    server.round_trip()


def _reasons(server: ProxyServer) -> object:
    try:
        with server.caller(health_port=True) as balancer:
            return balancer.request("GET", "/ready").json["reasons"]
    except OSError:
        return None


def test_a_blocked_key_store_is_refused_by_every_worker_within_a_second(serve: Serve) -> None:
    server = serve(workers=2)
    catalog = server.catalog()
    catalog.set_blocked("test", blocked=True)
    catalog.close()
    callers = [server.caller() for _ in range(8)]
    server.eventually(
        lambda: all(caller.encrypt(b"").error == "InvalidStateException" for caller in callers),
        within=1,
        what="InvalidStateException everywhere",
    )


def test_a_path_that_is_none_is_404_with_a_body(shared: ProxyServer) -> None:
    with shared.caller() as caller:
        for path in ("/", "/test/kms/xks/v1", "/kms/xks/v1/health", "/test/kms/xks/v1/health/"):
            reply = caller.request("POST", path, body=b"{}")
            assert (reply.status, reply.error) == (404, "InvalidUriPathException")
            assert reply.headers["content-type"] == "application/json"


def test_another_method_is_405(shared: ProxyServer) -> None:
    with shared.caller() as caller:
        for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "QUERY", "STEAL", "post"):
            reply = caller.request(method, caller.path(Operation.ENCRYPT))
            assert (reply.status, reply.headers["allow"], reply.body) == (405, "POST", b"")
        assert caller.request("STEAL", "/test/kms/xks/v1/elsewhere").error == "InvalidUriPathException"


def test_a_405_is_recorded_as_a_refusal(shared: ProxyServer) -> None:
    """It has no error name on the wire; in log and metrics it must not pass for an operation that was done."""
    with shared.caller() as caller:
        caller.request("GET", caller.path(Operation.DECRYPT))
        caller.request("PUT", caller.path(Operation.DECRYPT), body=b"x" * 100_000)  # refused before it is read
    shared.eventually(
        lambda: sum(event["status"] == 405 for event in shared.events() if event.get("operation") == "Decrypt") == 2,
        within=5,
        what="two events",
    )
    refused = [event for event in shared.events() if event["status"] == 405]
    assert {(event["decision"], event["errorName"]) for event in refused} == {("fail", "MethodNotAllowed")}
    shared.eventually(
        lambda: (
            sum(
                shared.metric(
                    "holdfast_requests_total", keystore=store, operation="Decrypt", error_name="MethodNotAllowed"
                )
                or 0
                for store in ("", "test")
            )
            == 2
        ),
        within=5,
        what="two counted",
    )
