"""Events and changes arrive at real receivers, and no receiver holds up a request or a stop."""

from __future__ import annotations

import gzip
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

import msgspec
import pytest
from tests.ports import free_ports
from tests.server.certificates import Authority
from tests.server.proxy_server import KEYSTORE
from tests.server.receivers import DatagramReceiver, StreamReceiver

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.server.conftest import Serve
    from tests.server.proxy_server import ProxyServer

pytestmark = pytest.mark.server
WITHIN = 20.0


def holdfast(server: ProxyServer, *arguments: str) -> None:
    """A change, as an operator makes it."""
    command = [sys.executable, "-m", "holdfast", *arguments, "--config", str(server.config), "--yes", "--no-wait"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def kinds(receiver: StreamReceiver | DatagramReceiver) -> list[str]:
    return [message.id for message in receiver.messages]


def blocks(receiver: StreamReceiver) -> int:
    return sum(message.fields.get("action") == "keystore block" for message in receiver.messages)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    (tmp_path / "receiver").mkdir()
    return Authority(tmp_path / "receiver")


def tls_of(authority: Authority, *, client: bool = False) -> ssl.SSLContext:
    """The receiver's side."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own = authority.issue("siem", file="siem")
    context.load_cert_chain(own.certificate, own.private_key)
    if client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.certificate)
    return context


def test_events_and_changes_arrive_by_syslog_over_tls_with_a_client_certificate(
    serve: Serve, authority: Authority
) -> None:
    """RFC 5425, each message as RFC 5424 has it, and numbered without a gap."""
    mine = authority.issue("node-1", file="node")
    with StreamReceiver(context=tls_of(authority, client=True)) as siem:
        server = serve(
            workers=2,
            outlets={
                "siem": {
                    "to": f"tls://localhost:{siem.port}",
                    "ca": str(authority.certificate),
                    "certificate": str(mine.certificate),
                    "private_key": str(mine.private_key),
                }
            },
        )
        server.eventually(
            lambda: server.metric("holdfast_outlet_connected", outlet="siem") == 1, within=WITHIN, what="a connection"
        )
        # Behind the last change the outlet begins, so what it has seen so far must be settled first.
        server.eventually((server.directory / "catalog.db.outlets").exists, within=WITHIN, what="a place")
        for _ in range(3):
            server.round_trip()
        with server.caller() as caller:
            assert caller.request("POST", "/").status == 404
        holdfast(server, "keystore", "block", KEYSTORE, "--reason", "drill", "--ticket", "T-1")
        server.eventually(
            lambda: kinds(siem).count("request") == 7 and blocks(siem) == 1, within=WITHIN, what="each of them"
        )
        messages = siem.messages
        assert server.stop() == 0
    assert dict(siem.peers[0]["subject"][0])["commonName"] == "node-1"
    assert [message.sequence for message in messages] == list(range(1, len(messages) + 1))
    assert {(message.app, message.facility) for message in messages} == {("holdfast", 10)}
    requests = [message.fields for message in messages if message.id == "request"]
    assert {fields.pop("kind") for fields in requests} == {"request"}
    assert {fields.pop("node") for fields in requests} == {messages[0].fields["node"]}
    order: Callable[[dict[str, Any]], Any] = lambda event: (event["worker"], event["timestamp"])  # noqa: E731
    assert sorted(requests, key=order) == sorted(server.events(), key=order)
    assert {message.severity for message in messages if message.fields.get("decision") == "allow"} == {6}
    change = next(message for message in messages if message.fields.get("action") == "keystore block")
    assert change.severity == 5
    assert (change.fields["reason"], change.fields["ticket"]) == ("drill", "T-1")


def test_what_waits_is_sent_when_the_receiver_comes_and_a_loss_is_told(serve: Serve) -> None:
    """A buffer of 100: the first 100 arrive, then word of how many are missing, then what comes later."""
    (port,) = free_ports(1)
    server = serve(outlets={"siem": {"to": f"tcp://127.0.0.1:{port}", "buffer": 100, "changes": False}})
    with server.caller() as caller:
        for _ in range(130):
            assert caller.encrypt(b"text").status == 200
        lost = ("holdfast_outlet_messages_lost_total", 30.0)
        server.eventually(lambda: server.metric(lost[0], outlet="siem") == lost[1], within=WITHIN, what="the loss")
        assert server.metric("holdfast_outlet_messages_waiting", outlet="siem") == 100
        assert server.metric("holdfast_outlet_connected", outlet="siem") == 0
        with StreamReceiver(port=port) as siem:
            server.eventually(lambda: len(siem.messages) == 101, within=2 * WITHIN, what="what waited")
            assert caller.encrypt(b"text").status == 200
            server.eventually(lambda: len(siem.messages) == 102, within=WITHIN, what="what came later")
            messages = siem.messages
            assert server.stop() == 0
    assert [message.id for message in messages] == ["request"] * 100 + ["lost", "request"]
    assert messages[100].fields["lost"] == 30
    assert [message.sequence for message in messages] == list(range(1, 103))


def test_a_change_made_while_the_service_is_down_is_sent_after_its_start(serve: Serve) -> None:
    with StreamReceiver() as siem:
        server = serve(outlets={"siem": {"to": f"tcp://127.0.0.1:{siem.port}", "events": "none"}})
        place = server.directory / "catalog.db.outlets"
        server.eventually(place.exists, within=WITHIN, what="a place")
        assert server.stop() == 0
        holdfast(server, "keystore", "block", KEYSTORE)
        assert siem.messages == []
        server.start(wait=False)
        server.eventually(lambda: len(siem.messages) == 1, within=WITHIN, what="the change")
        holdfast(server, "keystore", "unblock", KEYSTORE)
        server.eventually(lambda: len(siem.messages) == 2, within=WITHIN, what="the next one, and each only once")
        assert server.stop() == 0
        assert [message.fields["action"] for message in siem.messages] == ["keystore block", "keystore unblock"]


def test_no_receiver_holds_up_a_request_or_a_stop(serve: Serve, authority: Authority) -> None:
    """One takes connections and never reads, one shows a stranger's certificate, one is not there."""
    (nobody,) = free_ports(1)
    stranger = Authority(authority.certificate.parent, "stranger")
    with (
        StreamReceiver(mute=True) as mute,
        StreamReceiver(context=tls_of(stranger)) as false,
        StreamReceiver() as good,
    ):
        outlets: dict[str, dict[str, Any]] = {
            "mute": {"to": f"tcp://127.0.0.1:{mute.port}", "buffer": 100},
            "false": {"to": f"tls://localhost:{false.port}", "ca": str(authority.certificate), "buffer": 100},
            "nobody": {"to": f"tcp://127.0.0.1:{nobody}", "buffer": 100},
            "good": {"to": f"tcp://127.0.0.1:{good.port}", "changes": False},
        }
        server = serve(outlets=outlets)
        with server.caller() as caller:
            for _ in range(200):
                assert caller.encrypt(b"text").status == 200
        server.eventually(lambda: len(good.messages) == 200, within=WITHIN, what="all of them at the good one")
        server.eventually(
            lambda: "certificate verify failed" in server.stderr(), within=WITHIN, what="word of the certificate"
        )
        assert false.messages == []
        # 5 s are less than the 10 for which one message may be on its way.
        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)
        assert server.wait_end(within=5.0) == 0


def test_events_wait_while_the_process_of_the_outlets_is_replaced(serve: Serve) -> None:
    """The number in each message's header is that process."""
    with StreamReceiver() as siem:
        server = serve(outlets={"siem": {"to": f"tcp://127.0.0.1:{siem.port}", "changes": False}})
        server.round_trip()
        server.eventually(lambda: len(siem.messages) == 2, within=WITHIN, what="two events")
        os.kill(int(siem.messages[0].process), signal.SIGKILL)
        for _ in range(10):
            server.round_trip()
        server.eventually(lambda: len(siem.messages) == 22, within=WITHIN, what="all events")
        assert "the process of the outlets" in server.stderr()
        assert server.stop() == 0


def test_the_hosts_own_syslog_gets_what_syslog_3_would_write(serve: Serve, tmp_path: Path) -> None:
    with DatagramReceiver(tmp_path / "log") as log:
        server = serve(outlets={"log": {"to": f"unix://{tmp_path / 'log'}", "format": "cef", "changes": False}})
        with server.caller() as caller:
            assert caller.encrypt(b"text").status == 200
        server.eventually(lambda: len(log.raw) == 1, within=WITHIN, what="the event")
        assert server.stop() == 0
    line = log.raw[0].decode("ascii")
    assert re.match(
        r"<86>[A-Z][a-z]{2} [ 1-3][0-9] [0-9:]{8} holdfast\[[0-9]+\]: CEF:0\|Holdfast\|Holdfast\|", line
    ), line


def test_a_datagram_over_udp_is_one_message_of_rfc_5424_in_ocsf(serve: Serve) -> None:
    with DatagramReceiver() as siem:
        server = serve(
            outlets={
                "siem": {
                    "to": f"udp://127.0.0.1:{siem.port}",
                    "format": "ocsf",
                    "events": "refused",
                    "changes": False,
                }
            }
        )
        with server.caller(key="no-such-key") as caller:
            server.round_trip()
            assert caller.encrypt(b"text").status == 404
        server.eventually(lambda: len(siem.messages) == 1, within=WITHIN, what="the refusal")
        assert server.stop() == 0
    (message,) = siem.messages
    assert (message.severity, message.fields["class_uid"], message.fields["status_code"]) == (
        3,
        6003,
        "KeyNotFoundException",
    )


def _protoc_logs() -> Any:
    """The messages of OTLP as OpenTelemetry publishes them."""
    try:
        from opentelemetry.proto.collector.logs.v1 import logs_service_pb2  # noqa: PLC0415 (an optional dependency)
    except ImportError:
        assert not os.environ.get("CI"), "CI has every optional dependency"
        pytest.skip("OpenTelemetry is not installed: make develop")
    return logs_service_pb2


class Collector:
    """Takes OTLP over HTTP: protobuf, gzipped. `refuse` is a status that it answers instead, once."""

    def __init__(self, *, refuse: int | None = None) -> None:
        self._service = _protoc_logs()
        self.records: list[Any] = []
        self.resources: list[Any] = []
        self._refusals = [] if refuse is None else [refuse]
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                assert self.headers["content-type"] == "application/x-protobuf"
                status = collector.take(self.path, gzip.decompress(body))
                answer = collector._service.ExportLogsServiceResponse().SerializeToString()
                self.send_response(status)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def take(self, path: str, body: bytes) -> int:
        """The status of the answer."""
        assert path == "/v1/logs"
        if self._refusals:
            return self._refusals.pop()
        request = self._service.ExportLogsServiceRequest.FromString(body)
        for resource in request.resource_logs:
            self.resources.append(resource.resource)
            for scope in resource.scope_logs:
                self.records.extend(scope.log_records)
        return 200

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def test_a_collector_gets_log_records_with_their_attributes(serve: Serve) -> None:
    with Collector() as collector:
        server = serve(outlets={"otel": {"to": f"otlp+http://127.0.0.1:{collector.port}"}})
        server.eventually((server.directory / "catalog.db.outlets").exists, within=WITHIN, what="a place")
        server.round_trip()
        holdfast(server, "keystore", "block", KEYSTORE)

        def names() -> list[str]:
            return [record.event_name for record in collector.records]

        server.eventually(
            lambda: names().count("holdfast.request") == 2 and "holdfast.change" in names(), within=WITHIN, what="all"
        )
        assert server.stop() == 0
    request = next(record for record in collector.records if record.event_name == "holdfast.request")
    event = server.events()[0]
    attributes = {one.key: one.value for one in request.attributes}
    assert attributes["holdfast.operation"].string_value == event["operation"]
    assert attributes["log.record.uid"].string_value == event["kmsRequestId"]
    assert msgspec.json.decode(request.body.string_value)["kmsKeyArn"] == event["kmsKeyArn"]
    assert request.severity_text == "INFORMATIONAL"
    assert {one.key: one.value.string_value for one in collector.resources[0].attributes}[
        "service.name"
    ] == "holdfast"


def test_what_a_collector_refuses_for_good_is_lost_and_told_and_the_next_is_sent(serve: Serve) -> None:
    with Collector(refuse=400) as collector:
        server = serve(outlets={"otel": {"to": f"otlp+http://127.0.0.1:{collector.port}", "changes": False}})
        with server.caller() as caller:
            assert caller.encrypt(b"text").status == 200
            server.eventually(
                lambda: [record.event_name for record in collector.records] == ["holdfast.lost"],
                within=WITHIN,
                what="word of the loss",
            )
            assert caller.encrypt(b"text").status == 200
            server.eventually(lambda: len(collector.records) == 2, within=WITHIN, what="the next event")
        assert "answers 400" in server.stderr()
        assert server.stop() == 0
