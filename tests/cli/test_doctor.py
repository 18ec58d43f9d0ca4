"""`holdfast doctor` and `config check` for a person: each reason once, the worst at the end."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.conftest import Run

from holdfast.cli.exit_codes import ExitCode
from holdfast.config.tables import TABLES, Table
from holdfast.finding import Finding, Severity, error, ok, warning

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
def test_what_is_well_comes_first_and_the_worst_last_each_once(run: Run, catalog_only: Path) -> None:
    """With many keys the first lines have scrolled away."""
    done = run("doctor", "--config", catalog_only)
    assert done.code == ExitCode.ERRORS
    headlines = [line.split(":")[0] for line in done.out.splitlines() if line.startswith(tuple(Severity))]
    assert headlines == ["ok       hsm.main", "warning  key prod/one", "warning  key prod/two", "error    hsm.main"]
    assert done.out.splitlines()[-1] == "1 error, 2 warnings, 0 notes, 1 ok"


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_no_line_is_wider_than_the_terminal(
    run: Run, catalog_only: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    words = "a sentence of many words " * 20
    finding = error("some-code", "hsm.main", words, why=words, remedy=words)
    monkeypatch.setattr("holdfast.cli.doctor.examine", lambda *_, **__: iter((ok("fine", "hsm", words), finding)))
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = run("doctor", "--config", catalog_only).out.splitlines()
    assert min(columns, 110) - 15 < max(map(len, lines)) <= min(columns, 110)


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
    assert findings[0]["code"] == "library-missing"
    assert {"pin-unreadable", "catalog", "certificate-unreadable"} <= {finding["code"] for finding in findings}
    assert any(finding["code"].startswith("clock") for finding in findings)


def test_a_part_that_fails_is_a_finding_and_the_others_are_still_looked_at(
    run: Run, catalog_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_: object, **__: object) -> Iterator[Finding]:
        yield ok("first", "files", "something")
        raise PermissionError(13, "Permission denied", "/var/lib/holdfast/secrets")

    monkeypatch.setattr("holdfast.doctor.examination.examine_certificate", unreadable)
    findings = run("doctor", "--json", "--config", catalog_only).json["findings"]
    (stopped,) = [finding for finding in findings if finding["code"] == "part-stopped"]
    assert stopped["what"].endswith("/var/lib/holdfast/secrets: Permission denied")
    assert {"catalog", "first"} <= {finding["code"] for finding in findings}
    assert any(finding["code"].startswith("clock") for finding in findings)


def test_a_secrets_directory_that_cannot_be_read_is_a_finding(run: Run, catalog_only: Path) -> None:
    """Doctor stopped in the middle. Root can read every directory, but not a file as one."""
    catalog_only.with_name("secrets").touch()
    findings = run("doctor", "--json", "--config", catalog_only).json["findings"]
    (found,) = [finding for finding in findings if finding["code"] == "directory-unreadable"]
    assert "the secret access keys cannot be read: Not a directory" in found["what"]
    assert any(finding["code"].startswith("clock") for finding in findings)


# ---- config check


def test_config_check_finds_what_the_configuration_names_without_an_hsm(run: Run, catalog_only: Path) -> None:
    done = run("config", "check", "--json", "--config", catalog_only)
    assert (done.code, done.json["worst"]) == (ExitCode.ERRORS, "error")
    found = {finding["code"] for finding in done.json["findings"]}
    assert {"library-missing", "pin-unreadable", "certificate-unreadable"} <= found


def test_config_check_tells_all_mistakes_of_the_file_with_their_lines(run: Run, catalog_only: Path) -> None:
    catalog_only.write_text(catalog_only.read_text().replace("[tls]", "wrokers = 2\n[tls]\nkey = 1"))
    done = run("config", "check", "--json", "--config", catalog_only)
    assert done.code == ExitCode.CONFIGURATION
    assert [finding["subject"] for finding in done.json["findings"]] == [f"{catalog_only}:4", f"{catalog_only}:6"]
    plain = run("config", "check", "--config", catalog_only)
    assert (plain.code, plain.err.count(str(catalog_only))) == (ExitCode.CONFIGURATION, 2)


def test_config_check_names_a_token_directory_that_is_gone(run: Run, catalog_only: Path) -> None:
    conf = catalog_only.with_name("softhsm2.conf")
    conf.write_text("directories.tokendir = /no/such/tokens\n")
    with catalog_only.open("a") as file:
        file.write(f'environment = {{ SOFTHSM2_CONF = "{conf}" }}\n')
    findings = run("config", "check", "--json", "--config", catalog_only).json["findings"]
    (found,) = [finding for finding in findings if finding["code"] == "softhsm-files"]
    assert "/no/such/tokens cannot be read: No such file or directory" in found["what"]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_config_explain_has_every_key(run: Run, table: Table) -> None:
    whole = run("config", "explain", table.name).ok().out
    for key in table.keys:
        assert f"\n{key.name}  (" in whole
        alone = run("config", "explain", f"{table.name}.{key.name}").ok().out
        assert " ".join(key.meaning.split()) in " ".join(alone.split())


def test_config_explain_suggests_the_nearest_key(run: Run) -> None:
    done = run("config", "explain", "wrokers")
    assert (done.code, "Did you mean workers?" in done.err) == (ExitCode.NOT_FOUND, True)
