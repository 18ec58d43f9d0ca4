"""What makes the service weaker is said, counted, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.server.proxy_server import NotReady, ProxyServer

from holdfast.config.storage import Authorization

if TYPE_CHECKING:
    from tests.server.conftest import Serve

pytestmark = pytest.mark.server

POLICY = '@id("all")\npermit (principal, action, resource);\n'


def test_policies_that_are_taken_away_are_missed(serve: Serve) -> None:
    server = serve(policies=POLICY)
    digest = Authorization(server.policies_file, POLICY).digest
    assert server.metric("holdfast_policies", sha256=digest) == 1
    server.round_trip()
    assert server.wait_for_events(2)[-1]["policyDigest"] == digest
    del server.settings["authorization"]
    server.write_config()
    server.eventually(lambda: "policies are off" in server.stderr(), within=20, what="a warning")
    assert "is applied; changed: authorization" in server.stderr()
    server.eventually(lambda: server.metric("holdfast_policies", sha256="") == 0, within=5, what="the gauge")


def test_with_require_policies_a_configuration_without_them_is_refused(serve: Serve) -> None:
    server = serve(policies=POLICY, server={"require_policies": True})
    del server.settings["authorization"]
    server.write_config()
    server.eventually(lambda: "`require_policies` in [server] is true" in server.stderr(), within=20, what="refusal")
    assert server.metric("holdfast_configuration_reloads_total", result="refused") == 1
    server.round_trip()


def test_no_process_can_be_dumped_or_traced(serve: Serve) -> None:
    server = serve()
    assert server.process is not None
    for pid in (server.process.pid, *server.worker_pids()):
        limits = Path(f"/proc/{pid}/limits").read_text()
        (core,) = (line for line in limits.splitlines() if line.startswith("Max core file size"))
        assert core.split()[4:6] == ["0", "0"]
        # Of a process that cannot be dumped, /proc belongs to root, whoever runs it.
        assert Path(f"/proc/{pid}/environ").stat().st_uid == 0


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("0.0.0.0", True)])  # noqa: S104
def test_plain_http_off_loopback_is_a_warning(serve: Serve, host: str, warned: bool) -> None:  # noqa: FBT001
    server = serve(tls=False, autostart=False)
    server.settings["server"]["listen"] = f"{host}:{server.port}"
    server.write_config()
    server.start()
    assert ("not encrypted on the network" in server.stderr()) == warned


def test_a_refused_client_certificate_is_reported(serve: Serve) -> None:
    server = serve(client_subject="kms.example.com")
    with pytest.raises(OSError), server.caller() as caller:  # noqa: PT011 (TLS or TCP says it)
        caller.request("GET", "/ping")
    server.eventually(
        lambda: (
            "a client certificate from 127.0.0.1 is refused: peer_did_not_return_a_certificate" in server.stderr()
        ),
        within=5,
        what="the report",
    )


def test_a_token_that_is_missing_is_waited_for_aloud(tmp_path: Path, tokens: Path) -> None:
    hsm = {"token": {"label": "not there"}}
    with pytest.raises(NotReady) as caught, ProxyServer(tmp_path / "server", tokens, hsm=hsm):
        pass
    assert "holdfast: notice: waiting for the HSM main" in str(caught.value)
