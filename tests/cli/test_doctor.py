"""`holdfast doctor` for a person: the HSM first, each reason once, the errors again at the end."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.conftest import Run

from holdfast.admin.doctor.finding import Finding, error, ok, warning
from holdfast.cli.exit_codes import ExitCode

FINDINGS = (
    ok("login", "hsm.main", "needs no login"),
    error("iv-mode", "hsm.main", "the IV mode is wrong", why="IVs repeat.", remedy="Set iv_mode."),
    warning("key-wraps", "key prod/one", "it may wrap", why="It reads keys.", remedy="Make another."),
    warning("key-wraps", "key prod/two", "it may wrap", why="It reads keys.", remedy="Make another."),
)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An examination that finds FINDINGS."""

    def examine(*_: object, **__: object) -> Iterator[Finding]:
        yield from FINDINGS

    monkeypatch.setattr("holdfast.cli.doctor.examine", examine)


@pytest.mark.usefixtures("found")
def test_the_errors_stand_again_at_the_end(run: Run, catalog_only: Path) -> None:
    """With many keys the first lines have scrolled away."""
    done = run("doctor", "--config", catalog_only)
    assert done.code == ExitCode.ERRORS
    headline = "error    hsm.main: the IV mode is wrong  [iv-mode]"
    assert done.out.splitlines()[-2:] == ["1 error, 2 warnings, 0 notes, 1 ok", headline]
    assert done.out.count(headline) == 2


@pytest.mark.usefixtures("found")
def test_a_reason_is_told_once(run: Run, catalog_only: Path) -> None:
    out = run("doctor", "--config", catalog_only).out
    assert out.count("it may wrap") == 2
    assert out.count("It reads keys.") == out.count("Make another.") == 1


@pytest.mark.usefixtures("found")
def test_json_leaves_nothing_out(run: Run, catalog_only: Path) -> None:
    done = run("doctor", "--json", "--config", catalog_only)
    assert done.code == ExitCode.ERRORS
    assert done.json["worst"] == "error"
    assert [finding["remedy"] for finding in done.json["findings"]] == ["", "Set iv_mode."] + ["Make another."] * 2


def test_the_hsm_comes_first_and_every_part_is_looked_at(run: Run, catalog_only: Path) -> None:
    """A PIN that cannot be read does not keep the rest from being examined."""
    findings = run("doctor", "--json", "--config", catalog_only).json["findings"]
    assert findings[0]["code"] == "pin-unreadable"
    assert {"catalog", "certificate-unreadable"} <= {finding["code"] for finding in findings}
    assert any(finding["code"].startswith("clock") for finding in findings)
