"""`holdfast report`: what each says of a catalog, without an HSM, and in each format."""

import stat
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.cli.conftest import Run
from tests.cli.test_two_persons import config
from tests.cli.test_usage import catalog
from tests.waiting import PATIENCE

from holdfast.cli.exit_codes import ExitCode

__all__ = ["catalog", "config"]

REPORTS = (
    "inventory",
    "cryptoperiods",
    "transitions",
    "duties",
    "access",
    "revocation",
    "recovery",
    "devices",
    "exit",
)


def made(run: Run, config: Path, name: str, *options: object) -> Any:
    """A report as JSON."""
    return run("report", name, *options, "--format", "json", "--config", config).ok().json


def test_the_list_names_every_report_and_what_it_answers(run: Run) -> None:
    rows = run("report", "list", "--json").ok().json
    assert {row["name"] for row in rows} == {*REPORTS, "reconciliation"}
    assert all(row["answers"].endswith(".") for row in rows)


@pytest.mark.parametrize("name", REPORTS)
def test_every_report_is_made_without_an_hsm_in_80_columns(run: Run, config: Path, name: str) -> None:
    text = run("report", name, "--config", config).ok().out
    assert text.startswith("# ")
    assert "Catalog version: " in text
    assert "## What this report does not show" in text
    assert [line for line in text.splitlines() if len(line) > 80 and " " in line.strip().lstrip("- ")] == []
    for format_ in ("html", "csv", "json"):
        assert run("report", name, "--format", format_, "--config", config).ok().out


def test_a_report_goes_to_a_new_file_that_others_cannot_read(run: Run, config: Path, tmp_path: Path) -> None:
    to = tmp_path / "duties.html"
    done = run("report", "duties", "--format", "html", "--output", to, "--config", config).ok()
    assert done.out == ""
    assert to.read_text().startswith("<!doctype html>")
    assert stat.S_IMODE(to.stat().st_mode) & 0o007 == 0
    again = run("report", "duties", "--format", "html", "--output", to, "--config", config)
    assert (again.code, "exists already" in again.err) == (ExitCode.CONFLICT, True)


@pytest.mark.usefixtures("catalog")
def test_cryptoperiods_are_judged_by_the_configuration_where_a_key_has_none(run: Run, catalog_only: Path) -> None:
    """As `key rotate due` judges them: the keys are 200 days old."""

    def verdicts() -> list[str]:
        return [row["verdict"] for row in made(run, catalog_only, "cryptoperiods")["tables"]["generations"]]

    assert verdicts() == ["no period was set", "no period was set"]
    catalog_only.write_text(catalog_only.read_text() + "\n[rotation]\nage_days = 199\n")
    assert verdicts() == ["OVERDUE: encrypts", "OVERDUE: encrypts"]


def test_duties_name_who_could_do_something_alone_and_what_nobody_can_approve(
    run: Run, config: Path, tmp_path: Path
) -> None:
    """Alice alone approves; whoever runs this administers, and has no key."""
    report = made(run, config, "duties")
    (rule,) = report["tables"]["rules"]
    assert (rule["needs"], rule["can_it_be_met?"]) == ("1 approver", "not where alice asks")
    found = {(row["who"], row["what"]) for row in report["tables"]["conflicts"]}
    me = next(row["operator"] for row in report["tables"]["operators"] if row["operator"] != "alice")
    assert (me, "manages keys and decides who may") in found
    assert ("nobody", "the rule 'starting again': not where alice asks") in found
    alone = {row["role"]: row["remark"] for row in report["tables"]["roles"]}
    assert (alone["approver"], alone["custodian"]) == ("one person alone has it", "nobody has it")
    key = tmp_path / "bob"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True, timeout=PATIENCE)
    enrol = ("operator", "enrol", "bob", "--role", "approver", "--key", f"{key}.pub", "--yes")
    run(*enrol, "--config", config).ok()
    (rule,) = made(run, config, "duties")["tables"]["rules"]
    assert rule["can_it_be_met?"] == "yes, whoever asks"


def test_access_shows_keys_by_their_fingerprint_and_no_secret(run: Run, config: Path, tmp_path: Path) -> None:
    report = made(run, config, "access")
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", tmp_path / "alice.pub"],
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    ).stdout.split()[1]
    by_name = {row["operator"]: row for row in report["tables"]["operators"]}
    assert by_name["alice"]["ssh_key"] == f"ssh-ed25519 {shown}"
    assert by_name["alice"]["last_asked_for_a_change"] == "never"
    assert report["tables"]["policies"][2]["where"] == "the catalog"


def test_a_revocation_is_read_from_records_and_events(run: Run, catalog_only: Path, tmp_path: Path) -> None:
    for change in (
        ("keystore", "create", "prod"),
        ("keystore", "block", "prod", "--reason", "drill", "--ticket", "T-1"),
        ("keystore", "unblock", "prod"),
    ):
        run(*change, "--yes", "--config", catalog_only).ok()
    records = run("change", "list", "--json", "--config", catalog_only).ok().json
    blocked, unblocked = (
        next(r["time"] for r in records if r["record"]["action"] == f"keystore {word}")
        for word in ("block", "unblock")
    )
    events = tmp_path / "events.jsonl"

    def event(at: str, decision: str, error: str | None = None, keystore: str = "prod") -> bytes:
        return msgspec.json.encode({"timestamp": at, "decision": decision, "errorName": error, "keystore": keystore})

    lines = [
        event("2020-01-01T00:00:00Z", "allow"),
        event(blocked, "deny", "InvalidStateException"),
        event(blocked, "deny", "InvalidStateException"),
        event(blocked, "deny", "InvalidStateException", "other"),
        event("2199-01-01T00:00:00Z", "allow"),
        b'{"half',
    ]
    events.write_bytes(b"\n".join(lines))
    report = made(run, catalog_only, "revocation", "--events", events)
    (row,) = report["tables"]["blocks"]
    assert (row["key_store"], row["reason"], row["ticket"], row["refusals"]) == ("prod", "drill", "T-1", 2)
    assert row["seconds_to_the_first_refusal"] == 0
    assert (row["unblocked_at"], row["first_success_afterwards"]) == (unblocked, "2199-01-01T00:00:00Z")
    assert row["last_success_after_the_block"] == "none seen"
    assert any("1 lines of the events were none" in limit for limit in report["limits"])


def test_the_register_names_a_certificate_that_cannot_be_read(run: Run, catalog_only: Path) -> None:
    (row,) = made(run, catalog_only, "devices")["tables"]["certificates"]
    assert row["subject"].startswith("cannot be read: ")
    assert row["valid_until"] is None
