"""`holdfast key drill`, and what it takes to confirm a destruction: a standby HSM that is a restored SoftHSM."""

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Result, Run
from tests.cli.test_key_commands import config, shown, template, without_canary
from tests.waiting import PATIENCE

from holdfast.cli.exit_codes import ExitCode
from holdfast.control.drills import how_to_destroy
from holdfast.hsm.settings import HsmSettings, TokenSelector

__all__ = ["config", "template"]

pytestmark = pytest.mark.programs


def restore(config: Path, name: str = "standby") -> Path:
    """Restores the token's files as they are now into another SoftHSM, `[hsm.NAME]`; its directory."""
    origin, copy = config.parent / "softhsm", config.parent / name
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(origin, copy)
    file = copy / "softhsm2.conf"
    file.write_text(file.read_text().replace(str(origin), str(copy)))
    text = config.read_text()
    if f"[hsm.{name}]" not in text:
        (table,) = (f"[hsm.softhsm]{part}" for part in text.split("[hsm.softhsm]")[1:])
        table = table.partition("\n[")[0].replace("[hsm.softhsm]", f"[hsm.{name}]\nstandby = true")
        config.write_text(f"{text}\n{table.replace('softhsm/softhsm2.conf', f'{name}/softhsm2.conf')}\n")
    return copy


def drill(run: Run, config: Path, *options: str) -> Result:
    return run("key", "drill", "--hsm", "standby", *options, "--config", config)


def rows(config: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(config.parent / "catalog.db")) as connection, connection:
        return connection.execute(query).fetchall()


def rotated(run: Run, config: Path) -> None:
    run("key", "rotate", "now", "demo", "demo-key", "--yes", "--config", config).ok()


def test_a_restored_backup_opens_every_generation(run: Run, config: Path) -> None:
    rotated(run, config)
    restore(config)
    before = run("catalog", "show", "--json", "--config", config).ok().json["version"]
    done = drill(run, config).ok()
    assert "opens 2 of 2 generations" in done.err
    assert [line.split() for line in done.out.splitlines()[1:]] == [
        ["demo", "demo-key", "1", "opened"],
        ["demo", "demo-key", "2", "opened"],
    ]
    assert rows(config, "SELECT hsm, opened, failed FROM drills") == [("standby", 2, 0)]
    assert run("catalog", "show", "--json", "--config", config).ok().json["version"] == before
    (record,) = (
        row["record"]
        for row in run("change", "list", "--json", "--config", config).ok().json
        if row["record"]["action"] == "key drill"
    )
    assert rows(config, "SELECT change_id FROM drills") == [(record["id"],)]
    assert record["effects"][0]["after"]["opened"] == 2


def test_what_a_backup_lacks_is_named_and_recorded(run: Run, config: Path) -> None:
    restore(config)
    rotated(run, config)
    failed = drill(run, config, "--json")
    assert failed.code == ExitCode.INCOMPLETE
    assert [(row["generation"], row["outcome"]) for row in failed.json] == [(1, "opened"), (2, "not found")]
    found = "SELECT outcome, opened_at IS NOT NULL FROM drill_results ORDER BY generation_id"
    assert rows(config, found) == [("opened", 1), ("not found", 0)]
    restore(config)
    drill(run, config).ok()
    assert rows(config, found) == [("opened", 1), ("opened", 1)]
    assert rows(config, "SELECT opened, failed FROM drills ORDER BY id") == [(1, 1), (2, 0)]


def test_a_drill_makes_nothing_in_the_hsm(run: Run, config: Path) -> None:
    copy = restore(config)

    def files() -> list[tuple[str, bytes]]:
        objects = (file for file in copy.rglob("*.object") if file.name != "token.object")  # that one counts logins
        return sorted((file.name, file.read_bytes()) for file in objects)

    before = files()
    drill(run, config).ok()
    assert files() == before


def test_a_key_without_a_canary_is_not_taken_for_recoverable(run: Run, config: Path) -> None:
    restore(config)
    without_canary(config, "demo-key")
    failed = drill(run, config, "--json")
    assert (failed.code, failed.json[0]["outcome"]) == (ExitCode.INCOMPLETE, "no canary")


def test_a_standby_gets_no_keys(run: Run, config: Path) -> None:
    restore(config)
    refused = run("key", "create", "demo", "other", "--hsm", "standby", "--config", config)
    assert (refused.code, "[hsm.standby] is a standby" in refused.err) == (ExitCode.CONFLICT, True)
    run("key", "create", "demo", "other", "--config", config).ok()  # the only one that serves


def finding(run: Run, config: Path, code: str) -> list[dict[str, Any]]:
    document = run("doctor", "--json", "--config", config).json
    return [found for found in document["findings"] if found["code"].startswith(code)]


def test_doctor_warns_of_generations_that_were_not_drilled_for_long(run: Run, config: Path) -> None:
    assert finding(run, config, "drill") == []
    restore(config)
    assert [found["severity"] for found in finding(run, config, "drill")] == ["note"]
    config.write_text(config.read_text() + "\n[drill]\nevery_days = 90\n")
    (never,) = finding(run, config, "drill")
    assert (never["severity"], never["code"]) == ("warning", "drill-missing")
    assert "1 generation" in never["what"]
    drill(run, config).ok()
    assert [found["severity"] for found in finding(run, config, "drill")] == ["ok"]
    rows(config, "UPDATE drill_results SET opened_at = '2020-01-01 00:00:00.000000'")
    (old,) = finding(run, config, "drill")
    assert (old["severity"], old["code"]) == ("warning", "drill-old")


# ---- destroyed


@pytest.fixture
def pending(run: Run, config: Path) -> Path:
    """Generation 1 of demo-key waits for its destruction, and the waiting period is over."""
    rotated(run, config)
    restore(config)
    drill(run, config).ok()
    for command in (("suspend",), ("destroy", "--days", "7")):
        name, *options = command
        run("key", "generation", name, "demo", "demo-key", "1", *options, "--yes", "--config", config).ok()
    rows(config, "UPDATE key_generations SET destroy_after = '2020-01-01 00:00:00.000000' WHERE number = 1")
    return config


def destroyed(run: Run, config: Path, *options: str) -> Result:
    return run("key", "generation", "destroyed", "demo", "demo-key", "1", *options, "--yes", "--config", config)


def delete(config: Path, place: str) -> None:
    """The command that Holdfast prints, in the SoftHSM of this directory."""
    library = ("pkcs11-tool", "--module", "/usr/lib/softhsm/libsofthsm2.so", "--token-label", "holdfast")
    pin = (config.parent / "softhsm" / "pin").read_text().strip()
    subprocess.run(
        [*library, "--login", "--pin", pin, "--delete-object", "--type", "secrkey", "--label", "demo-key"],
        check=True,
        capture_output=True,
        timeout=PATIENCE,
        env={"SOFTHSM2_CONF": str(config.parent / place / "softhsm2.conf"), "PATH": os.environ["PATH"]},
    )


def test_a_destruction_is_confirmed_when_no_placement_has_the_key(run: Run, pending: Path) -> None:
    refused = destroyed(run, pending)
    assert (refused.code, "is still in [hsm.softhsm]" in refused.err) == (ExitCode.HSM, True)
    assert "pkcs11-tool --module" in refused.err
    delete(pending, "softhsm")
    refused = destroyed(run, pending)
    assert (refused.code, "is still in [hsm.standby]" in refused.err) == (ExitCode.HSM, True)
    delete(pending, "standby")
    destroyed(run, pending).ok()
    assert shown(run, pending, "demo-key")["generations"][0]["state"] == "destroyed"
    looked = rows(pending, "SELECT hsm, label, looked_at IS NOT NULL FROM attestations ORDER BY hsm")
    assert looked == [("softhsm", "demo-key", 1), ("standby", "demo-key", 1)]
    record = run("change", "list", "--json", "--config", pending).ok().json[-1]["record"]
    (_, attested) = record["effects"]
    assert [look["hsm"] for look in attested["after"]["looked_at"]] == ["softhsm", "standby"]
    assert all(look["token_serial"] and look["time"] for look in attested["after"]["looked_at"])


def test_an_hsm_that_cannot_be_asked_prevents_the_confirmation(run: Run, pending: Path) -> None:
    delete(pending, "softhsm")
    shutil.rmtree(pending.parent / "standby" / "tokens")
    refused = destroyed(run, pending)
    assert (refused.code, "[hsm.standby] cannot be asked" in refused.err) == (ExitCode.HSM, True)
    assert shown(run, pending, "demo-key")["generations"][0]["state"] == "destroy-pending"


def test_a_token_that_was_drilled_and_is_not_configured_any_more_must_be_stated_gone(run: Run, pending: Path) -> None:
    """Its serial number is another one here, as that of another machine would be."""
    delete(pending, "softhsm")
    rows(pending, "UPDATE drill_results SET token_serial = 'OLD-7'")
    text = pending.read_text()
    pending.write_text(text[: text.index("[hsm.standby]")])
    refused = destroyed(run, pending)
    assert (refused.code, "was in the token OLD-7" in refused.err) == (ExitCode.HSM, True)
    destroyed(run, pending, "--gone", "OLD-7").ok()
    found = rows(pending, "SELECT hsm, token_serial, looked_at IS NULL FROM attestations ORDER BY hsm")
    assert [row[0] for row in found] == ["softhsm", "standby"]
    assert found[1] == ("standby", "OLD-7", 1)
    record = run("change", "list", "--json", "--config", pending).ok().json[-1]["record"]
    assert record["effects"][0]["after"]["stated_gone"] == ["OLD-7"]


@pytest.mark.parametrize(
    ("profile", "command"),
    [
        ("nshield", "nfkminfo -k pkcs11"),
        ("luna", "cmu list -display=handle,label -label='a b'"),
        ("cloudhsm", "cloudhsm-cli key delete --filter attr.label='a b'"),
        ("generic", "pkcs11-tool --module /lib/p11.so --token-label t --login --delete-object --type secrkey"),
    ],
)
def test_the_vendors_own_command_is_printed(profile: str, command: str) -> None:
    settings = HsmSettings("main", profile, "/lib/p11.so", TokenSelector(label="t"), "h")
    assert how_to_destroy(settings, "a b", b"\x07")[0].startswith(command)
