"""The running server answers the four operations over HTTPS."""

from __future__ import annotations

import secrets
import socket
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from tests.stress.flood import raw_request
from tests.waiting import PATIENCE

from holdfast.xks.encoding import encode_base64
from holdfast.xks.types import Operation

if TYPE_CHECKING:
    from tests.server.conftest import Serve
    from tests.server.proxy_server import ProxyServer

pytestmark = pytest.mark.server


def test_what_was_encrypted_is_decrypted(shared: ProxyServer) -> None:
    shared.round_trip()


def test_everything_at_its_largest_at_once_is_served(shared: ProxyServer) -> None:
    """Spec, "API operations" and "Encrypt": 4,300 bytes of plaintext, 8,192 of AAD, ARNs of 2,048 characters."""
    plaintext, aad, arn = secrets.token_bytes(4300), secrets.token_bytes(8192), "arn:aws:iam::1:".ljust(2048, "x")
    metadata = {
        "awsPrincipalArn": arn,
        "kmsKeyArn": arn,
        "kmsViaService": "x" * 2048,
        "kmsRequestId": "\U0001f600" * 500,
    }
    fields = {
        "plaintext": encode_base64(plaintext),
        "additionalAuthenticatedData": encode_base64(aad),
        "encryptionAlgorithm": "AES_GCM",
        "ciphertextDataIntegrityValueAlgorithm": "SHA_256",
    }
    with shared.caller() as caller:
        sealed = caller.call(Operation.ENCRYPT, fields, metadata=metadata)
        assert sealed.status == 200, sealed.body
        assert caller.plaintext(caller.decrypt(sealed, aad)) == plaintext


def test_key_metadata_is_answered(shared: ProxyServer) -> None:
    with shared.caller() as caller:
        assert caller.metadata().json == {
            "keySpec": "AES_256",
            "keyUsage": ["ENCRYPT", "DECRYPT"],
            "keyStatus": "ENABLED",
        }


def test_connections_that_come_at_once_are_spread_over_the_workers(serve: Serve) -> None:
    """KMS keeps its connections: what one worker takes at the start it has for good."""
    server = serve(tls=False, workers=2)
    count = 200
    with server.caller() as caller:
        request = raw_request(caller, Operation.GET_HEALTH_STATUS)
    with ExitStack() as stack:
        address = ("127.0.0.1", server.port)
        opened = [stack.enter_context(socket.create_connection(address, timeout=PATIENCE)) for _ in range(count)]
        for each in opened:
            each.sendall(request)
        for each in opened:
            assert each.recv(100).startswith(b"HTTP/1.1 200")
    share = Counter(event["worker"] for event in server.wait_for_events(count))
    assert len(share) == 2
    assert min(share.values()) >= count // 10


def test_health_is_answered(shared: ProxyServer) -> None:
    with shared.caller() as caller:
        health = caller.health().json
    assert (health["xksProxyFleetSize"], health["ekmFleetDetails"][0]["healthStatus"]) == (1, "ACTIVE")


@pytest.mark.parametrize("personality", ["plain", "nshield", "luna", "cloudhsm"])
def test_every_personality_of_the_shim_is_served(serve: Serve, personality: str) -> None:
    serve(personality).round_trip()  # type: ignore[arg-type]  # a Personality


def test_plain_http_is_served_without_a_tls_table(serve: Serve) -> None:
    serve(tls=False).round_trip()
