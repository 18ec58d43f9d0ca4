"""Holdfast's own proxy passes the checker, whatever HSM is below it."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.server.conftest import Serve, serve, shim_library, tokens
from tests.server.proxy_server import ACCESS_KEY_ID, PREFIX, REGION, SECRET_ACCESS_KEY, ProxyServer
from tests.witness.check.conftest import complaints, report_of

from holdfast.witness.check.endpoint import Endpoint, ProxyConfiguration
from holdfast.witness.check.finding import Verdict
from holdfast.witness.check.session import Session, TestKeys, Trust
from holdfast.xks.secret import Secret

__all__ = ["serve", "shim_library", "tokens"]  # fixtures of the server's tests, used here too

pytestmark = pytest.mark.server
KEYS = TestKeys("key-1", "encrypt-only", "decrypt-only", "impotent")


def session_for(server: ProxyServer, client_certificate: Path | None = None) -> Session:
    configuration = ProxyConfiguration(
        f"{PREFIX}/kms/xks/v1", ACCESS_KEY_ID.value, Secret(SECRET_ACCESS_KEY.reveal())
    )
    trust = Trust(str(server.authority.certificate), None if client_certificate is None else str(client_certificate))
    endpoint = Endpoint.parse(server.url, configuration)
    return Session(endpoint, KEYS, trust, lambda: datetime.now(UTC), REGION, samples=20, local=True)


@pytest.fixture(params=[None, "nshield", "luna", "cloudhsm"])
def server(request: pytest.FixtureRequest, serve: Serve) -> ProxyServer:
    return serve(request.param)


def test_holdfast_passes_every_check(server: ProxyServer) -> None:
    report = report_of(session_for(server))
    found = complaints(report)
    assert found == {}, {key: result.evidence for key, result in found.items()}
    assert {result.check.id for result in report.results if result.verdict is Verdict.SKIP} <= {"TLS-05", "HTTP-07"}


def test_holdfast_with_mutual_tls_refuses_strangers(serve: Serve, tmp_path: Path) -> None:
    server = serve(client_subject="cks.kms.us-east-2.amazonaws.com")
    pair = server.client_authority.issue("cks.kms.us-east-2.amazonaws.com", file="kms")
    both = tmp_path / "kms.pem"
    both.write_bytes(pair.certificate.read_bytes() + pair.private_key.read_bytes())
    report = report_of(session_for(server, both), "TLS", "HEALTH-01")
    assert {result.check.id: result.verdict for result in report.results}["TLS-05"] is Verdict.PASS
    assert complaints(report) == {}
