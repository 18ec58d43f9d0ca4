"""`holdfast catalog`, on a machine without a working HSM."""

from pathlib import Path

import pytest
from tests.cli.conftest import Run

from holdfast.cli.exit_codes import ExitCode
from holdfast.store.memory import Memory, MemoryFile


@pytest.fixture
def config(run: Run, catalog_only: Path) -> Path:
    run("keystore", "create", "alpha", "--config", catalog_only).ok()
    return catalog_only


def remember(config: Path, *, version: int = 2, blocked: frozenset[str] = frozenset()) -> MemoryFile:
    """What a proxy of this machine would have written."""
    file = MemoryFile(config.parent / "catalog.db.seen")
    file.write(Memory(version, None, blocked, disabled=frozenset(), stopped={}, credentials=frozenset()))
    return file


def test_show_tells_version_and_doubt(run: Run, config: Path) -> None:
    shown = run("catalog", "show", "--json", "--config", config).ok().json
    assert (shown["version"], shown["keystores"], shown["bad_rows"], shown["doubt"]) == (2, 1, [], None)
    remember(config, version=41, blocked=frozenset({"alpha"}))
    shown = run("catalog", "show", "--config", config).ok()
    assert "its version went back from 41 to 2" in shown.out


def test_accept_shows_what_starts_again_and_then_believes(run: Run, config: Path) -> None:
    file = remember(config, version=41, blocked=frozenset({"alpha"}))
    refused = run("catalog", "accept", "--config", config)
    assert refused.code == ExitCode.UNCONFIRMED
    assert "keystore alpha: blocked -> open" in refused.err
    run("catalog", "accept", "--yes", "--config", config).ok()
    kept = file.read()
    assert kept is not None
    assert (kept.version, kept.doubt, kept.blocked) == (2, None, frozenset())
    assert "nothing to accept" in run("catalog", "accept", "--config", config).ok().err


def test_accept_replaces_a_damaged_memory(run: Run, config: Path) -> None:
    remember(config).path.write_text("damaged")
    run("catalog", "accept", "--yes", "--config", config).ok()
    assert run("catalog", "show", "--json", "--config", config).ok().json["doubt"] is None


def test_an_export_is_read_into_an_empty_catalog(run: Run, config: Path, tmp_path: Path) -> None:
    run("keystore", "block", "alpha", "--yes", "--config", config).ok()
    run("catalog", "export", "--output", tmp_path / "export.json", "--config", config).ok()
    full = run("catalog", "import", tmp_path / "export.json", "--yes", "--config", config)
    assert full.code != 0
    assert "into an empty one only" in full.err
    for file in config.parent.glob("catalog.db*"):
        file.unlink()
    run("catalog", "import", tmp_path / "export.json", "--yes", "--config", config).ok()
    (row,) = run("keystore", "list", "--json", "--config", config).ok().json
    assert (row["name"], row["blocked"]) == ("alpha", True)


def test_an_import_of_no_file_says_so(run: Run, config: Path, tmp_path: Path) -> None:
    refused = run("catalog", "import", tmp_path / "none", "--config", config)
    assert "none cannot be read: No such file or directory" in refused.err
