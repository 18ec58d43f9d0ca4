"""Policies of the running server: a changed file is in force without a restart, a bad one changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.server.client import METADATA
from tests.server.proxy_server import NotReady, ProxyServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.server.conftest import Serve

pytestmark = pytest.mark.server

PERMIT = '@id("everybody")\npermit(principal, action, resource);\n'
FORBID = '@id("nobody")\nforbid(principal, action, resource);\n'
TOO_LATE = 15


def status(server: ProxyServer) -> int:
    """What an Encrypt over a new connection gets."""
    with server.caller() as caller:
        return caller.encrypt(b"may I").status


def test_a_denial_is_a_403_on_the_wire_and_named_in_the_event_log(serve: Serve) -> None:
    server = serve(policies=PERMIT + FORBID)
    with server.caller() as caller:
        reply = caller.encrypt(b"may I")
        assert (reply.status, reply.json["errorName"]) == (403, "AccessDeniedException")
        assert caller.health().status == 200
    denied, health = server.wait_for_events(2)
    assert (denied["decision"], denied["policies"], denied["detail"]) == (
        "deny",
        ["nobody"],
        "forbidden by policy nobody",
    )
    assert (denied["kmsRequestId"], denied["awsPrincipalArn"]) == (
        METADATA["kmsRequestId"],
        METADATA["awsPrincipalArn"],
    )
    assert "policies" not in health
    server.eventually(
        lambda: server.metric("holdfast_requests_total", error_name="AccessDeniedException") == 1,
        within=5,
        what="the metric",
    )


def test_a_changed_policy_file_is_in_force_without_a_restart_or_a_signal(serve: Serve) -> None:
    server = serve(policies=PERMIT)
    assert server.process is not None
    supervisor = server.process.pid
    assert status(server) == 200
    server.write_policies(PERMIT + FORBID)
    server.eventually(lambda: status(server) == 403, within=TOO_LATE, what="the new policies deny")
    server.write_policies(PERMIT)
    server.eventually(lambda: status(server) == 200, within=TOO_LATE, what="the old policies permit again")
    assert server.process.pid == supervisor


def test_a_bad_policy_file_changes_nothing_and_is_told_with_its_line(serve: Serve) -> None:
    server = serve(policies=PERMIT)
    pids = server.worker_pids()
    server.write_policies(PERMIT + 'forbid(principal, action, resource)\nwhen { principal.arm == "x" };')
    server.eventually(lambda: "not applied" in server.stderr(), within=TOO_LATE, what="a refusal")
    assert f"{server.policies_file}:4: attribute `arm` on entity type `AwsPrincipal` not found" in server.stderr()
    assert server.metric("holdfast_configuration_reloads_total", result="refused") == 1
    assert server.worker_pids() == pids
    assert status(server) == 200


def test_a_policy_file_that_is_good_again_is_taken(serve: Serve) -> None:
    server = serve(policies=PERMIT)
    server.write_policies("forbid(")
    server.eventually(lambda: "not applied" in server.stderr(), within=TOO_LATE, what="a refusal")
    server.write_policies(FORBID)
    server.eventually(lambda: status(server) == 403, within=TOO_LATE, what="the policies deny")


def test_authorization_begins_and_ends_with_its_table(serve: Serve) -> None:
    server = serve()
    assert status(server) == 200
    server.write_policies(FORBID)
    server.settings["authorization"] = {"policies": str(server.policies_file)}
    server.write_config()
    server.eventually(lambda: status(server) == 403, within=TOO_LATE, what="the policies deny")
    del server.settings["authorization"]
    server.write_config()
    server.eventually(lambda: status(server) == 200, within=TOO_LATE, what="KMS alone decides again")


@pytest.mark.parametrize(
    ("text", "words"),
    [("permit(principal, action", r"policies.cedar:1: is not Cedar"), ("", r"policies.cedar: holds no policy")],
)
def test_a_bad_policy_file_ends_the_start(tmp_path: Path, tokens: Path, text: str, words: str) -> None:
    with (
        pytest.raises(NotReady, match=rf"(?s)ended with 4.*{words}"),
        ProxyServer(tmp_path / "server", tokens, policies=text),
    ):
        pass


def test_a_missing_policy_file_ends_the_start(tmp_path: Path, tokens: Path) -> None:
    server = ProxyServer(tmp_path / "server", tokens, policies=PERMIT)
    server.policies_file.unlink()
    with pytest.raises(NotReady, match=r"(?s)ended with 4.*policies.cedar: cannot be read"), server:
        pass
