"""Doctor and prove are callers too: policies may deny them, and they say so."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.admin.conftest import doctor, named

if TYPE_CHECKING:
    from tests.server.conftest import Serve

pytestmark = pytest.mark.server


def test_policies_that_deny_doctor_are_a_note_with_the_principal_to_permit(serve: Serve) -> None:
    findings = doctor(serve(policies='permit(principal, action == Action::"Encrypt", resource);'))
    denied = named(findings, "proxy-denies-doctor")
    assert {finding["severity"] for finding in denied} == {"note"}
    assert 'AwsPrincipal::"arn:aws:iam::123456789012:user/holdfast-doctor"' in denied[0]["remedy"]
    assert named(findings, "proxy-refuses-key") == []


def test_policies_that_deny_prove_are_told_with_the_principal_to_permit(serve: Serve) -> None:
    server = serve(policies="forbid(principal, action, resource);")
    command = ("prove", "test", "key-1", "--config", server.config, "--ca", server.authority.certificate)
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 1
    assert "the policies deny Encrypt to arn:aws:iam::123456789012:user/holdfast-prove" in done.stderr
