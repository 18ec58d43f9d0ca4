"""The running server answers the four operations over HTTPS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.server.conftest import Serve
    from tests.server.proxy_server import ProxyServer

pytestmark = pytest.mark.server


def test_what_was_encrypted_is_decrypted(shared: ProxyServer) -> None:
    shared.round_trip()


def test_key_metadata_is_answered(shared: ProxyServer) -> None:
    with shared.caller() as caller:
        assert caller.metadata().json == {
            "keySpec": "AES_256",
            "keyUsage": ["ENCRYPT", "DECRYPT"],
            "keyStatus": "ENABLED",
        }


def test_health_is_answered(shared: ProxyServer) -> None:
    with shared.caller() as caller:
        health = caller.health().json
    assert (health["xksProxyFleetSize"], health["ekmFleetDetails"][0]["healthStatus"]) == (1, "ACTIVE")


@pytest.mark.parametrize("personality", ["plain", "nshield", "luna", "cloudhsm"])
def test_every_personality_of_the_shim_is_served(serve: Serve, personality: str) -> None:
    serve(personality).round_trip()  # type: ignore[arg-type]  # a Personality


def test_plain_http_is_served_without_a_tls_table(serve: Serve) -> None:
    serve(tls=False).round_trip()
