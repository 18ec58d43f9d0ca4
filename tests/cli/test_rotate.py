"""`holdfast key rotate` on real SoftHSM, without nodes; with nodes and load: tests/stress/test_rotation.py."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.cli.test_key_commands import config, hsm_operator, shown, template, tool

from holdfast.cli.exit_codes import ExitCode
from holdfast.control.keys import how_to_make
from holdfast.hsm.settings import HsmSettings, TokenSelector
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
