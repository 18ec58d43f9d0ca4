"""`holdfast emergency`, without a node."""

from typing import TYPE_CHECKING

from holdfast.cli.exit_codes import ExitCode
from holdfast.config.load import parse
from holdfast.store.local_stop import StopFile

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run


def test_a_stop_needs_no_catalog_and_is_shown_and_lifted(run: "Run", catalog_only: "Path") -> None:
    (catalog_only.parent / "catalog.db").unlink()
    stopped = run("emergency", "stop", "--keystore", "alpha", "--reason", "drill", "--config", catalog_only).ok()
    assert "No worker of this node runs" in stopped.err
    shown = run("emergency", "show", "--json", "--config", catalog_only).ok().json
    assert (shown["stopped"], shown["keystores"], shown["reason"]) == (True, ["alpha"], "drill")
    run("emergency", "stop", "--keystore", "beta", "--yes", "--config", catalog_only).ok()
    assert run("emergency", "show", "--json", "--config", catalog_only).json["keystores"] == ["alpha", "beta"]
    run("emergency", "lift", "--keystore", "alpha", "--yes", "--config", catalog_only).ok()
    assert run("emergency", "show", "--json", "--config", catalog_only).json["keystores"] == ["beta"]
    run("emergency", "lift", "--all", "--yes", "--config", catalog_only).ok()
    assert run("emergency", "show", "--json", "--config", catalog_only).json["stopped"] is False
    assert "Nothing is stopped" in run("emergency", "lift", "--all", "--yes", "--config", catalog_only).ok().err


def test_a_stop_of_everything_is_not_narrowed_by_a_later_one(run: "Run", catalog_only: "Path") -> None:
    run("emergency", "stop", "--all", "--yes", "--config", catalog_only).ok()
    run("emergency", "stop", "--keystore", "alpha", "--yes", "--config", catalog_only).ok()
    assert run("emergency", "show", "--json", "--config", catalog_only).json["keystores"] is None
    refused = run("emergency", "lift", "--keystore", "alpha", "--yes", "--config", catalog_only)
    assert (refused.code, "--all" in refused.err) == (ExitCode.CONFIGURATION, True)


def test_a_stop_that_cannot_be_written_says_so_and_what_to_do(run: "Run", catalog_only: "Path") -> None:
    (catalog_only.parent / "catalog.db.stop").mkdir()
    done = run("emergency", "stop", "--all", "--yes", "--config", catalog_only)
    assert done.code == ExitCode.PREREQUISITE
    assert "NOTHING WAS CHANGED" in done.err
    assert "systemctl stop holdfast" in done.err


def test_a_stop_makes_nothing_in_its_directory_and_needs_no_postgresql(run: "Run", catalog_only: "Path") -> None:
    text = catalog_only.read_text()
    catalog_only.write_text(f'{text}\n[catalog]\nurl = "postgresql://nobody@127.0.0.1:1/none"\n')
    StopFile(parse(catalog_only.read_text(), catalog_only).catalog.stop_file).prepare()
    before = sorted((path, path.stat().st_ino) for path in catalog_only.parent.rglob("*"))
    run("emergency", "stop", "--all", "--yes", "--config", catalog_only).ok()
    assert run("emergency", "show", "--json", "--config", catalog_only).ok().json["stopped"]
    assert sorted((path, path.stat().st_ino) for path in catalog_only.parent.rglob("*")) == before


def test_a_stop_with_a_configuration_that_is_broken_says_what_still_stops(run: "Run", catalog_only: "Path") -> None:
    catalog_only.write_text("[server")
    refused = run("emergency", "stop", "--all", "--config", catalog_only)
    assert (refused.code, "systemctl stop holdfast" in refused.err) == (ExitCode.CONFIGURATION, True)


def test_what_cannot_be_a_keystore_is_not_stopped(run: "Run", catalog_only: "Path") -> None:
    refused = run("emergency", "stop", "--keystore", "", "--config", catalog_only)
    assert (refused.code, "is not a keystore name" in refused.err) == (ExitCode.CONFIGURATION, True)
    assert run("emergency", "show", "--json", "--config", catalog_only).ok().json["stopped"] is False


def test_what_to_stop_must_be_said(run: "Run", catalog_only: "Path") -> None:
    assert run("emergency", "stop", "--yes", "--config", catalog_only).code == ExitCode.USAGE
