"""`holdfast key rotate due`, `key list --due` and doctor: keys that should rotate, on real SoftHSM."""

import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Result, Run
from tests.cli.test_key_commands import config, shown, template
from tests.cli.test_rotate import labels, states
from tests.waiting import PATIENCE

from holdfast.audit.records import Actor
from holdfast.cli.exit_codes import ExitCode

__all__ = ["config", "template"]

pytestmark = pytest.mark.programs

RULES = """
[[rule]]
name = "rotation"
actions = ["key rotate activate"]
approvals = { role = "approver" }
"""


def change(config: Path, statement: str) -> None:
    with closing(sqlite3.connect(config.parent / "catalog.db")) as connection, connection:
        connection.execute(statement)


def age(config: Path) -> None:
    """Generation 1 of demo-key has encrypted since 2020."""
    change(config, "UPDATE key_generations SET activated_at = '2020-01-01 00:00:00.000000' WHERE number = 1")


@pytest.fixture
def old(run: Run, config: Path) -> Path:
    """A configuration whose demo-key is beyond its cryptoperiod of a year, and has a second key that is not."""
    run("key", "create", "demo", "young", "--config", config).ok()
    for key in ("demo-key", "young"):
        run("key", "describe", "demo", key, "--cryptoperiod", "1y", "--config", config).ok()
    change(
        config,
        "UPDATE key_generations SET activated_at = '2020-01-01 00:00:00.000000' WHERE label = 'demo-key'",
    )
    return config


Is = Callable[[str], None]


@pytest.fixture
def is_(monkeypatch: pytest.MonkeyPatch) -> Is:
    """Has commands run in the name of a user."""

    def become(name: str) -> None:
        actor = Actor(name=name, known_by="os-user", where="here")
        monkeypatch.setattr("holdfast.cli.options.current_actor", lambda: actor)

    return become


def due(run: Run, config: Path, *options: str) -> Result:
    return run("key", "rotate", "due", "--yes", *options, "--config", config)


def listed(run: Run, config: Path) -> list[str]:
    rows = run("key", "list", "--due", "--json", "--config", config).ok().json
    return [row["external_key_id"] for row in rows]


def findings(run: Run, config: Path) -> list[dict[str, Any]]:
    return [one for one in run("doctor", "--json", "--config", config).json["findings"] if "rotation" in one["code"]]


def test_a_key_beyond_its_cryptoperiod_is_rotated_and_no_other(run: Run, old: Path) -> None:
    assert listed(run, old) == ["demo-key"]
    assert "its cryptoperiod ended on 2020-12-31" in run("key", "list", "--due", "--config", old).ok().out
    (finding,) = findings(run, old)
    assert (finding["code"], finding["severity"], finding["subject"]) == (
        "rotation-due",
        "warning",
        "key demo/demo-key",
    )
    done = due(run, old).ok()
    assert "rotated" in done.out
    assert states(run, old) == {"demo-key": "retired", "demo-key.g2": "active"}
    assert shown(run, old, "young")["generation"] == 1
    assert listed(run, old) == []
    assert [one["severity"] for one in findings(run, old)] == ["ok"]
    assert "No key is due." in due(run, old).ok().err
    record = run("change", "list", "--json", "--config", old).ok().json[-1]["record"]
    assert record["action"] == "key rotate activate"
    assert record["reason"].startswith("rotation is due: its cryptoperiod ended")


def test_a_key_is_due_by_its_encryptions_before_it_is_stopped(run: Run, config: Path) -> None:
    change(config, "UPDATE key_generations SET encryptions_reserved = 2147483647")  # 2^31 - 1
    assert listed(run, config) == []
    change(config, "UPDATE key_generations SET encryptions_reserved = 2147483648")
    assert listed(run, config) == ["demo-key"]
    due(run, config).ok()
    assert shown(run, config, "demo-key")["encryptions_at_most"] == 1
    assert listed(run, config) == []


def test_the_configurations_age_is_for_keys_without_a_cryptoperiod(run: Run, config: Path) -> None:
    age(config)
    assert listed(run, config) == []
    config.write_text(config.read_text() + "\n[rotation]\nage_days = 365\n")
    assert listed(run, config) == ["demo-key"]
    run("key", "describe", "demo", "demo-key", "--cryptoperiod", "100y", "--config", config).ok()
    assert listed(run, config) == []


@pytest.mark.parametrize(
    ("obstacle", "why"),
    [
        ("UPDATE external_keys SET status = 'DISABLED'", "it is disabled"),
        ("UPDATE keystores SET blocked = 1", "its keystore is blocked"),
        ("UPDATE external_keys SET metadata_format = 1", "`holdfast key upgrade` comes first"),
        (
            "UPDATE key_generations SET stopped_at = '2026-01-01 00:00:00.0', stopped_reason = 'IV'",
            "it is stopped: IV",
        ),
    ],
)
def test_what_a_person_has_to_look_at_is_left_to_a_person(run: Run, old: Path, obstacle: str, why: str) -> None:
    change(old, f"{obstacle} WHERE id = 1")
    left = due(run, old)
    assert (left.code, why in left.out) == (ExitCode.INCOMPLETE, True)
    assert labels(old) == {"demo-key", "young", "holdfast-health"}


def test_keys_that_the_hsms_own_tool_makes_are_named_and_not_touched(run: Run, old: Path) -> None:
    old.write_text(old.read_text().replace('profile = "softhsm2"', 'profile = "nshield"'))
    left = due(run, old)
    assert (left.code, "the HSM's own tool makes its keys" in left.out) == (ExitCode.INCOMPLETE, True)
    assert states(run, old) == {"demo-key": "active"}


def test_a_run_goes_on_where_a_node_was_away(run: Run, old: Path) -> None:
    change(
        old,
        "INSERT INTO proxies (id, last_seen, metadata_format, workers)"
        " VALUES ('a:443', strftime('%Y-%m-%d %H:%M:%f', 'now'), 2, 2)",
    )
    waiting = due(run, old, "--wait", "0")
    assert (waiting.code, "ready on 0 of 1 node" in waiting.out) == (ExitCode.CONFLICT, True)
    assert states(run, old) == {"demo-key": "active", "demo-key.g2": "ready"}
    change(old, "DELETE FROM proxies")
    due(run, old).ok()
    assert states(run, old) == {"demo-key": "retired", "demo-key.g2": "active"}


def test_a_step_that_needs_approval_is_asked_for_once(run: Run, old: Path, tmp_path: Path, is_: Is) -> None:
    key, rules = tmp_path / "alice", tmp_path / "rules.toml"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True, timeout=PATIENCE)
    rules.write_text(RULES)
    is_("root")
    run("operator", "enrol", "root", "--role", "administrator", "--yes", "--config", old).ok()
    alice = ("operator", "enrol", "alice", "--role", "approver", "--key", f"{key}.pub")
    run(*alice, "--yes", "--config", old).ok()
    run("rules", "set", "--approval", rules, "--yes", "--config", old).ok()
    asked = due(run, old)
    assert (asked.code, "waits for approval" in asked.out) == (ExitCode.PENDING, True)
    assert states(run, old) == {"demo-key": "active", "demo-key.g2": "ready"}
    again = due(run, old)
    assert again.code == ExitCode.PENDING
    (waiting,) = run("change", "list", "--open", "--json", "--config", old).ok().json
    assert waiting["action"] == "key rotate activate"
    assert f"change {waiting['id']} waits for approval" in again.out
    run("change", "approve", waiting["id"], "--key", key, "--yes", "--config", old).ok()
    assert states(run, old) == {"demo-key": "retired", "demo-key.g2": "active"}
    due(run, old).ok()


def test_key_rotate_takes_all_steps_without_a_word_between(run: Run, config: Path) -> None:
    run("key", "rotate", "demo", "demo-key", "--yes", "--config", config).ok()
    assert states(run, config) == {"demo-key": "retired", "demo-key.g2": "active"}
    run("key", "rotate", "--label", "third", "demo", "demo-key", "--yes", "--config", config).ok()
    assert states(run, config)["third"] == "active"


@pytest.mark.parametrize("name", ["now", "due", "prepare", "check", "activate", "rollback"])
def test_a_keystore_called_like_a_step_is_refused_and_reached_by_now(run: Run, config: Path, name: str) -> None:
    """It has one argument fewer than the step, so it is never taken for it."""
    run("keystore", "create", name, "--config", config).ok()
    run("key", "create", name, "a-key", "--config", config).ok()
    refused = run("key", "rotate", name, "a-key", "--yes", "--config", config)
    assert refused.code == ExitCode.USAGE
    assert shown(run, config, "a-key", name)["generation"] == 1
    run("key", "rotate", "now", name, "a-key", "--yes", "--config", config).ok()
    assert shown(run, config, "a-key", name)["generation"] == 2


def test_a_scheduler_rotates_and_does_nothing_else(run: Run, old: Path, is_: Is) -> None:
    is_("root")
    run("operator", "enrol", "root", "--role", "administrator", "--yes", "--config", old).ok()
    run("operator", "enrol", "holdfast", "--role", "scheduler", "--yes", "--config", old).ok()
    is_("holdfast")
    due(run, old).ok()
    assert states(run, old) == {"demo-key": "retired", "demo-key.g2": "active"}
    for refused in (("key", "rotate", "rollback", "demo", "demo-key"), ("key", "disable", "demo", "demo-key")):
        assert run(*refused, "--yes", "--config", old).code == ExitCode.DENIED
    record = run("change", "list", "--json", "--config", old).ok().json[-1]["record"]
    assert (record["action"], record["actor"]["name"]) == ("key rotate activate", "holdfast")
