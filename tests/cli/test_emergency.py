"""`holdfast emergency`, without a node."""

from typing import TYPE_CHECKING

from holdfast.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run


def test_a_stop_needs_no_catalog_and_is_shown_and_lifted(run: "Run", catalog_only: "Path") -> None:
    (catalog_only.parent / "catalog.db").unlink()
    refused = run("emergency", "stop", "--all", "--config", catalog_only)
    assert refused.code == ExitCode.UNCONFIRMED
    run("emergency", "stop", "--keystore", "alpha", "--reason", "drill", "--yes", "--config", catalog_only).ok()
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


def test_what_to_stop_must_be_said(run: "Run", catalog_only: "Path") -> None:
    assert run("emergency", "stop", "--yes", "--config", catalog_only).code == ExitCode.USAGE
