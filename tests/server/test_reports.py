"""Reports on a server that runs: what its records, its logs and its nodes say."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from tests.server.proxy_server import KEYSTORE
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from tests.server.conftest import Serve
    from tests.server.proxy_server import ProxyServer

pytestmark = pytest.mark.server
WITHIN = 60.0


def holdfast(server: ProxyServer, *arguments: str) -> str:
    """A command, as an operator runs it; its data."""
    command = [sys.executable, "-m", "holdfast", *arguments, "--config", str(server.config)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout


def report(server: ProxyServer, name: str) -> Any:
    """Its tables."""
    return msgspec.json.decode(holdfast(server, "report", name, "--format", "json"))["tables"]


def test_a_drill_of_revocation_is_told_from_block_to_first_success_again(serve: Serve) -> None:
    server = serve(workers=2)
    server.round_trip()
    holdfast(server, "keystore", "block", KEYSTORE, "--reason", "drill", "--yes")  # waits until it is in force
    with server.caller() as caller:
        assert [caller.encrypt(b"text").status for _ in range(3)] == [400] * 3
        holdfast(server, "keystore", "unblock", KEYSTORE, "--yes")
        assert caller.encrypt(b"text").status == 200
    server.wait_for_events(6)
    (block,) = report(server, "revocation")["blocks"]
    assert (block["key_store"], block["reason"], block["refusals"]) == (KEYSTORE, "drill", 3)
    assert block["last_success_after_the_block"] == "none seen"
    assert block["blocked_at"] < block["first_refusal"] < block["unblocked_at"] < block["first_success_afterwards"]


def test_a_transition_has_its_entry_in_the_control_log_and_a_key_what_hangs_on_it(serve: Serve) -> None:
    server = serve(audit={"control_directory": "control", "control_name": "holdfast.test/control"})
    server.round_trip()
    holdfast(server, "key", "disable", KEYSTORE, "key-1", "--reason", "drill", "--yes")

    def logged() -> bool:
        row = report(server, "transitions")["transitions"][-1]
        return isinstance(row["entry_of_the_control_log"], int)

    server.eventually(logged, within=WITHIN, what="the change in the control log")
    row = report(server, "transitions")["transitions"][-1]
    assert (row["change"], row["reason"], row["outcome"]) == ("key disable", "drill", "applied")
    assert f"\nindex {row['entry_of_the_control_log']}\n" in proof_of(server, row["change_id"])

    def used() -> Any:
        return next(one for one in report(server, "exit")["keys"] if one["key"] == f"{KEYSTORE}/key-1")

    server.eventually(lambda: used()["decrypts_seen"] == 1, within=WITHIN, what="the use of the key")
    key = used()
    assert key["kms_keys_seen"].startswith("arn:aws:kms:")
    assert key["aws_services_seen"].startswith("ebs.")


def proof_of(server: ProxyServer, change: str) -> str:
    """The proof of a change, as text."""
    command = [sys.executable, "-m", "holdfast", "audit", "prove", str(server.directory / "control"), change]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE).stdout
