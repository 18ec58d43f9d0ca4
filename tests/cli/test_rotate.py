"""`holdfast key rotate` on real SoftHSM, without nodes; with nodes and load: tests/stress/test_rotation.py."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Result, Run
from tests.cli.test_key_commands import config, hsm_operator, shown, template, tool

from holdfast.cli.exit_codes import ExitCode
from holdfast.control.keys import find_or_make, how_to_make
from holdfast.hsm.settings import HsmSettings, TokenSelector
from holdfast.keys.proof import Proof
from holdfast.store import rotation
from holdfast.store.errors import Unavailable

__all__ = ["config", "template"]

pytestmark = pytest.mark.server


def states(run: Run, config: Path) -> dict[str, str]:
    """The states of the generations of demo-key, by the labels of their HSM keys."""
    return {one["label"]: one["state"] for one in shown(run, config, "demo-key")["generations"]}


def labels(config: Path) -> set[str]:
    """The labels of the token's keys."""
    listed = config.parent / "labels"
    hsm_operator(config, f"open({str(listed)!r}, 'w').write(' '.join(key.label for key in inspector.find_keys()))")
    return set(listed.read_text().split())


def test_a_key_rotates_at_once_and_back(run: Run, config: Path) -> None:
    done = run("key", "rotate", "now", "demo", "demo-key", "--yes", "--config", config).ok()
    assert "Generation 2 is ready on 0 of 0 nodes" in done.err
    assert "To undo it: `holdfast key rotate rollback demo demo-key" in done.err
    assert states(run, config) == {"demo-key": "retired", "demo-key.g2": "active"}
    assert shown(run, config, "demo-key")["encryptions_at_most"] == 1  # the canary's: the count begins anew
    run("key", "rotate", "rollback", "demo", "demo-key", "--yes", "--config", config).ok()
    assert states(run, config) == {"demo-key": "active", "demo-key.g2": "retired"}
    nothing = run("key", "rotate", "rollback", "demo", "demo-key", "--yes", "--config", config)
    assert (nothing.code, "no retired generation to roll back to" in nothing.err) == (ExitCode.NOT_FOUND, True)
    again = ("key", "rotate", "rollback", "demo", "demo-key", "--generation", "2", "--yes", "--config", config)
    run(*again).ok()
    assert states(run, config) == {"demo-key": "retired", "demo-key.g2": "active"}


def test_nothing_is_activated_without_a_yes(run: Run, config: Path) -> None:
    asked = run("key", "rotate", "now", "demo", "demo-key", "--config", config)
    assert asked.code == ExitCode.UNCONFIRMED
    assert "generation 1 ('demo-key') decrypts only" in asked.err
    assert states(run, config) == {"demo-key": "active", "demo-key.g2": "ready"}
    run("key", "rotate", "now", "demo", "demo-key", "--yes", "--config", config).ok()
    assert states(run, config) == {"demo-key": "retired", "demo-key.g2": "active"}


def test_a_key_of_the_hsms_own_tool_becomes_the_next_generation(run: Run, config: Path) -> None:
    tool(config, "--keygen", "--key-type", "AES:32", "--sensitive", "--usage-decrypt", "--label", "by-hand")
    run("key", "rotate", "prepare", "demo", "demo-key", "--label", "by-hand", "--config", config).ok()
    run("key", "rotate", "check", "demo", "demo-key", "--config", config).ok()
    run("key", "rotate", "activate", "demo", "demo-key", "--yes", "--config", config).ok()
    assert states(run, config) == {"demo-key": "retired", "by-hand": "active"}


def test_an_extractable_key_is_no_generation(run: Run, config: Path) -> None:
    loose = ("--label", "loose", "--sensitive", "--extractable", "--usage-decrypt")
    tool(config, "--keygen", "--key-type", "AES:32", *loose)
    refused = run("key", "rotate", "prepare", "demo", "demo-key", "--label", "loose", "--config", config)
    assert (refused.code, "CKA_EXTRACTABLE is true" in refused.err) == (ExitCode.HSM, True)
    assert states(run, config) == {"demo-key": "active", "loose": "planned"}


def test_a_rotation_whose_key_was_made_and_not_recorded_leaves_no_key_behind(
    run: Run, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between two steps it goes on where it was: what is planned is planned, what is ready is ready."""

    def fails(*_: object, **__: object) -> None:
        raise Unavailable("the catalog does not answer")

    with monkeypatch.context() as broken:
        broken.setattr(rotation, "make_ready", fails)
        assert run("key", "rotate", "now", "demo", "demo-key", "--yes", "--config", config).code == ExitCode.CATALOG
    assert "demo-key.g2" not in labels(config)
    assert states(run, config) == {"demo-key": "active", "demo-key.g2": "planned"}
    run("key", "rotate", "now", "demo", "demo-key", "--yes", "--config", config).ok()
    assert states(run, config) == {"demo-key": "retired", "demo-key.g2": "active"}


def test_of_two_rotations_at_once_the_slower_ones_key_goes_again(
    run: Run, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both make an HSM key of the same label; the catalog has that of the faster one, by its CKA_ID."""

    @contextmanager
    def slower(*arguments: Any, **options: Any) -> Iterator[Proof]:
        with find_or_make(*arguments, **options) as proof:
            with closing(sqlite3.connect(config.parent / "catalog.db")) as connection, connection:
                connection.execute(
                    "UPDATE key_generations SET state = 'ready', cka_id = x'02' WHERE label = 'demo-key.g2'"
                )
            yield proof

    monkeypatch.setattr("holdfast.control.actions.rotation.find_or_make", slower)
    lost = run("key", "rotate", "demo", "demo-key", "--yes", "--config", config)
    assert (lost.code, "the catalog has changed" in lost.err) == (ExitCode.CONFLICT, True)
    assert "demo-key.g2" not in labels(config)


def test_a_key_does_not_rotate_while_a_node_has_not_found_it(run: Run, config: Path) -> None:
    with closing(sqlite3.connect(config.parent / "catalog.db")) as connection, connection:
        connection.execute(
            "INSERT INTO proxies (id, last_seen, metadata_format, workers)"
            " VALUES ('a:443', strftime('%Y-%m-%d %H:%M:%f', 'now'), 2, 2)"
        )
    waiting = run("key", "rotate", "now", "demo", "demo-key", "--wait", "0", "--yes", "--config", config)
    assert waiting.code == ExitCode.CONFLICT
    assert "generation 2 is ready on 0 of 1 node after 0 s: a:443: 0 of 2 workers" in waiting.err
    assert states(run, config) == {"demo-key": "active", "demo-key.g2": "ready"}


@pytest.mark.parametrize(
    ("token", "protect"), [("loadshared accelerator", "module"), ("operators", "token"), (None, "module")]
)
def test_on_nshield_the_operator_is_told_what_to_type(token: str | None, protect: str) -> None:
    settings = HsmSettings(
        "main", "nshield", "/opt/nfast/toolkits/pkcs11/libcknfast.so", TokenSelector(label=token), "h"
    )
    lines = how_to_make(settings, "prod-1.g2")
    assert lines[0] == (
        f"generatekey pkcs11 plainname=prod-1.g2 protect={protect} type=AES size=256 recovery=yes nvram=no"
    )
    assert [line.split("#")[0].strip() for line in lines[1:]] == ["rfs-sync --commit", "rfs-sync --update"]


# ---- generations that do not encrypt any more


@pytest.fixture
def rotated(run: Run, config: Path) -> Path:
    """A configuration whose demo-key has a second generation, which encrypts."""
    run("key", "rotate", "now", "demo", "demo-key", "--yes", "--config", config).ok()
    return config


def generation(run: Run, config: Path, *arguments: str) -> Result:
    command, *more = arguments
    return run("key", "generation", command, "demo", "demo-key", "1", *more, "--yes", "--config", config)


def test_a_generation_is_suspended_and_resumed(run: Run, rotated: Path) -> None:
    done = generation(run, rotated, "suspend").ok()
    assert "refused with InvalidStateException" in done.err
    assert "To undo it: `holdfast key generation resume demo demo-key 1" in done.err
    assert states(run, rotated)["demo-key"] == "suspended"
    generation(run, rotated, "resume").ok()
    assert states(run, rotated)["demo-key"] == "retired"
    refused = generation(run, rotated, "resume")
    assert (refused.code, "generation 1 is retired" in refused.err) == (ExitCode.CONFLICT, True)


def test_the_generation_that_encrypts_is_not_taken_away(run: Run, config: Path) -> None:
    for command in ("suspend", "compromise", "destroy"):
        refused = generation(run, config, command)
        assert (refused.code, "generation 1 is active" in refused.err) == (ExitCode.CONFLICT, True)


def test_a_compromised_generation_never_encrypts_again(run: Run, rotated: Path) -> None:
    generation(run, rotated, "compromise").ok()
    back = run("key", "rotate", "rollback", "demo", "demo-key", "--yes", "--config", rotated)
    assert back.code == ExitCode.NOT_FOUND
    generation(run, rotated, "suspend").ok()
    generation(run, rotated, "resume").ok()
    assert states(run, rotated)["demo-key"] == "compromised"


def test_a_generation_is_destroyed_after_its_waiting_period_when_the_hsm_has_it_no_more(
    run: Run, rotated: Path
) -> None:
    generation(run, rotated, "suspend").ok()
    assert "a waiting period has 7 to 3650 days" in generation(run, rotated, "destroy", "--days", "1").err
    generation(run, rotated, "destroy", "--days", "7").ok()
    generation(run, rotated, "keep").ok()
    generation(run, rotated, "destroy", "--days", "7").ok()
    assert states(run, rotated)["demo-key"] == "destroy-pending"
    there = generation(run, rotated, "destroyed")
    assert (there.code, "'demo-key' is still in [hsm.softhsm]" in there.err) == (ExitCode.HSM, True)
    hsm_operator(rotated, "inspector.destroy_key(*inspector.find_keys('demo-key'))")
    early = generation(run, rotated, "destroyed")
    assert (early.code, "the waiting period of generation 1 ends at" in early.err) == (ExitCode.CONFLICT, True)
    with closing(sqlite3.connect(rotated.parent / "catalog.db")) as connection, connection:
        connection.execute("UPDATE key_generations SET destroy_after = '2026-01-01 00:00:00.000000' WHERE number = 1")
    generation(run, rotated, "destroyed").ok()
    assert states(run, rotated) == {"demo-key": "destroyed", "demo-key.g2": "active"}


def test_a_generation_that_is_not_there_is_named(run: Run, config: Path) -> None:
    missing = run("key", "generation", "suspend", "demo", "demo-key", "7", "--yes", "--config", config)
    assert (missing.code, "has no generation 7" in missing.err) == (ExitCode.NOT_FOUND, True)
