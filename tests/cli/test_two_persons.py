"""Two persons on the command line: one asks, another signs, and the record says who did what."""

import subprocess
from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.waiting import PATIENCE

from holdfast.cli.exit_codes import ExitCode
from holdfast.control.signatures import NAMESPACE

pytestmark = pytest.mark.programs  # ssh-keygen signs and verifies

RULES = """
[[rule]]
name = "starting again"
actions = ["keystore unblock", "credential issue"]
reason = true
approvals = { role = "approver" }
"""


@pytest.fixture
def config(run: Run, catalog_only: Path, tmp_path: Path) -> Path:
    """Alice approves, whoever runs this administers, and the keystore prod is blocked."""
    key = tmp_path / "alice"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True, timeout=PATIENCE)
    (tmp_path / "rules.toml").write_text(RULES)
    run("keystore", "create", "prod", "--config", catalog_only).ok()
    (made,) = run("change", "list", "--json", "--config", catalog_only).ok().json
    name = made["record"]["actor"]["name"]
    run("operator", "enrol", name, "--role", "administrator", "--yes", "--config", catalog_only).ok()
    enrol = ("operator", "enrol", "alice", "--role", "approver", "--key", f"{key}.pub")
    run(*enrol, "--yes", "--config", catalog_only).ok()
    run("rules", "set", "--approval", tmp_path / "rules.toml", "--yes", "--config", catalog_only).ok()
    run("keystore", "block", "prod", "--yes", "--config", catalog_only).ok()
    return catalog_only


def state(run: Run, config: Path) -> bool:
    (row,) = run("keystore", "list", "--json", "--config", config).ok().json
    return bool(row["blocked"])


def test_what_needs_approval_waits_and_says_so_with_its_exit_code(run: Run, config: Path, tmp_path: Path) -> None:
    asked = run("keystore", "unblock", "prod", "--reason", "drill is over", "--yes", "--config", config)
    assert (asked.code, asked.out, state(run, config)) == (ExitCode.PENDING, "", True)
    assert "NOTHING IS CHANGED YET" in asked.err
    (waiting,) = run("change", "list", "--open", "--json", "--config", config).ok().json
    assert (waiting["action"], waiting["missing"], waiting["reason"]) == (
        "keystore unblock",
        "1 approver",
        "drill is over",
    )
    assert waiting["digest"] in asked.err
    shown = run("change", "approve", waiting["id"][:6], "--key", tmp_path / "alice", "--config", config)
    assert shown.code == ExitCode.UNCONFIRMED  # the approver reads first
    assert "keystore prod: blocked yes -> no" in shown.err
    assert "reason: drill is over" in shown.err
    done = run("change", "approve", waiting["id"][:6], "--key", tmp_path / "alice", "--yes", "--config", config)
    assert done.ok().err.count("Approved, and applied.") == 1
    assert not state(run, config)
    rows = run("change", "show", waiting["id"], "--json", "--config", config).ok().json
    assert [row["outcome"] for row in rows] == ["requested", "approved", "applied"]
    assert [one["name"] for one in rows[-1]["record"]["approvals"]] == ["alice"]


def test_a_signature_made_on_another_machine_approves(run: Run, config: Path, tmp_path: Path) -> None:
    run("keystore", "unblock", "prod", "--reason", "over", "--yes", "--config", config)
    (waiting,) = run("change", "list", "--open", "--json", "--config", config).ok().json
    signature = subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-f", tmp_path / "alice", "-n", NAMESPACE],
        input=f"{waiting['digest']}\n",
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    ).stdout
    (tmp_path / "approval.sig").write_text(signature)
    approve = ("change", "approve", waiting["id"], "--signature", tmp_path / "approval.sig", "--yes")
    run(*approve, "--config", config).ok()
    assert not state(run, config)


def test_a_credential_that_waits_leaves_no_secret_behind(run: Run, config: Path, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    asked = run(
        "credential", "issue", "prod", "--reason", "new", "--output", file, "--show-secret", "--config", config
    )
    assert (asked.code, asked.out, file.exists()) == (ExitCode.PENDING, "", False)
    (waiting,) = run("change", "list", "--open", "--json", "--config", config).ok().json
    run("change", "approve", waiting["id"], "--key", tmp_path / "alice", "--yes", "--config", config).ok()
    (row,) = run("credential", "list", "--json", "--config", config).ok().json
    assert row["state"] == "live"
    assert (config.parent / "secrets" / row["access_key_id"]).exists()


def test_rejecting_and_withdrawing_end_what_waits(run: Run, config: Path) -> None:
    for verb in ("reject", "withdraw"):
        run("keystore", "unblock", "prod", "--reason", "over", "--yes", "--config", config)
        (waiting,) = run("change", "list", "--open", "--json", "--config", config).ok().json
        run("change", verb, waiting["id"], "--reason", "not now", "--config", config).ok()
        assert run("change", "list", "--open", "--json", "--config", config).ok().json == []
    assert state(run, config)


def test_times_on_the_command_line_are_checked(run: Run, config: Path) -> None:
    for until in ("tomorrow", "2026-11-25T18:00", "2001-01-01T00:00Z"):
        done = run("keystore", "block", "prod", "--until", until, "--yes", "--config", config)
        assert (done.code, until in done.err) == (ExitCode.CONFIGURATION, True)
    done = run("key", "enable", "prod", "k", "--for", "two hours", "--yes", "--config", config)
    assert (done.code, "45m, 2h or 3d" in done.err) == (ExitCode.CONFIGURATION, True)
