"""`holdfast authorization replay` says what policies would have decided otherwise, before they are in force."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Run
from tests.waiting import PATIENCE
from tools.docs.shapes import SHAPES

from holdfast.cli.exit_codes import ExitCode

ALICE = "arn:aws:iam::123456789012:user/Alice"
DECRYPT: dict[str, Any] = {
    "decision": "allow",
    "status": 200,
    "operation": "Decrypt",
    "kmsRequestId": "1",
    "keystore": "prod",
    "externalKeyId": "prod-1",
    "awsPrincipalArn": ALICE,
    "kmsKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/1",
    "kmsOperation": "Decrypt",
}
DENIED = DECRYPT | {"decision": "deny", "status": 403, "errorName": "AccessDeniedException"}
PERMIT = '@id("all") permit(principal, action, resource);\n'
NOT_ALICE = PERMIT + f'@id("not-alice") forbid(principal == AwsPrincipal::"{ALICE}", action, resource);\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the files of a test are."""
    return tmp_path


def replay(run: Run, folder: Path, policies: str, *events: dict[str, Any] | str) -> Any:
    """What the command does with these."""
    (folder / "policies.cedar").write_text(policies)
    lines = [event if isinstance(event, str) else json.dumps(event) for event in events]
    (folder / "events.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return run("authorization", "replay", folder / "events.jsonl", "--policies", folder / "policies.cedar", "--json")


def test_requests_that_would_be_denied_are_counted_and_have_an_exit_code(run: Run, folder: Path) -> None:
    done = replay(
        run, folder, NOT_ALICE, DECRYPT, DECRYPT | {"kmsRequestId": "2"}, DECRYPT | {"awsPrincipalArn": "b"}
    )
    assert done.code == ExitCode.DENIED
    assert ("object", tuple(done.json)) == SHAPES["authorization replay"]
    assert done.json["requests"] == 3
    (change,) = done.json["changes"]
    assert change == {
        "decision": "deny",
        "requests": 2,
        "policies": ["not-alice"],
        "detail": "forbidden by policy not-alice",
        "operation": "Decrypt",
        "keystore": "prod",
        "external_key_id": "prod-1",
        "aws_principal_arn": ALICE,
        "kms_operation": "Decrypt",
        "kms_key_arn": "arn:aws:kms:eu-west-1:123456789012:key/1",
        "kms_via_service": None,
        "aws_source_vpc": None,
        "aws_source_vpce": None,
    }


def test_requests_that_would_no_longer_be_denied_are_told_and_are_no_failure(run: Run, folder: Path) -> None:
    done = replay(run, folder, PERMIT, DENIED, DECRYPT)
    assert done.code == ExitCode.OK
    assert [(change["decision"], change["requests"]) for change in done.json["changes"]] == [("allow", 1)]


def test_what_is_decided_as_it_was_is_no_change(run: Run, folder: Path) -> None:
    done = replay(run, folder, NOT_ALICE, DENIED, DECRYPT | {"awsPrincipalArn": "b"})
    assert (done.code, done.json) == (ExitCode.OK, {"requests": 2, "changes": []})


def test_a_request_that_failed_otherwise_was_permitted(run: Run, folder: Path) -> None:
    """Policies are asked before the HSM."""
    failed = DECRYPT | {"decision": "fail", "status": 503, "errorName": "DependencyTimeoutException"}
    assert replay(run, folder, NOT_ALICE, failed).code == ExitCode.DENIED


@pytest.mark.parametrize(
    "event",
    [
        {"operation": "GetHealthStatus", "keystore": "prod", "kmsOperation": "ConnectCustomKeyStore"},
        {
            "operation": "Decrypt",
            "keystore": "prod",
            "externalKeyId": "k",
            "errorName": "AuthenticationFailedException",
        },
        {"errorName": "InvalidUriPathException"},
    ],
)
def test_what_policies_are_never_asked_about_is_left_out(run: Run, folder: Path, event: dict[str, Any]) -> None:
    assert replay(run, folder, NOT_ALICE, event).json["requests"] == 0


@pytest.mark.parametrize("line", ["", "not json", "[1]", '{"operation": 7}', '{"operation": "Decr'])
def test_a_line_that_is_no_event_is_told_and_the_rest_is_read(run: Run, folder: Path, line: str) -> None:
    done = replay(run, folder, PERMIT, line, DECRYPT)
    assert done.json["requests"] == 1
    assert "not events, ignored: 1" in done.err


def test_the_table_shows_each_change_and_no_control_character(run: Run, folder: Path) -> None:
    replay(run, folder, "forbid(principal, action, resource);", DECRYPT | {"awsPrincipalArn": "a\x1b[31m"})
    done = run("authorization", "replay", folder / "events.jsonl", "--policies", folder / "policies.cedar")
    assert done.code == ExitCode.DENIED
    assert [
        word for word in ("deny", "prod/prod-1", "a\\x1b[31m", "forbidden by policy line 1") if word not in done.out
    ] == []
    assert "\x1b" not in done.out


def test_rows_that_differ_look_different(run: Run, folder: Path) -> None:
    """What distinguishes requests of one principal on one key is a column; what they share is not."""
    through = [DECRYPT | {"kmsViaService": service} for service in ("s3.amazonaws.com", "ec2.amazonaws.com")]
    replay(run, folder, NOT_ALICE, *through)
    done = run("authorization", "replay", folder / "events.jsonl", "--policies", folder / "policies.cedar")
    assert "SERVICE" in done.out
    assert "KMS OPERATION" not in done.out
    rows = [line for line in done.out.splitlines() if line.startswith("deny")]
    assert len(set(rows)) == len(rows) == 2


def test_a_very_long_principal_does_not_break_the_table(run: Run, folder: Path) -> None:
    """`holdfast check` calls with one of 2,048 characters."""
    replay(run, folder, "forbid(principal, action, resource);", DECRYPT | {"awsPrincipalArn": ALICE + "x" * 2000})
    done = run("authorization", "replay", folder / "events.jsonl", "--policies", folder / "policies.cedar")
    assert max(map(len, done.out.splitlines())) < 300
    assert ALICE in done.out


def test_an_event_log_that_cannot_be_read_is_named(run: Run, folder: Path) -> None:
    (folder / "policies.cedar").write_text(PERMIT)
    done = run("authorization", "replay", folder / "none", "--policies", folder / "policies.cedar")
    assert done.code == ExitCode.CONFIGURATION
    assert f"{folder}/none cannot be read: No such file or directory" in done.err


@pytest.mark.programs
def test_events_come_from_standard_input_too(folder: Path) -> None:
    """As in `zcat events.jsonl.1.gz | holdfast authorization replay -`."""
    (folder / "policies.cedar").write_text(NOT_ALICE)
    command = ("authorization", "replay", "-", "--policies", folder / "policies.cedar", "--json")
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", *map(str, command)],
        input=json.dumps(DECRYPT).encode(),
        capture_output=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == ExitCode.DENIED
    assert b'"requests": 1' in done.stdout


def test_no_change_is_said(run: Run, folder: Path) -> None:
    replay(run, folder, PERMIT, DECRYPT)
    done = run("authorization", "replay", folder / "events.jsonl", "--policies", folder / "policies.cedar").ok()
    assert (done.out, done.err) == ("", "The policies decide each request as it was decided (1).\n")
