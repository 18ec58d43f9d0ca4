"""Data on standard output, talk on standard error, exit codes that are documented, help that is quick."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.waiting import PATIENCE

from holdfast._version import __version__
from holdfast.cli.exit_codes import MEANINGS, ExitCode, exit_code_of
from holdfast.cli.output import say
from holdfast.cli.tables import table
from holdfast.control import errors

HEAVY = ("sqlalchemy", "cffi", "cryptography", "rich", "alembic", "uvicorn", "cedarpy")


@pytest.mark.programs
def test_help_loads_nothing_heavy() -> None:
    """What `holdfast --help` imports decides how long it takes; seconds measured here would depend on the machine."""
    code = "import sys\nfrom holdfast.cli import main\nmain(['--help'])\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE)
    loaded = set(done.stderr.split())
    assert not set(HEAVY) & loaded
    assert len(loaded) < 250  # 179 when this was written


def test_version(run: Run) -> None:
    assert run("--version").ok().out == f"holdfast {__version__}\n"


@pytest.mark.programs
def test_module_runs_like_the_script() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", "nonsense"], capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")


@pytest.mark.parametrize("arguments", [("keystroe",), ("keystore", "lits"), ("key", "list", "--jsn")])
def test_wrong_command_line_is_talk_with_a_hint(run: Run, arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert (done.code, done.out) == (ExitCode.USAGE, "")
    assert done.err.startswith("holdfast: error: ")
    assert "hint: " in done.err


@pytest.mark.parametrize("group", ["keystore", "credential", "key", "migrate", "authorization", "audit"])
def test_group_alone_shows_its_help(run: Run, group: str) -> None:
    assert "Commands:" in run(group, "--help").ok().out


def test_group_without_a_command_shows_its_help_as_talk(run: Run) -> None:
    done = run("keystore")
    assert (done.code, done.out) == (ExitCode.USAGE, "")
    assert done.err.startswith("Usage: holdfast keystore")


def test_every_exit_code_has_a_meaning() -> None:
    assert set(MEANINGS) == set(ExitCode)


def test_every_admin_error_has_a_code_of_its_own() -> None:
    """AdminError itself is a failure without a code; each kind below it has one."""
    kinds = errors.AdminError.__subclasses__()
    codes = [exit_code_of(kind("what", hint="next")) for kind in kinds]
    assert ExitCode.FAILED not in codes
    assert len(codes) == len(set(codes)) == 8


def test_missing_configuration_says_where_it_looked(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("keystore", "list")
    assert done.code == ExitCode.CONFIGURATION
    assert "/etc/holdfast/holdfast.toml does not exist" in done.err
    assert "--config or HOLDFAST_CONFIG" in done.err


def test_configuration_in_the_working_directory_is_not_used_but_pointed_at(
    run: Run, catalog_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CWE-427: else whoever can write to the directory that an administrator is in chooses catalog and library."""
    monkeypatch.chdir(catalog_only.parent)
    done = run("keystore", "list", "--json")
    assert done.code == ExitCode.CONFIGURATION
    assert "--config holdfast.toml" in done.err
    assert run("keystore", "list", "--json", "--config", "holdfast.toml").ok().json == []


@pytest.mark.parametrize(
    "command", ["keystore list", "keystore block --all --yes", "key create demo k", "doctor", "serve", "init"]
)
def test_configuration_that_others_can_change_is_refused_by_every_command(
    run: Run, catalog_only: Path, command: str
) -> None:
    catalog_only.chmod(0o666)
    done = run(*command.split(), "--config", catalog_only)
    assert (done.code, done.out) == (ExitCode.CONFIGURATION, "")
    assert f"`chmod go-w {catalog_only}`" in done.err


@pytest.mark.parametrize("command", ["key create prod k", "serve"])
def test_library_that_others_can_change_is_not_loaded(run: Run, catalog_only: Path, command: str) -> None:
    run("keystore", "create", "prod", "--config", catalog_only).ok()
    library = catalog_only.with_name("library.so")
    library.touch()
    library.chmod(0o666)
    text = re.sub('library = ".*"', f'library = "{library}"', catalog_only.read_text())
    catalog_only.write_text(text)
    done = run(*command.split(), "--config", catalog_only)
    assert done.code == ExitCode.CONFIGURATION
    assert f"{library} is not loaded" in done.err


def test_every_command_that_changes_names_the_configuration_and_catalog(run: Run, catalog_only: Path) -> None:
    named = f"Configuration {catalog_only}, catalog sqlite:///"
    for command in ("keystore create prod", "credential issue prod", "keystore block prod --yes"):
        assert run(*command.split(), "--config", catalog_only).ok().err.startswith(named)
    for command in (
        "keystore list",
        "credential list",
        "keystore config prod --show-secret",
        "keystore show prod",
        "key list",
    ):
        assert named not in run(*command.split(), "--config", catalog_only).ok().err


def test_next_steps_name_the_configuration_where_it_would_not_be_found(
    run: Run, catalog_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag = f" --config {catalog_only}"
    for command in ("keystore create prod", "credential issue prod"):
        told = run(*command.split(), "--config", catalog_only).ok().err
        assert all(step.endswith(flag) for step in re.findall("`(holdfast [^`]*)`", told))
    monkeypatch.setenv("HOLDFAST_CONFIG", str(catalog_only))
    assert flag not in run("keystore", "create", "other").ok().err


def test_configuration_from_the_environment_is_found(
    run: Run, catalog_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_CONFIG", str(catalog_only))
    assert run("keystore", "list", "--json").ok().json == []


def test_wrong_configuration_names_file_and_line(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "holdfast.toml"
    path.write_text('[server]\nlisten = "127.0.0.1:1"\nwrokers = 2\n')
    done = run("keystore", "list", "--config", path)
    assert done.code == ExitCode.CONFIGURATION
    assert f"{path}:3:" in done.err


def test_defect_is_reported_as_one(run: Run, monkeypatch: pytest.MonkeyPatch, catalog_only: Path) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("unexpected")

    monkeypatch.setattr("holdfast.store.store.Catalog.keystores", broken)
    done = run("keystore", "list", "--config", catalog_only)
    assert done.code == ExitCode.FAILED
    assert "defect of Holdfast" in done.err


@pytest.mark.programs
@pytest.mark.parametrize("streams", ["1", "2", "1 and 2"])
@pytest.mark.parametrize(
    ("arguments", "unbuffered"),
    [(("keystore", "list", "--json"), ""), (("--help",), ""), (("--help",), "1"), (("nonsense",), "")],
)
def test_a_reader_that_goes_away_is_no_defect(
    catalog_only: Path, arguments: tuple[str, ...], streams: str, unbuffered: str
) -> None:
    """`holdfast ... | true`: quiet, and as a program ends that SIGPIPE ended, if it had something to say there."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", *arguments],
        stdout=writing if "1" in streams else subprocess.PIPE,
        stderr=writing if "2" in streams else subprocess.PIPE,
        env={**os.environ, "HOLDFAST_CONFIG": str(catalog_only), "PYTHONUNBUFFERED": unbuffered},
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    os.close(writing)
    if arguments == ("nonsense",):
        assert done.returncode == ExitCode.USAGE
    elif "1" in streams:
        assert (done.returncode, done.stdout or "", done.stderr or "") == (ExitCode.UNREAD, "", "")
    else:
        assert done.returncode == ExitCode.OK


@pytest.mark.programs
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_do_not_keep_a_command_from_its_work(
    run: Run, catalog_only: Path, closed: str
) -> None:
    create = [sys.executable, "-m", "holdfast", "keystore", "create", "made", "--config", str(catalog_only)]
    done = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *create], check=False, timeout=PATIENCE)
    assert done.returncode == ExitCode.OK
    assert [row["name"] for row in run("keystore", "list", "--json", "--config", catalog_only).ok().json] == ["made"]


@pytest.mark.programs
def test_with_closed_standard_streams_no_file_of_the_process_gets_their_numbers() -> None:
    """A library that writes to standard error would write into the catalog."""
    code = (
        "import os\nfrom holdfast.cli import main\nmain(['--version'])\n"
        "raise SystemExit({os.readlink(f'/proc/self/fd/{n}') for n in range(3)} != {'/dev/null'})"
    )
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", code], check=False, timeout=30
    )
    assert done.returncode == 0


@pytest.mark.programs
def test_output_that_cannot_be_written_is_a_failure(catalog_only: Path) -> None:
    """A full disk: an exit code of 0 would say that all the data are there."""
    command = [sys.executable, "-m", "holdfast", "keystore", "list", "--json", "--config", str(catalog_only)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (
        ExitCode.FAILED,
        "holdfast: error: standard output: No space left on device\n",
    )


@pytest.mark.programs
@pytest.mark.parametrize("is_pipe", [True, False])
@pytest.mark.parametrize("change", [("keystore", "block", "made", "--yes"), ("emergency", "stop", "--all")])
def test_a_stop_is_made_also_where_nothing_can_be_said_of_it(
    run: Run, catalog_only: Path, change: tuple[str, ...], *, is_pipe: bool
) -> None:
    run("keystore", "create", "made", "--config", catalog_only).ok()
    reading, writing = os.pipe()
    os.close(reading)
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "holdfast", *change, "--config", str(catalog_only)]
        nowhere = writing if is_pipe else full
        done = subprocess.run(command, stdout=nowhere, stderr=nowhere, check=False, timeout=PATIENCE)
    os.close(writing)
    assert done.returncode == ExitCode.OK
    blocked = [row["blocked"] for row in run("keystore", "list", "--json", "--config", catalog_only).ok().json]
    stopped = run("emergency", "show", "--json", "--config", catalog_only).ok().json["stopped"]
    assert blocked == [True] or stopped


@pytest.mark.programs
def test_what_people_wrote_is_shown_in_any_locale(run: Run, catalog_only: Path) -> None:
    run("keystore", "create", "made", "--reason", "Gr\u00fc\u00dfe", "--config", catalog_only).ok()
    for option in ((), ("--json",)):
        command = [sys.executable, "-m", "holdfast", "change", "list", *option, "--config", str(catalog_only)]
        environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "TERM": "dumb", "COLUMNS": "40"}
        done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=PATIENCE)
        assert (done.returncode, done.stderr) == (ExitCode.OK, b"")
        assert "Gr\u00fc\u00dfe" in done.stdout.decode()


@pytest.mark.parametrize("name", ["a#b", "a=b", 'a"b', "a\\b", "a\nb", "a\udcff"])
def test_a_directory_that_softhsm_cannot_use_is_refused_before_anything_is_made(
    run: Run, tmp_path: Path, name: str
) -> None:
    refused = run("init", "--directory", tmp_path / name)
    assert (refused.code, "cannot be the directory" in refused.err) == (ExitCode.CONFIGURATION, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", ["-h", "--help", "keystore -h", "key create -h"])
def test_short_help_option(run: Run, arguments: str) -> None:
    assert run(*arguments.split()).ok().out.startswith("Usage: holdfast")


def test_short_version_option(run: Run) -> None:
    assert run("-V").ok().out == run("--version").ok().out == f"holdfast {__version__}\n"


@pytest.mark.parametrize("command", ["", "keystore", "key create"])
def test_help_as_a_command(run: Run, command: str) -> None:
    assert run("help", *command.split()).ok().out == run(*command.split(), "--help").ok().out


@pytest.mark.parametrize(
    ("mistyped", "meant"), [("keystor list", "keystore"), ("kestore", "keystore"), ("docter", "doctor")]
)
def test_a_mistyped_command_is_answered_with_the_nearest(run: Run, mistyped: str, meant: str) -> None:
    done = run(*mistyped.split())
    assert done.code == ExitCode.USAGE
    assert f"Did you mean `holdfast {meant}`" in done.err


def test_help_cuts_no_sentence(run: Run) -> None:
    for group in ("", "keystore", "credential", "key", "authorization", "config"):
        text = run(*group.split(), "--help").ok().out
        assert "..." not in text.replace("[ARGS]...", ""), group
        assert max(map(len, text.splitlines())) <= 80


@pytest.mark.programs
@pytest.mark.parametrize(
    ("typed", "completed"), [("holdfast keyst", "keystore"), ("holdfast keystore bl", "block"), ("holdfast he", "")]
)
def test_completion_knows_commands_that_are_not_loaded(typed: str, completed: str) -> None:
    """As bash asks for it; `holdfast --install-completion` writes the script that does."""
    asks = {"_HOLDFAST_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    code = "import sys; from holdfast.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | asks, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.stdout.split() == completed.split()


@pytest.mark.parametrize("columns", [20, 60, 72, 80, 200])
@pytest.mark.parametrize("label", ["key-1", "a-label-without-a-space-" * 2])
def test_a_table_fits_the_terminal_and_loses_no_letter(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int, label: str
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    names = ("KEYSTORE", "KEY", "STATUS", "GENERATION", "HSM", "LABEL", "ENCRYPTIONS", "CREATED")
    row = ("demo", "demo-key", "ENABLED", "1", "softhsm", label, "<= 8,192", "3 minutes ago")
    table(names, [row], empty="")
    out = capsys.readouterr().out
    words = {word for cell in (*names, *row) for word in cell.split()}
    assert words <= set(out.replace(":", " ").split())
    longest = max(len(f"{name}: {cell}") for name, cell in zip(names, row, strict=True))
    assert max(map(len, out.splitlines())) <= max(columns, longest)


def test_a_table_in_a_pipe_has_a_line_for_each_row(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    table(("A", "B"), [("x" * 300, "a b c"), ("y", "z")], empty="")
    assert capsys.readouterr().out.splitlines() == [f"A{' ' * 301}B", f"{'x' * 300}  a b c", f"y{' ' * 301}z"]


def test_talk_is_wrapped_between_words_on_a_terminal_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    text = "  - a plan's line that is longer than forty columns, /with/a/path/that/stays/whole/however/long/it-is"
    say(text)
    assert capsys.readouterr().err == f"{text}\n"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    say(text)
    lines = capsys.readouterr().err.splitlines()
    assert " ".join(line.strip() for line in lines) == text.strip()
    assert [len(line) for line in lines if "/" not in line] == [37, 18]
    assert all(line.startswith("    ") for line in lines[1:])


def test_a_block_that_cannot_be_written_names_the_other_way_to_stop(
    run: Run, catalog_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Break-glass must work when the catalog does not: here another process holds its lock."""
    run("keystore", "create", "prod", "--config", catalog_only).ok()
    monkeypatch.setattr("holdfast.store.database._SQLITE_BUSY", 0.05)
    with closing(sqlite3.connect(catalog_only.with_name("catalog.db"))) as other:
        other.execute("BEGIN IMMEDIATE")
        done = run("keystore", "block", "prod", "--yes", "--config", catalog_only)
    assert done.code == ExitCode.CATALOG
    assert "`fuser -v FILE`" in done.err
    assert "`systemctl stop holdfast` on each proxy" in done.err


@pytest.mark.programs
def test_a_full_disk_under_the_catalog_says_so_and_names_the_other_way_to_stop(run: Run, catalog_only: Path) -> None:
    run("keystore", "create", "prod", "--config", catalog_only).ok()
    directory = catalog_only.with_name("small")
    directory.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "small", directory], check=False)
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        shutil.copy(catalog_only.with_name("catalog.db"), directory)
        with catalog_only.open("a") as file:
            file.write('[catalog]\nurl = "sqlite:///small/catalog.db"\n')
        with suppress(OSError), (directory / "filler").open("wb") as file:
            file.write(bytes(2**20))
        done = run("keystore", "block", "prod", "--yes", "--config", catalog_only)
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)
    assert done.code == ExitCode.CATALOG
    assert "(`df`)" in done.err
    assert "`systemctl stop holdfast` on each proxy" in done.err


@pytest.mark.parametrize("command", [("kms",), ("check", "https://localhost", "--proxy-config", "/nowhere")])
def test_every_command_refuses_a_region_that_cannot_be(run: Run, command: tuple[str, ...]) -> None:
    done = run(*command, "--region", "frankfurt")
    assert done.code == ExitCode.USAGE
    assert "'frankfurt' is not the name of an AWS Region" in done.err


def test_a_route_without_an_address_is_shown_as_it_was_typed(run: Run) -> None:
    done = run("kms", "--route", "localhost")
    assert done.code == ExitCode.CONFIGURATION
    assert "--route localhost is not NAME=HOST:PORT" in done.err


@pytest.mark.programs
def test_the_local_kms_says_what_to_install() -> None:
    # In a process of its own: another test of this one may have imported the local KMS, which then starts.
    program = "import sys; sys.modules['h11'] = None; from holdfast.cli.main import main; sys.exit(main(['kms']))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == ExitCode.PREREQUISITE
    assert "needs the Python package h11" in done.stderr
    assert "-m pip install botocore h11 starlette uvicorn" in done.stderr
