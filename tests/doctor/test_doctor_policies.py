"""Doctor and prove are callers too: policies may deny them, and they say so."""

from __future__ import annotations

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, ClassVar

import pytest
from tests.doctor.conftest import Install, doctor, named
from tests.waiting import PATIENCE

from holdfast.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from tests.server.conftest import Serve
    from tests.server.proxy_server import ProxyServer

pytestmark = pytest.mark.server


def test_policies_that_deny_doctor_are_a_note_with_the_principal_to_permit(serve: Serve) -> None:
    findings = doctor(serve(policies='permit(principal, action == Action::"Encrypt", resource);'))
    denied = named(findings, "proxy-denies-doctor")
    assert {finding["severity"] for finding in denied} == {"note"}
    assert 'AwsPrincipal::"arn:aws:iam::123456789012:user/holdfast-doctor"' in denied[0]["remedy"]
    assert named(findings, "proxy-refuses-key") == []


def test_a_proxy_that_runs_without_the_policies_of_the_file_is_an_error(serve: Serve) -> None:
    """A file that is added after a refused reload is not loaded: everything is allowed, whatever the file says."""
    server = serve()
    server.settings["authorization"] = {"policies": server.policies_file.name}
    server.policies_file.write_text("forbid(principal, action, resource);")
    # What the running proxy has loaded stays as it is: only a copy of the configuration names the policies.
    server.config = server.config.with_name("changed.toml")
    server.write_config()
    (found,) = named(doctor(server), "policies-not-running")[:1]
    assert found["severity"] == "error"
    assert "permits a request that the policies in the file deny" in found["what"]


def test_a_proxy_that_runs_with_other_policies_than_the_file_is_an_error(serve: Serve) -> None:
    server = serve(policies="forbid(principal, action, resource);")
    del server.settings["authorization"]
    server.config = server.config.with_name("changed.toml")
    server.write_config()
    (found,) = named(doctor(server), "policies-not-running")[:1]
    assert "denies a request that the policies in the file permit" in found["what"]


def test_policies_that_deny_prove_are_told_with_the_principal_to_permit(serve: Serve) -> None:
    server = serve(policies="forbid(principal, action, resource);")
    done = prove(server, "--ca", server.authority.certificate)
    assert done.returncode == 1
    assert "the policies deny Encrypt to arn:aws:iam::123456789012:user/holdfast-prove" in done.stderr


def test_prove_without_the_authority_says_how_to_name_it(serve: Serve) -> None:
    done = prove(serve(), "--wait", "10")
    assert done.returncode == ExitCode.CONFIGURATION
    assert "is not accepted here" in done.stderr
    assert "--ca FILE" in done.stderr


def test_prove_by_another_name_than_the_certificates_says_so(serve: Serve) -> None:
    server = serve()
    endpoint = f"https://127.1:{server.port}"  # the same address
    done = prove(server, "--ca", server.authority.certificate, "--endpoint", endpoint)
    assert done.returncode == ExitCode.CONFIGURATION
    assert "--endpoint https://NAME" in done.stderr


class Foreign(BaseHTTPRequestHandler):
    """Answers everything with 404, as AWS's sample proxy answers /ready, and keeps what it was asked."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        """An answer to whatever is asked."""
        self.asked.append(f"{self.command} {self.path}")
        self.send_error(404)

    do_POST = do_GET  # noqa: N815 (http.server's name)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_another_server_on_the_port_is_a_note_and_is_sent_no_signature(install: Install) -> None:
    server = install(tls=False)
    Foreign.asked.clear()
    with HTTPServer(("127.0.0.1", server.port), Foreign) as foreign:
        thread = threading.Thread(target=foreign.serve_forever)
        thread.start()
        try:
            findings = doctor(server)
            waited = prove(server, "--wait", "10")
        finally:
            foreign.shutdown()
            thread.join()
    (found,) = named(findings, "proxy-foreign")
    assert found["severity"] == "note"
    assert named(findings, "proxy-not-ready") == []
    assert set(Foreign.asked) == {"GET /ready"}
    assert (waited.returncode, "is not Holdfast" in waited.stderr) == (ExitCode.CONFIGURATION, True)


def prove(server: ProxyServer, *arguments: object) -> subprocess.CompletedProcess[str]:
    """What `holdfast prove` says of the server."""
    command = ("prove", "test", "key-1", "--config", server.config, *arguments)
    return subprocess.run(
        [sys.executable, "-m", "holdfast", *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


def test_serve_warns_of_a_secret_that_others_can_read(serve: Serve) -> None:
    """As sshd looks at its keys; doctor calls the same an error."""
    server = serve(autostart=False)
    key = server.certificate.private_key
    key.chmod(0o644)
    server.start()
    assert f"holdfast: warning: {key}: it holds the TLS private key, and has the mode 0644" in server.stderr()
    assert str(key) in {finding["subject"] for finding in named(doctor(server), "file-too-open")}
